"""A file → framed blocks → results of a function on each, in order; windows decoded independently and in parallel."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from xtrace import framing, scan
from xtrace.block import Block, Skip, leading_tsc
from xtrace.chain import load_stretch
from xtrace.errors import InputError
from xtrace.framing import Framer
from xtrace.source import CHUNK_BYTES, Source

Result = TypeVar("Result")
Progress = Callable[[int, int | None], None]
"""Told bytes read so far and in all (None: unknown)."""

FAST_FROM_BYTES = 96 << 20
"""Loading Numba, or starting worker processes, is repaid from about this size on."""


class Reader:
    """One trace, read from the start as often as `passes` asks for.

    path     a file, or `-` for standard input
    workers  how many blocks are decoded at a time; above one, large files use threads under Numba and
             processes without it
    """

    def __init__(self, path: str | os.PathLike[str], workers: int = 1, progress: Progress | None = None) -> None:
        self.path = path
        self.workers = workers
        self.progress = progress
        self.name = "<stdin>" if str(path) == "-" else str(path)
        self.skips: list[Skip] = []
        self.total_bytes = 0
        self._spooled: Path | None = None
        self._cleanup = ExitStack()

    @property
    def rereadable(self) -> bool:
        """Whether a second pass can read the input again."""
        return self._spooled is not None or (str(self.path) != "-" and Path(self.path).is_file())

    def spool(self) -> None:
        """Make a second pass possible: copy a pipe to a temporary file, removed by `close`."""
        if self.rereadable:
            return
        with Source(self.path) as source:
            folder = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="xtrace-")))
            copy = folder / "trace"
            try:
                with copy.open("wb") as out:
                    room = memoryview(bytearray(CHUNK_BYTES))
                    while count := source.read_into(room):
                        out.write(room[:count])
            except OSError as reason:
                raise InputError(
                    f"{self.name}: no room to keep a copy for a second pass in {folder}: {reason.strerror}"
                ) from None
        self._spooled = copy

    def sha256(self) -> str:
        """The hash, in hexadecimal, of the uncompressed input; a pass of its own."""
        digest = hashlib.sha256()
        with Source(self._spooled or self.path) as source:
            room = memoryview(bytearray(CHUNK_BYTES))
            while count := source.read_into(room):
                digest.update(room[:count])
        return digest.hexdigest()

    def blocks(self) -> Iterator[Block]:
        """The blocks in input order; then `skips` and `total_bytes` hold what framing found."""
        with Source(self._spooled or self.path) as source:
            scan.use_fast(_is_large(source))
            framer = Framer(source)
            for block in framer.blocks():
                self._tell(source.position(), source)
                yield block
            self.skips, self.total_bytes = framer.skips, framer.total_bytes

    def run(self, function: Callable[[Block], Result]) -> Iterator[Result]:
        """`function` of each block, several at a time; else as `blocks`. No result may hold memory of its block."""
        with Source(self._spooled or self.path) as source:
            fast = scan.use_fast(_is_large(source))
            framer = Framer(source)
            with self._executor(source, fast=fast) as executor:
                results: Iterator[Result]
                if executor is None:
                    results = map(function, framer.blocks())
                else:
                    if source.path is not None:
                        stretches = self._stretches(executor, source, partial(_stretch, function, source.path))
                        framer.base, framer.last_tsc = yield from stretches
                        source.seek(framer.base)
                    results = _in_order((executor.submit(function, block) for block in framer.blocks()), self.workers)
                for result in results:
                    self._tell(source.position(), source)
                    yield result
            self.skips, self.total_bytes = framer.skips, framer.total_bytes

    def _stretches(
        self, executor: Executor, source: Source, stretch: Callable[[int, int], Stretch[Result] | None]
    ) -> Generator[Result, None, tuple[int, int]]:
        """The results of stretches of a file that workers read and frame by themselves, while these join.

        Returns the offset behind the last one, which is the end unless the chain of windows breaks there, and the
        first cycle count of its last window.
        """
        size = framing.BLOCK_BYTES
        end = last_tsc = 0
        offsets = range(0, source.total_bytes or 0, size)
        for found in _in_order((executor.submit(stretch, size, offset) for offset in offsets), self.workers):
            if found is None or found.begin != end:
                break
            end, last_tsc = found.end, found.last_tsc or last_tsc
            self._tell(end, source)
            yield found.result
        return end, last_tsc

    def _tell(self, done: int, source: Source) -> None:
        if self.progress:
            self.progress(done, source.total_bytes)

    def _executor(self, source: Source, *, fast: bool) -> AbstractContextManager[Executor | None]:
        if self.workers == 1 or not _is_large(source):
            return nullcontext()
        if fast:
            return ThreadPoolExecutor(self.workers)
        if source.path is None:
            # Decompressed bytes would have to be sent to the processes, which costs what they save.
            return nullcontext()
        import multiprocessing

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["xtrace.digest"])
        return ProcessPoolExecutor(self.workers, mp_context=context)

    def close(self) -> None:
        """Remove the temporary copy, if there is one."""
        self._cleanup.close()


def _is_large(source: Source) -> bool:
    return source.total_bytes is not None and source.total_bytes >= FAST_FROM_BYTES


@dataclass(slots=True)
class Stretch(Generic[Result]):
    """A part of a file: first byte and end, the first cycle count of its last window, a function's result."""

    begin: int
    end: int
    last_tsc: int
    result: Result


def _stretch(function: Callable[[Block], Result], path: Path, size: int, offset: int) -> Stretch[Result] | None:
    try:
        block = load_stretch(path, offset, size)
    except OSError:
        # Whoever reads on in order meets it again, and says so.
        return None
    if block is None:
        return None
    last_tsc = leading_tsc(block.words[block.windows[-1, 0] :])
    return Stretch(block.offset, block.offset + block.words.nbytes, last_tsc, function(block))


def _in_order(futures: Iterator[Future[Result]], workers: int) -> Iterator[Result]:
    """The results, not asking for many more futures than workers can be busy with."""
    waiting: deque[Future[Result]] = deque()
    try:
        for future in futures:
            waiting.append(future)
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


__all__ = ["Progress", "Reader"]

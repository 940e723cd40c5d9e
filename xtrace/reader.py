"""A file → framed blocks → results of a function on each, in order; windows decoded independently and in parallel."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from xtrace import scan
from xtrace.errors import InputError
from xtrace.framing import Block, Framer, Skip
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

    def run(self, function: Callable[[Block], Result]) -> Iterator[Result]:
        """`function` of each block, in input order; then `skips` and `total_bytes` hold what framing found."""
        with Source(self._spooled or self.path) as source:
            large = source.total_bytes is not None and source.total_bytes >= FAST_FROM_BYTES
            fast = scan.use_fast(large)
            framer = Framer(source)
            with self._executor(source, large, fast) as executor:
                waiting: deque[Future[Result]] = deque()
                for block in framer.blocks():
                    if self.progress:
                        self.progress(source.position(), source.total_bytes)
                    if executor is None:
                        yield function(block)
                        continue
                    waiting.append(executor.submit(function, block))
                    if len(waiting) > 2 * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            self.skips, self.total_bytes = framer.skips, framer.total_bytes

    def _executor(self, source: Source, large: bool, fast: bool) -> Executor | _Inline:
        if self.workers == 1 or not large:
            return _Inline()
        if fast:
            return ThreadPoolExecutor(self.workers)
        if source.path is None:
            # Decompressed bytes would have to be sent to the processes, which costs what they save.
            return _Inline()
        import multiprocessing

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["xtrace.digest"])
        return ProcessPoolExecutor(self.workers, mp_context=context)

    def close(self) -> None:
        """Remove the temporary copy, if there is one."""
        self._cleanup.close()


class _Inline:
    """The absence of an executor, as a context manager."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


__all__ = ["Progress", "Reader"]

"""The files of tracepoints/: what puts the TRC_HW_SMP events into a Xen source tree."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

Piece = Literal["header", "legacy", "lockless"]

NAMES: Final[dict[Piece, str]] = {"header": "smp_trace.h", "legacy": "legacy.cocci", "lockless": "lockless.cocci"}
"""The header, and the semantic patch for each design of calls and flushes."""

README: Final = "README.md"


def text(name: str) -> str:
    """The content of one of the files. Its name is that in tracepoints/."""
    from importlib.resources import files

    return files("xtrace").joinpath("tracepoints", name).read_text(encoding="utf-8")


def steps() -> str:
    """What to do, as tracepoints/README.md says it under `Steps`."""
    _, _, behind = text(README).partition("\n## Steps\n")
    return behind.partition("\n## ")[0].strip() + "\n"


def write(folder: Path, *, force: bool) -> list[Path]:
    """Write all files into a folder that is there, each whole or not at all, and return their paths.

    Raises UsageError where one is in the way and force is not given, InputError where one cannot be written.
    """
    from xtrace.output import check, whole

    paths = [folder / name for name in (*NAMES.values(), README)]
    check(*paths, force=force)
    for path in paths:
        with whole(path) as file:
            file.write(text(path.name).encode())
    return paths

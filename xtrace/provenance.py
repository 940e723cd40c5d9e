"""Where the figures of a report come from: files with their hashes, options, versions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from xtrace import __version__

PACKAGES: Final = ("numpy", "pandas", "pyarrow", "scipy", "matplotlib", "construct")


@dataclass(frozen=True, slots=True)
class File:
    """A file that was read; size and hash are None for what cannot be read twice, such as a pipe."""

    role: str
    path: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Provenance:
    """files read, options given and versions of what computed."""

    files: tuple[File, ...]
    options: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def provenance(files: Sequence[tuple[str, str | None]], options: Mapping[str, object]) -> Provenance:
    """Of these files (role and path; a path of None is left out) and options (those of None, False or () too)."""
    return Provenance(
        tuple(_file(role, path) for role, path in files if path is not None),
        tuple((name, _text(value)) for name, value in options.items() if value not in (None, False, [], ())),
        (("xtrace", __version__), *((name, version(name)) for name in PACKAGES)),
    )


def _text(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return "yes" if value is True else str(value)


def _file(role: str, path: str) -> File:
    real = Path(path)
    if not real.is_file():
        return File(role, path, None, None)
    with real.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(role, path, real.stat().st_size, digest)

"""Builds the documentation in a copy, so that tests leave nothing in docs/ and may spoil what they build."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
RELEASED: Final = "1700000000"
"""The date of pages that carry one."""


def copied(folder: Path) -> Path:
    """A copy of docs/ in this folder, beside links to the rest of the repository."""
    for path in ROOT.iterdir():
        if path.name != "docs":
            (folder / path.name).symlink_to(path)
    return Path(shutil.copytree(ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("commands")))


def build(docs: Path, builder: str, out: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` does: any warning, a link that leads nowhere for instance, makes it fail."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", builder, str(docs), str(out)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": RELEASED}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

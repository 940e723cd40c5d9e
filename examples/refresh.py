"""Execute the notebooks of this folder and keep what they show: `python examples/refresh.py [NOTEBOOK…]`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

FOLDER: Final = Path(__file__).resolve().parent
TIMEOUT_S: Final = 300

METADATA: Final = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What every notebook says of itself: no release of Python, no other machine's kernel."""


def notebooks() -> list[Path]:
    """All notebooks of this folder."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    """A notebook as it is kept."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def executed(path: Path) -> Any:
    """The notebook with what a fresh kernel of this Python shows, as it is to be kept; the file is left alone."""
    # Nothing of the user's: no other kernel, no profile, no history; sockets that are files, not ports.
    with tempfile.TemporaryDirectory() as folder:
        manager = {"transport": "ipc", "connection_file": str(Path(folder) / "kernel.json")}
        client = NotebookClient(
            read(path),
            kernel_name="python3",
            config=Config({"AsyncKernelManager": manager, "KernelSpecManager": {"kernel_dirs": []}}),
            timeout=TIMEOUT_S,
            resources={"metadata": {"path": str(FOLDER)}},
            record_timing=False,
            coalesce_streams=True,
        )
        environment = os.environ | {"IPYTHONDIR": folder, "NO_COLOR": "1"}
        return normalised(client.execute(env=environment))


def normalised(notebook: Any) -> Any:
    """The same without what differs from run to run or from machine to machine."""
    notebook.metadata = nbformat.from_dict(METADATA)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})  # type: ignore[no-untyped-call]
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})  # type: ignore[no-untyped-call]
    return notebook


def main() -> None:
    """Refresh the notebooks that are named, or all."""
    for path in [Path(name) for name in sys.argv[1:]] or notebooks():
        found = executed(path)
        nbformat.validate(found)
        path.write_text(nbformat.writes(found) + "\n", encoding="utf-8")  # type: ignore[no-untyped-call]
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

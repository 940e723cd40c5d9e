"""The notebooks of examples/ run, and show what is kept in them."""

from __future__ import annotations

import base64
import json
import runpy
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

FOLDER: Final = Path(__file__).parent.parent / "examples"
NOTEBOOKS: Final = sorted(FOLDER.glob("*.ipynb"))
REFRESH: Final = runpy.run_path(str(FOLDER / "refresh.py"))

MAX_BYTES: Final = 300_000
MAX_IMAGE_BYTES: Final = 60_000
MAX_ROWS: Final = 16
TEXTS: Final = {"stdout", "text/plain"}
PNG: Final = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    """Each notebook in turn."""
    found: Path = request.param
    return found


def outputs(notebook: Any) -> Iterator[tuple[str, str, str]]:
    """Cell, kind and content of all that a notebook shows, in order."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                yield cell["id"], output["name"], "".join(output["text"])
            elif output["output_type"] == "error":
                yield cell["id"], "error", f"{output['ename']}: {output['evalue']}"
            else:
                for kind, content in sorted(output["data"].items()):
                    yield cell["id"], kind, "".join(content)


def texts_of(notebook: Any) -> list[tuple[str, str, str]]:
    """The same, of images and of tables in HTML only that they are there.

    Their bytes differ between releases of Matplotlib and pandas, and what a table says is in its text, too.
    """
    return [(cell, kind, content if kind in TEXTS else "") for cell, kind, content in outputs(notebook)]


def kept(path: Path) -> Any:
    """The file, as JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_shows_what_is_kept_in_it(path: Path) -> None:
    """One test, so that each notebook is executed once, whichever worker does it."""
    found = REFRESH["executed"](path)
    assert {kind for _, kind, _ in outputs(found)} <= {"stdout", "text/plain", "text/html", "image/png"}
    assert texts_of(found) == texts_of(kept(path)), "python examples/refresh.py"
    counts = [cell["execution_count"] for cell in found["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["before-and-after", "design-your-own", "slow-migration"]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({path.name})" in readme for path in NOTEBOOKS)


def test_it_is_small(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    images = 0
    for cell, kind, content in outputs(kept(path)):
        if kind == "image/png":
            image = base64.b64decode(content)
            assert image.startswith(PNG), cell
            assert len(image) < MAX_IMAGE_BYTES, cell
            images += 1
        else:
            assert content.count("\n") <= 2 * MAX_ROWS or kind == "text/html", cell
            assert content.count("<tr") <= MAX_ROWS, cell
    assert 0 < images <= 6


def test_it_is_as_refreshed(path: Path) -> None:
    """Executed from top to bottom, with nothing of the run but what it shows."""
    notebook = kept(path)
    assert notebook["metadata"] == REFRESH["METADATA"]
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert all(output.get("metadata", {}) == {} for cell in notebook["cells"] for output in cell.get("outputs", ()))
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_it_names_no_place_of_this_machine(path: Path) -> None:
    notebook = kept(path)
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    texts += [content for _, kind, content in outputs(notebook) if not kind.startswith("image/")]
    for place in (str(FOLDER.parent), str(Path.home()), tempfile.gettempdir(), sys.prefix):
        assert not any(place in text for text in texts), place


def test_refreshing_keeps_nothing_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = {"cell_type": "code", "id": "one", "source": "print(1)\n2", "outputs": [], "execution_count": 7}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"a": 1}, "cells": [cell | {"metadata": {"b": 2}}]}
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps(notebook))
    monkeypatch.setattr(sys, "argv", ["refresh.py", str(path)])
    REFRESH["main"]()
    first = path.read_bytes()
    assert list(outputs(kept(path))) == [("one", "stdout", "1\n"), ("one", "text/plain", "2")]
    assert kept(path)["cells"][0] | {"outputs": []} == cell | {
        "metadata": {},
        "execution_count": 1,
        "source": ["print(1)\n", "2"],
    }
    assert kept(path)["metadata"] == REFRESH["METADATA"]
    REFRESH["main"]()
    assert path.read_bytes() == first


def test_an_error_is_an_error(tmp_path: Path) -> None:
    cell: dict[str, Any] = {"cell_type": "code", "id": "one", "source": "1 / 0", "outputs": [], "execution_count": None}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell | {"metadata": {}}]}
    path = tmp_path / "some.ipynb"
    path.write_text(json.dumps(notebook))
    with pytest.raises(Exception, match="ZeroDivisionError"):
        REFRESH["executed"](path)

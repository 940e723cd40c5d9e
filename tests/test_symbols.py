"""Symbol maps: what an address is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from captures import capture
from conftest import SAMPLES

import xtrace
from xtrace.errors import InputError
from xtrace.symbols import MAX_OFFSET, Symbols

MAP = """\
ffff82d040220000 T second
ffff82d040210000 t file.c#first

                 U undefined
0xffff82d040230000 T third more columns
"""


@pytest.fixture
def symbols(tmp_path: Path) -> Symbols:
    path = tmp_path / "xen-syms.map"
    path.write_text(MAP)
    return Symbols.read(path)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0xFFFF82D040210000, "file.c#first"),
        (0xFFFF82D04021001C, "file.c#first+0x1c"),
        (0xFFFF82D04021FFFF, "file.c#first+0xffff"),
        (0xFFFF82D040220000, "second"),
        (0xFFFF82D040230010, "third+0x10"),
        (0xFFFF82D040230000 + MAX_OFFSET - 1, "third+0xfffff"),
        (0xFFFF82D040230000 + MAX_OFFSET, "0xffff82d040330000"),
        (0xFFFF82D04020FFFF, "0xffff82d04020ffff"),
        (0, "0x0"),
        (0xFFFFFFFFFFFFFFFF, "0xffffffffffffffff"),
    ],
)
def test_nearest_preceding_symbol(address: int, name: str, symbols: Symbols) -> None:
    assert symbols.name(address) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ffff82d040210000 T good\nffff82d040220000 T\n", "line 2: not `address type name`"),
        ("good T ffff82d040210000\n", "line 1: not `address type name`"),
        ("\x00\x01\x02", "line 1: not `address type name`"),
        ("", "holds no symbols"),
        ("                 U undefined\n", "holds no symbols"),
    ],
)
def test_no_symbol_map(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Symbols.read(path)


@pytest.mark.parametrize("name", ["none", "."])
def test_no_such_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Symbols.read(tmp_path / name)


def test_functions_of_calls(tmp_path: Path) -> None:
    """Without a map no function has a name, but a call of none says so in either case."""
    trace_path, map_path = tmp_path / "trace.bin", tmp_path / "map"
    trace_path.write_bytes(
        capture("""
            0 cpu0 CALL_START seq=1 func=0xffff82d040210004
            1 cpu0 CALL_START seq=2 func=0
            2 cpu0 FLUSH_START seq=1
            3 cpu0 CALL_DONE seq=9
        """)
    )
    map_path.write_text(MAP)
    with xtrace.open(trace_path, symbols=map_path) as trace:
        assert trace.table_episodes()["func_name"].to_pylist() == [
            "file.c#first+0x4",
            "(interrupt only)",
            None,
            None,
        ]
    with xtrace.open(trace_path) as trace:
        assert trace.table_episodes()["func_name"].to_pylist() == [None, "(interrupt only)", None, None]


@pytest.mark.parametrize("model", ["legacy", "lockless"])
def test_the_maps_name_every_function_of_their_traces(model: str) -> None:
    with xtrace.open(SAMPLES / f"bench-{model}.bin", symbols=SAMPLES / f"symbols-{model}.map") as trace:
        calls = trace.df_episodes().query("kind == 'call'")
    assert calls["func_name"].notna().all()
    assert not calls["func_name"].str.startswith("0x").any()
    assert not calls["func_name"].str.contains(r"\+0x").any(), "calls are of functions, not of places in them"

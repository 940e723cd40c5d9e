"""Numbers for people: times, sizes and counts."""

from __future__ import annotations

_STEPS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))


def time(ns: float | None) -> str:
    """`12.3 µs`; three significant digits, or all of a small number of ns."""
    if ns is None:
        return "–"
    for size, unit in _STEPS:
        if abs(ns) >= size:
            value = ns / size
            digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
            return f"{value:,.{digits}f} {unit}"
    return f"{ns:.0f} ns"


def size(count: float) -> str:
    """`15.6 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:,.1f} {unit}"


def count(value: float) -> str:
    """`1,234,567`."""
    return f"{value:,.0f}"


def percent(value: float | None) -> str:
    """`+12.3`, `−4.5`, `0.0`, `+1,234`; `–` for none."""
    if value is None:
        return "–"
    shown = f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")


def frequency(hz: int) -> str:
    """`2.5969 GHz`, `60.0 MHz`."""
    return f"{hz / 1e9:.4f} GHz" if hz >= 1e9 else f"{hz / 1e6:.2f} MHz"


def numbers(values: list[int]) -> str:
    """`0-3,8`."""
    spans: list[list[int]] = []
    for value in values:
        if spans and value == spans[-1][1] + 1:
            spans[-1][1] = value
        else:
            spans.append([value, value])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def printable(text: str) -> str:
    """Text from a file or a name, with control characters shown instead of obeyed."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)

"""HTML reports: their facts, their markup, and what a browser makes of them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from browser import chromium, shown
from conftest import SAMPLES, Sample
from matplotlib.figure import Figure
from playwright.sync_api import Browser

import xtrace
from xtrace.cli import run
from xtrace.reports import figures
from xtrace.reports.page import Cell, Head, Page, Picture, Section, Table, render
from xtrace.reports.svg import VARIABLES, inline, style
from xtrace.swimlanes import swimlanes, worst, worst_of

LEGACY, LOCKLESS = (str(SAMPLES / f"bench8-{model}.bin") for model in ("legacy", "lockless"))
BENCH = str(SAMPLES / "bench-lockless.bin")
MAPS = [str(SAMPLES / f"symbols-{model}.map") for model in ("legacy", "lockless")]
COMPARE = ["compare", LEGACY, LOCKLESS, "--symbols-before", MAPS[0], "--symbols-after", MAPS[1], "--cpu-hz", "60M"]

HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "\x1b[31mred",
    "gnp.\u202ecod\u2066",
    "a\nb\x00c",
    "$\\frac{1}{0}$",
)


class Markup(HTMLParser):
    """Elements, ids and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("aria-labelledby", "for") or (name.endswith("href") and (value or "").startswith("#")):
                self.references.append((value or "").removeprefix("#"))
            elif name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two kinds of page, of the deterministic pair."""
    folder = tmp_path_factory.mktemp("reports")
    paths = {"compare": folder / "compare.html", "analyze": folder / "analyze.html"}
    assert run([*COMPARE, "--html", str(paths["compare"])]) == 0
    assert run(["analyze", LOCKLESS, "--symbols", MAPS[1], "--cpu-hz", "60M", "--html", str(paths["analyze"])]) == 0
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


def small_page(text: str = "text") -> Page:
    table = Table(
        text,
        (Head("name", numeric=False, title=text), Head("figure")),
        tuple(
            (Cell(f"{text} {row}"), Cell(f"{row} µs", float(row * 37 % 11)) if row % 5 else Cell("–"))
            for row in range(12)
        ),
        text,
    )
    picture = Picture(text, text, inline(drawn("<&>"), "drawn", text))
    return Page(text, (text,), (text,), (text,), picture, (Section("one", text, (text,), (), (table,)),), "0")


def drawn(text: str) -> Figure:
    with style():
        figure = Figure(figsize=(3, 2))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], label=text)
        axes.set_title(text)
        axes.legend()
    return figure


@pytest.mark.parametrize("text", HOSTILE)
def test_strings_are_shown_and_not_obeyed(text: str) -> None:
    plain, hostile = Markup(render(small_page())), Markup(render(small_page(text)))
    assert hostile.tags == plain.tags
    visible = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    shown_text = "".join(hostile.texts)
    assert visible in shown_text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", shown_text)


def test_every_reference_has_one_target(reports: dict[str, Path]) -> None:
    for path in reports.values():
        page = Markup(path.read_text())
        assert [name for name, count in page.ids.items() if count > 1] == []
        assert set(page.references) <= set(page.ids)
        assert page.references


def test_nothing_is_fetched(reports: dict[str, Path]) -> None:
    for path in reports.values():
        text = path.read_text()
        assert set(Markup(text).links) == {"data:,"}
        assert "@import" not in text
        assert {url for url in re.findall(r"url\(([^)]*)\)", text) if not url.startswith("#")} == set()


def test_the_same_bytes_each_time(reports: dict[str, Path], tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    drawn("something else before")
    done = subprocess.run(
        [sys.executable, "-m", "xtrace", *COMPARE, "--html", str(again)], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert again.read_bytes() == reports["compare"].read_bytes()


def test_colours_are_those_of_the_page(reports: dict[str, Path]) -> None:
    text = reports["compare"].read_text()
    body = text[text.index("<body>") :]
    assert not re.findall(r"#[0-9a-f]{6}\b", "".join(re.findall(r'style="[^"]*"', body)))
    assert {name for name in VARIABLES.values() if f"var({name})" in body} > {"--before", "--after", "--good", "--bad"}


def test_pictures_have_names(reports: dict[str, Path]) -> None:
    for path in reports.values():
        pictures = re.findall(r"<svg [^>]*>.*?</title>", path.read_text(), re.DOTALL)
        assert len(pictures) >= 5
        assert all('role="img"' in one and re.search(r"<title [^>]*>\S", one) for one in pictures)


def test_the_comparison_opens_with_the_answer(reports: dict[str, Path]) -> None:
    text = " ".join(Markup(reports["compare"].read_text()).texts)
    opening = text[: text.index("Rows: CPUs in the mask")]
    assert "The lock wait of calls is gone" in opening
    assert "overlap in flight now (1,052 of 1,282; before, none did)" in opening
    assert "CPU 6 waits longest now" in opening
    for figure in ("−66.1 %", "−29.1 %", "−1.5 %"):
        assert figure in text


def test_origin_is_told(reports: dict[str, Path]) -> None:
    import hashlib

    text = "".join(Markup(reports["compare"].read_text()).texts)
    for path in (LEGACY, LOCKLESS, *MAPS):
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() in text
    assert "--cpu-hz" in text
    assert xtrace.__version__ in text


def test_hostile_names_of_files_and_functions(tmp_path: Path, browser: Browser) -> None:
    name = '"><img src=x onerror=alert(1)>\u202e\x1b[31m'
    trace, symbols, page = tmp_path / f"{name}.bin", tmp_path / "symbols.map", tmp_path / "page.html"
    shutil.copy(LOCKLESS, trace)
    symbols.write_text("ffff82d040200000 T <svg/onload=alert(2)>{{1+1}}$x$\n")
    for arguments in (["analyze", str(trace), "--symbols", str(symbols)], ["compare", LEGACY, str(trace)]):
        assert run([*arguments, "--cpu-hz", "60M", "--html", str(page), "--force"]) == 0
        with shown(browser, page) as one:
            assert one.messages == []
            assert one.locator("img").count() == 0
            assert one.locator("script").count() == 1
            assert "onerror=alert(1)" in one.locator("body").inner_text()
    with xtrace.open(trace, symbols=symbols, cpu_hz=60_000_000) as opened:
        assert opened.df_episodes()["func_name"].str.contains("onload").any()


@pytest.mark.parametrize("kind", ["compare", "analyze"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_load_quietly_and_fit(
    reports: dict[str, Path], browser: Browser, kind: str, width: int, dark: bool
) -> None:
    with shown(browser, reports[kind], width=width, dark=dark) as one:
        assert one.messages == []
        assert one.requests == [reports[kind].as_uri()]
        room = one.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert room[0] <= room[1] == width
        for selector in (".answer", ".trust", "td", "th button", "figcaption"):
            assert contrast(one, selector) >= 4.5, selector


def contrast(page: object, selector: str) -> float:
    """WCAG's contrast of a text with the page behind it."""
    ink, paper = page.evaluate(  # type: ignore[attr-defined]
        "s => [getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )

    def light(colour: str) -> float:
        parts = np.array([int(part) / 255 for part in re.findall(r"\d+", colour)[:3]])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((light(ink), light(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_light_and_dark_differ(reports: dict[str, Path], browser: Browser) -> None:
    papers = []
    for dark in (False, True):
        with shown(browser, reports["compare"], dark=dark) as one:
            papers.append(one.evaluate("getComputedStyle(document.body).backgroundColor"))
            line = "getComputedStyle(document.querySelector('figure svg text')).fill"
            papers.append(one.evaluate(line))
    assert len(set(papers)) == 4


def column(page: object, number: int) -> list[str]:
    cells = page.locator(f"#call-grid-1 tbody tr:visible > :nth-child({number})")  # type: ignore[attr-defined]
    return [text.strip() for text in cells.all_inner_texts()]


def test_tables_sort_by_value(reports: dict[str, Path], browser: Browser) -> None:
    with shown(browser, reports["compare"]) as one:
        head = one.locator("#call-grid-1 thead th").nth(4)
        before = column(one, 5)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        values = [float(text.replace("−", "-").replace("+", "")) for text in column(one, 5)]
        assert values == sorted(values)
        assert values[0] == -66.1
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert sorted(column(one, 5)) == sorted(before)
        assert column(one, 5)[-1] == "−66.1"
        # What is missing comes last either way.
        low = one.locator("#call-grid-1 thead th").nth(5)
        for _ in range(2):
            low.locator("button").click()
            assert column(one, 6)[-2:] == ["–", "–"]
        assert head.get_attribute("aria-sort") is None


def test_tables_sort_by_keyboard(reports: dict[str, Path], browser: Browser) -> None:
    with shown(browser, reports["compare"]) as one:
        one.locator("#call-grid-1 thead th button").first.focus()
        one.keyboard.press("Tab")
        one.keyboard.press("Enter")
        assert one.locator("#call-grid-1 thead th").nth(1).get_attribute("aria-sort") == "ascending"


def test_tables_filter(reports: dict[str, Path], browser: Browser) -> None:
    with shown(browser, reports["compare"]) as one:
        one.locator("#call-grid-1-filter").fill("TOO few")
        assert column(one, 8) == ["too few", "too few"]
        assert one.locator(".filter output").first.inner_text() == "2 of 12 rows"
        one.locator("#call-grid-1-filter").fill("nothing like this")
        assert column(one, 1) == []
        one.locator("#call-grid-1-filter").fill("")
        assert len(column(one, 1)) == 12


def test_all_is_there_without_scripts(reports: dict[str, Path], browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reports["compare"].as_uri())
    assert page.locator("#call-grid-1 tbody tr").count() == 12
    assert not page.locator(".filter").first.is_visible()
    context.close()


def test_on_paper_there_is_nothing_to_operate(reports: dict[str, Path], browser: Browser) -> None:
    with shown(browser, reports["compare"], dark=True) as one:
        one.emulate_media(media="print")
        assert not one.locator(".filter").first.is_visible()
        assert not one.locator("nav").is_visible()
        assert one.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_scripts_that_a_page_did_not_bring_do_not_run(tmp_path: Path, browser: Browser) -> None:
    """Even where escaping failed: the policy in the page allows its own script only."""
    path = tmp_path / "page.html"
    picture = Picture("x", "x", "<svg><script>alert(1)</script></svg><img src='http://[::1]:9/x.png' alt=''>")
    path.write_text(render(replace(small_page(), picture=picture)))
    with shown(browser, path) as one:
        assert not [message for message in one.messages if message.startswith("dialog")]
        assert len([message for message in one.messages if "Content Security Policy" in message]) == 2


def test_a_million_episodes_make_a_small_page(tmp_path: Path, browser: Browser) -> None:
    random = np.random.default_rng(1)
    count = 1_000_000
    start = np.sort(random.integers(0, 60_000_000_000, count))
    wait, flight = random.exponential(1e5, count).astype(np.int64), random.exponential(3e5, count).astype(np.int64)
    frame = pd.DataFrame(
        {
            "kind": "call",
            "initiator": random.integers(0, 64, count),
            "start_ns": start,
            "send_ns": start + wait,
            "done_ns": start + wait + flight,
            "lock_wait_ns": wait,
            "total_ns": wait + flight,
        }
    )
    sides = {"before": frame, "after": frame.assign(total_ns=frame["total_ns"] // 2)}
    made = (
        figures.ecdf(sides),
        figures.histogram(sides),
        figures.timeline(sides),
        figures.waits_by_cpu(sides),
        figures.phases(sides),
    )
    pictures = tuple(Picture(str(place), "", inline(one, f"f{place}", "x")) for place, one in enumerate(made))
    path = tmp_path / "page.html"
    path.write_text(render(replace(small_page(), sections=(Section("s", "s", (), pictures),))))
    assert path.stat().st_size < 1_000_000
    with shown(browser, path) as one:
        assert one.messages == []


def test_figures_take_what_a_trace_gives(sample: Sample) -> None:
    opened = [xtrace.open(sample(f"bench8-{model}"), cpu_hz=60_000_000) for model in ("legacy", "lockless")]
    tables = [(trace.df_episodes(), trace.df_deliveries()) for trace in opened]
    sides = {name: episodes for name, (episodes, _) in zip(("before", "after"), tables, strict=True)}
    for draw in (figures.ecdf, figures.histogram, figures.timeline, figures.waits_by_cpu, figures.phases):
        assert isinstance(draw(sides), Figure)
        assert isinstance(draw({"flushes": tables[0][0]}, "flush"), Figure)
    grid = figures.heat_map(tables[0], tables[1])
    cells = [text.get_text() for text in grid.axes[0].texts]
    assert "−66.1 %" in cells
    assert len(cells) == 12
    ecdf = figures.ecdf(sides).axes[0].lines
    assert [line.get_label() for line in ecdf] == ["before", "after"]
    assert float(np.max(ecdf[1].get_xdata())) == tables[1][0]["total_ns"].max()


def test_swimlanes_show_the_worst_and_who_was_in_its_way(sample: Sample) -> None:
    with xtrace.open(sample("bench8-lockless"), cpu_hz=60_000_000) as trace:
        episodes, deliveries = trace.df_episodes(), trace.df_deliveries()
    (number,) = worst(episodes, 1)
    assert episodes["total_ns"][number] == episodes["total_ns"].max()
    (lane,) = swimlanes(episodes, deliveries, [number])
    one = episodes.loc[number]
    assert (lane.initiator, lane.total_ns) == (one["initiator"], one["total_ns"])
    assert lane.cpus[0].cpu == one["initiator"]
    assert {cpu.cpu for cpu in lane.cpus[1:]} == set(one["targets"])
    assert {span.what for cpu in lane.cpus for span in cpu.spans} >= {"delivery", "execution", "other function"}
    mine = [span for span in lane.cpus[0].spans if span.what in ("lock wait", "sent", "completion")]
    assert sum(span.end_ns - span.begin_ns for span in mine) == one["total_ns"]
    # 12 ms of a call that takes half a millisecond: the CPU was kept from noticing.
    others = [span for span in lane.cpus[0].spans if span.what == "other function"]
    assert sum(span.end_ns - span.begin_ns for span in others) > 0.5 * one["total_ns"]


def test_swimlanes_mark_other_records(sample: Sample) -> None:
    with xtrace.open(sample("migrate-lockless")) as trace:
        lanes = worst_of(trace, xtrace.Selection(), 2)
        events = trace.df_events("TRC_HVM_VMEXIT*")
    assert [lane.kind for lane in lanes] == ["flush", "flush", "call", "call"]
    assert any(cpu.marks_ns for lane in lanes for cpu in lane.cpus)
    for lane in lanes:
        for cpu in lane.cpus:
            assert all(lane.from_ns <= mark <= lane.to_ns for mark in cpu.marks_ns)
            exits = events[(events["cpu"] == cpu.cpu) & events["ns"].between(lane.from_ns, lane.to_ns)]
            assert set(exits["ns"]) <= set(cpu.marks_ns) or len(cpu.marks_ns) > 50


def test_stock_traces_say_why_there_is_nothing(sample: Sample, tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "stock.html"
    assert run(["analyze", str(sample("dom0-stock")), "--html", str(path)]) == 0
    with shown(browser, path) as one:
        assert "No calls or flushes to show" in one.locator(".answer").inner_text()
        assert one.messages == []


def test_reports_replace_nothing_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    for arguments in (["analyze", LOCKLESS], COMPARE):
        assert run([*arguments, "--html", str(path)]) == 2
        assert "--force" in capsys.readouterr().err
        assert path.read_text() == "mine"
    assert run([*COMPARE, "--html", str(tmp_path / "no" / "report.html")]) == 2
    assert run([*COMPARE, "--html", str(tmp_path)]) == 2
    capsys.readouterr()
    assert run([*COMPARE, "--html", str(path), "--force", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["schema"] == "xtrace.comparison/1"
    assert said.err.splitlines() == [f"report: {path}"]
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("seed", [0, 5, 22])
def test_reports_of_damaged_traces(seed: int, tmp_path: Path) -> None:
    """Some of these leave complete flushes whose carrying call is damaged: how long they queued is not known."""
    data = bytearray((SAMPLES / "bench-lockless.bin").read_bytes())
    random = Random(seed)
    for _ in range(40):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    trace, page = tmp_path / "trace.bin", tmp_path / "page.html"
    trace.write_bytes(data)
    for arguments in (["analyze", str(trace)], ["compare", LEGACY, str(trace)], ["compare", str(trace), BENCH]):
        assert run([*arguments, "--html", str(page), "--force"]) == 0
    assert "is damaged:" in page.read_text()

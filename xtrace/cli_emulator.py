"""The commands of the emulator: `xtrace emulate …` and `xtrace whatif`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from xtrace.cli_common import ForceOption, HzOption, TableFormat, TraceArgument, opened, print_json, warn, work_progress
from xtrace.emulator.choices import IpiMode, Model, Policy, Records
from xtrace.errors import UsageError
from xtrace.parsers.vendor import Vendor

if TYPE_CHECKING:
    from xtrace.emulator.host import Host
    from xtrace.emulator.plan import Plan


class _OrFile(TyperGroup):
    """A first argument that is no command is a workload file."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["file", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_OrFile,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Emulate a host whose CPUs call and flush, and write its trace with the truth beside it.",
    epilog="A workload file combines workloads: xtrace emulate load.toml -o out.bin (docs/emulator.md).",
    context_settings={"help_option_names": ["-h", "--help"]},
)


ModelOption = Annotated[Model, typer.Option("--model", help="The design of calls and flushes.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of everything drawn: the same seed gives the same bytes.")]
VendorOption = Annotated[Vendor, typer.Option("--vendor", help="Whose CPUs: what guests' exits look like.")]
IpiOption = Annotated[IpiMode, typer.Option("--ipi", help="How IPIs to several CPUs are sent.")]
OutputOption = Annotated[
    str, typer.Option("-o", "--output", metavar="OUT.bin", help="The trace; OUT.*.parquet beside it are the truth.")
]
RecordsOption = Annotated[
    Records, typer.Option("--records", help="all; smp: only the tracepoints; stock: all but the tracepoints.")
]
SkewOption = Annotated[
    str | None,
    typer.Option("--skew", metavar="LIST", help="Clocks that are ahead or behind, by CPU: 1=5us,3=-800ns."),
]
RingOption = Annotated[int, typer.Option("--ring-pages", metavar="N", help="4 KiB pages in each CPU's trace buffer.")]


@app.command(epilog="Example: xtrace emulate bench --model legacy --cpus 8 --threads 4 --mask 4 -o legacy.bin")
def bench(
    output: OutputOption,
    model: ModelOption = "lockless",
    cpus: Annotated[int, typer.Option("--cpus", help="CPUs of the host.")] = 8,
    threads: Annotated[int, typer.Option("--threads", help="Callers.")] = 1,
    mask: Annotated[int, typer.Option("--mask", metavar="K", help="CPUs in each mask.")] = 1,
    policy: Annotated[Policy, typer.Option("--policy", help="How masks are drawn.")] = "random",
    with_self: Annotated[bool, typer.Option("--with-self", help="A mask may hold its caller.")] = False,
    calls: Annotated[int, typer.Option("--calls", help="Calls of each thread.")] = 100,
    work: Annotated[str, typer.Option("--work", metavar="TIME", help="How long the function runs.")] = "500us",
    think: Annotated[
        str, typer.Option("--think", metavar="TIME", help="Between a return and the next call.")
    ] = "200ns",
    like: Annotated[
        str | None, typer.Option("--like", metavar="TRACE", help="Take costs, function and pauses from this trace.")
    ] = None,
    cpu_hz: HzOption = None,
    vendor: VendorOption = "vmx",
    ipi: IpiOption = "cluster",
    seed: SeedOption = 1,
    records: RecordsOption = "all",
    skew: SkewOption = None,
    ring_pages: RingOption = 32,
    force: ForceOption = False,
) -> None:
    """The series' benchmark: threads that call a function with a delay, back to back.

    With --like, --work and --think are the trace's, and --cpu-hz is its frequency.
    """
    from xtrace.emulator.host import Host
    from xtrace.emulator.plan import Plan
    from xtrace.emulator.rings import Tool
    from xtrace.emulator.workloads.bench import Bench, Masks
    from xtrace.selection import parse_time

    host = Host(cpus, model=model, vendor=vendor, ipi_mode=ipi, seed=seed)
    load = Bench(work_ns=parse_time(work, "--work"), think_ns=parse_time(think, "--think"))
    if like is not None:
        from xtrace.emulator.estimate import bench_of, costs_of

        with opened(like, cpu_hz, None, once=False) as trace:
            episodes, deliveries = trace.df_episodes(), trace.df_deliveries()
            load = bench_of(episodes, deliveries)
            host = replace(host, hz=trace.clock.hz, costs=costs_of(episodes, deliveries))
    elif cpu_hz is not None:
        raise UsageError("--cpu-hz is the frequency of the trace that --like names")
    load = replace(load, threads=threads, masks=Masks(mask, policy, with_self=with_self), calls=calls)
    plan = Plan(_skewed(host, skew), bench=load, tool=Tool(ring_pages))
    _emulate(plan, output, records, force)


@app.command(epilog="Example: xtrace emulate evacuate --guests 10 --vendor svm --seconds 0.1 -o evacuate.bin")
def evacuate(
    output: OutputOption,
    model: ModelOption = "lockless",
    guests: Annotated[int, typer.Option("--guests", metavar="V", help="Guests being migrated.")] = 2,
    vcpus: Annotated[int, typer.Option("--vcpus", help="vCPUs of each.")] = 2,
    cpus: Annotated[
        int | None, typer.Option("--cpus", help="CPUs of the host; as many as guests and toolstack need.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How long.")] = 0.1,
    vendor: VendorOption = "svm",
    ipi: IpiOption = "cluster",
    seed: SeedOption = 1,
    records: RecordsOption = "all",
    skew: SkewOption = None,
    ring_pages: RingOption = 256,
    force: ForceOption = False,
) -> None:
    """Guests that are live-migrated while they write: faults of logged pages, and the toolstack's cleaning, flush."""
    from xtrace.emulator.host import Host
    from xtrace.emulator.plan import Plan
    from xtrace.emulator.rings import Tool
    from xtrace.emulator.workloads.evacuate import Evacuate

    load = Evacuate(guests, vcpus)
    host = _skewed(Host(cpus or load.cpus(), model=model, vendor=vendor, ipi_mode=ipi, seed=seed), skew)
    _emulate(Plan(host, evacuate=load, tool=Tool(ring_pages), seconds=seconds), output, records, force)


@app.command(epilog="Example: xtrace emulate idle --cpus 16 --seconds 3 -o idle.bin")
def idle(
    output: OutputOption,
    model: ModelOption = "lockless",
    cpus: Annotated[int, typer.Option("--cpus", help="CPUs of the host.")] = 8,
    seconds: Annotated[float, typer.Option("--seconds", help="How long.")] = 2.0,
    vendor: VendorOption = "vmx",
    seed: SeedOption = 1,
    records: RecordsOption = "all",
    skew: SkewOption = None,
    ring_pages: RingOption = 32,
    force: ForceOption = False,
) -> None:
    """A host that does little: time calibration each second, timer interrupts, guests that compute and rest."""
    from xtrace.emulator.host import Host
    from xtrace.emulator.plan import Plan
    from xtrace.emulator.rings import Tool

    host = _skewed(Host(cpus, model=model, vendor=vendor, seed=seed), skew)
    _emulate(Plan(host, tool=Tool(ring_pages), seconds=seconds), output, records, force)


@app.command(epilog="Example: xtrace emulate file load.toml --model fifo -o fifo.bin")
def file(
    path: Annotated[str, typer.Argument(metavar="FILE", help="A workload file (docs/emulator.md).")],
    output: OutputOption,
    model: Annotated[Model | None, typer.Option("--model", help="Instead of the file's.")] = None,
    cpus: Annotated[int | None, typer.Option("--cpus", help="Instead of the file's.")] = None,
    vendor: Annotated[Vendor | None, typer.Option("--vendor", help="Instead of the file's.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Instead of the file's.")] = None,
    records: RecordsOption = "all",
    force: ForceOption = False,
) -> None:
    """What a workload file says; `file` itself may be left out."""
    from xtrace.emulator.plan import read

    plan = read(path)
    given = {"model": model, "cpus": cpus, "vendor": vendor, "seed": seed}
    host = replace(plan.host, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    _emulate(replace(plan, host=host), output, records, force)


@app.command(epilog="Example: xtrace emulate table --before legacy --after fifo --runs 3")
def table(
    before: Annotated[Model, typer.Option("--before", help="The design to compare with.")] = "legacy",
    after: Annotated[Model, typer.Option("--after", help="The design that is compared.")] = "lockless",
    calls: Annotated[int, typer.Option("--calls", help="Calls of each thread in a cell.")] = 200,
    runs: Annotated[int, typer.Option("--runs", help="Emulations of a cell, with other seeds.")] = 5,
    seed: SeedOption = 1,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """The table of the series' cover letter, emulated: change of a call's time by threads and CPUs in the mask."""
    from xtrace.emulator import table as tables

    if runs < 1:
        raise UsageError(f"--runs {runs}: give 1 or more")
    with work_progress("emulating") as progress:
        found = tables.table(
            before,
            after,
            host=replace(tables.FITTED_HOST, seed=seed),
            calls=calls,
            runs=runs,
            progress=progress,
        )
    if format_ is TableFormat.json:
        print_json(tables.document(found))
        return
    from xtrace.reports import emulation, terminal

    emulation.published(terminal.console(), found)


def whatif(
    trace: TraceArgument,
    model: ModelOption = "lockless",
    against: Annotated[
        str | None, typer.Option("--against", metavar="TRACE", help="A real trace of that design, shown beside.")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", help="Replays, with other seeds.")] = 5,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="OUT.bin", help="Write the trace of a replay, and its truth."),
    ] = None,
    force: ForceOption = False,
    cpu_hz: HzOption = None,
    format_: Annotated[TableFormat, typer.Option("--format", help="How to print.")] = TableFormat.table,
) -> None:
    """What a trace's calls and flushes would have cost under another design: its demand, replayed in closed loop.

    --cpu-hz goes for both traces.
    """
    from contextlib import ExitStack

    from xtrace.emulator import whatif as replays
    from xtrace.reports import emulation, terminal

    if runs < 1:
        raise UsageError(f"--runs {runs}: give 1 or more")
    if output is not None:
        _check(output, force)
    with ExitStack() as stack:
        source = stack.enter_context(opened(trace, cpu_hz, None, once=False))
        other = None if against is None else stack.enter_context(opened(against, cpu_hz, None, once=False))
        with work_progress("replaying") as progress:
            found = replays.predict(source, model, runs=runs, against=other, progress=progress)
        if format_ is TableFormat.json:
            print_json(replays.document(found, trace, against))
        else:
            emulation.prediction(terminal.console(), found, trace, against)
        warn(source)
        if other is not None:
            warn(other)
        if output is not None:
            from xtrace.emulator.output import write
            from xtrace.emulator.rings import Tool

            emulated = replays.emulated(source, model)
            written = write(emulated, output, Tool(REPLAY_RING_PAGES), "all")
            if format_ is TableFormat.table:
                emulation.emulation(terminal.console(), emulated, written)


REPLAY_RING_PAGES = 1024


def _check(output: str, force: bool) -> None:
    from xtrace.emulator.output import paths
    from xtrace.output import check

    check(*paths(output), force=force)


def _skewed(host: Host, skew: str | None) -> Host:
    """The host with the clocks that the option --skew gives it. Raises UsageError."""
    from xtrace.emulator.machine import NS_PER_S
    from xtrace.selection import parse_time

    offsets = {}
    for part in filter(None, (skew or "").split(",")):
        cpu, _, by = part.strip().partition("=")
        if not cpu.isdecimal() or int(cpu) >= host.cpus:
            raise UsageError(f"--skew {part}: give one of the {host.cpus} CPUs and a time, such as 1=5us")
        sign = -1 if by.startswith("-") else 1
        offsets[int(cpu)] = sign * parse_time(by.removeprefix("-"), "--skew") * host.hz // NS_PER_S
    return replace(host, tsc_offsets=offsets) if offsets else host


def _emulate(plan: Plan, output: str, records: Records, force: bool) -> None:
    _check(output, force)
    from xtrace.emulator.output import write
    from xtrace.reports import emulation, terminal

    with work_progress("emulating") as progress:
        emulated = plan.run(progress)
    written = write(emulated, output, plan.tool, records)
    emulation.emulation(terminal.console(), emulated, written)

"""The figures of a run, printed for a person on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from apart import Job
from fleets import COST_LIMIT, FleetCost
from growth import Stage
from peer import MEANINGS
from scans import GAP_LIMIT
from targets import MEMORY_LIMIT
from turns import FLOOR, OURS, PEER, Figures, Outcome, Spread

__all__ = [
    "print_fleets",
    "print_machine",
    "print_outcomes",
    "print_scan",
    "print_scans_head",
    "print_stage",
    "print_stages_head",
    "print_targets",
    "print_title",
    "print_variants",
]

_NAME: Final = 27
_DETAILS: Final = (
    ("p50, ms", "p50", 1e-3, 3),
    ("p99, ms", "p99", 1e-3, 3),
    ("took, s", "took", 1, 3),
    ("peak memory, MB", "peak_mb", 1, 0),
)


def print_machine(described: dict[str, Any]) -> None:
    """Print the machine, and a warning if it is busy."""
    parts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in described.items())
    print(parts, flush=True)
    if described["load_before"] > described["cpus"] / 2:
        print("the machine is busy with something else: these figures will be rough", flush=True)


def print_title(database: str, title: str) -> None:
    """Print the title of the next lines."""
    print(f"\n{database}: {title}", flush=True)


def print_outcomes(outcomes: Iterable[Outcome]) -> None:
    """Print each scenario: its rates, then its latencies, its memory and the peer's variants."""
    head = f"  {'a second':<{_NAME}}{'ours':>10}{'floor':>10}{'peer':>10}"
    print(f"{head}   {'ours:floor (min to max)':<26}ours:peer (min to max)")
    for outcome in outcomes:
        _print_scenario(outcome)


def _print_scenario(outcome: Outcome) -> None:
    three = [outcome.figures.get(name) for name in (OURS, FLOOR, PEER)]
    rates = [f"{each.rate.median:,.0f}" if each else "" for each in three]
    ratios = [_ratio(outcome.ratios.get(name)) for name in (FLOOR, PEER)]
    _print_line(outcome.name, rates, ratios)
    for label, cells in _details(three):
        _print_line(f"  {label}", cells, ["", ""])
    for name, figures in outcome.figures.items():
        rate = f"{figures.rate.median:,.0f}"
        if name.startswith(f"{OURS}: "):
            _print_line(f"  {name}", [rate, "", ""], ["", ""])
        elif name.startswith(f"{PEER}: "):
            _print_line(f"  {name}", ["", "", rate], ["", _ratio(outcome.ratios[name])])


def _print_line(name: str, cells: Sequence[str], ratios: Sequence[str]) -> None:
    columns = "".join(f"{cell:>10}" for cell in cells)
    print(f"  {name:<{_NAME}}{columns}   {ratios[0]:<26}{ratios[1]}".rstrip(), flush=True)


def _details(three: Sequence[Figures | None]) -> Iterable[tuple[str, list[str]]]:
    """Leaves out each line for which none of the three has a figure."""
    for label, name, unit, digits in _DETAILS:
        figures = [getattr(each, name, None) for each in three]
        if any(figures):
            yield label, [f"{each / unit:,.{digits}f}" if each else "" for each in figures]


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{_short(spread.median)} ({_short(spread.low)} to {_short(spread.high)})"


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def print_variants(records: Sequence[dict[str, Any]]) -> None:
    """Print the meaning of each variant of the peer that was measured."""
    measured = {name for record in records for name in record["figures"]}
    lines = [f"{name}: {meaning}" for name, meaning in MEANINGS.items() if name in measured]
    if lines:
        print("", *lines, sep="\n")


def print_targets(records: Sequence[dict[str, Any]]) -> None:
    """Print every target of the run, met or missed."""
    judged = [(record, target) for record in records for target in record["targets"]]
    if not judged:
        return
    met = sum(target["met"] for _, target in judged)
    print(f"\ntargets: {met} of {len(judged)} met")
    for record, target in judged:
        word = "met" if target["met"] else "MISSED"
        print(f"  {word:<8}{record['database']:<12}{record['name']:<{_NAME}}{target['text']}")


def print_scans_head() -> None:
    """Print the heads of the columns of the long jobs."""
    print(f"  {'':<{_NAME}}{'a second':>10}{'peak, MB':>10}   event loop's gaps, ms")


def print_scan(runs: Sequence[Job]) -> None:
    """Print one long job: the gaps of its first run, and the highest memory of all its runs."""
    job, peak = runs[0], max(run.peak_mb for run in runs)
    longest, own = job.gap_max_ms or 0.0, job.own_max_ms or 0.0
    over = [f"over {MEMORY_LIMIT} MB"] if peak >= MEMORY_LIMIT else []
    if job.name == "verify full" and longest > GAP_LIMIT:
        # If the machine is busy, only our own part of the gap tells.
        over.append(f"over {GAP_LIMIT} ms" + ("" if own > GAP_LIMIT else ", the machine's doing"))
    rate = f"{job.done / job.seconds:,.0f}" if job.done else ""
    gaps = f"p99 {job.gap_p99_ms:.1f}, longest {longest:.1f}, our own work {own:.1f}"
    text = "; ".join((gaps, *over))
    print(f"  {job.name:<{_NAME}}{rate:>10}{peak:>10.0f}   {text}", flush=True)


_STAGE: Final = ("append", "get", "get old", "list 100", "audit")


def print_stages_head() -> None:
    """Print the heads of the columns of a ledger's growth."""
    columns = "".join(f"{name:>10}" for name in (*_STAGE, "boot", "boot all", "bytes"))
    print(f"  {'events':<{_NAME}}{columns}   in ms; bytes an event")


def print_stage(stage: Stage) -> None:
    """Print the figures of a ledger at one length."""
    boots = stage.boot_ms
    times = (
        stage.append_ms, stage.get_ms, stage.get_old_ms, stage.list_ms, stage.audit_ms,
        boots["incremental"], boots["latest"],
    )  # fmt: skip
    columns = "".join(f"{taken:>10,.2f}" for taken in times)
    print(f"  {stage.events:<{_NAME},}{columns}{stage.bytes_an_event:>10,.0f}", flush=True)


def print_fleets(costs: Sequence[FleetCost]) -> None:
    """Print the cost of a fleet for its writers."""
    print(f"  {'':<{_NAME}}{'alone/s':>10}{'beside/s':>10}{'cost':>10}   min to max of the cost")
    for fleet in costs:
        cost = fleet.cost
        over = f"; over {COST_LIMIT:.0%}" if cost.median > COST_LIMIT else ""
        print(
            f"  {fleet.name:<{_NAME}}{fleet.alone.median:>10,.0f}{fleet.beside.median:>10,.0f}"
            f"{cost.median:>10.2%}   {cost.low:.2%} to {cost.high:.2%} (all at the default"
            f" interval); a beat took {fleet.late * 1e3:.0f} ms at its p95"
            f" ({fleet.own * 1e3:.1f} of the node's own processor), {fleet.failed} failed"
            f"{over}",
            flush=True,
        )

"""The page of results: tables in Markdown, plots in SVG. Pure but for writing the files.

Owns: how results look. Must not know: how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.plots import bars, lines
from benchmarks.results import RATIOS, Results, Samples, spread

__all__ = ["ratios_table", "scale_page", "write"]

_INTRODUCTION = (
    "Written by `make bench`. Medians of the rounds, least and most in brackets; contenders took turns in one run, "
    "and only ratios of one run mean anything on another machine. Every round was read back: complete, unaltered, "
    "each tenant's events in order."
)
_RELAYS = (
    "Flights, 283 bytes of JSON, 6 partitions, `content-type` and ten CloudEvents headers, acks=all, lz4, idempotent. "
    "CPU is user and system of the whole process tree, without start-up."
)
_EMITS = (
    "64 callers, each waits for its event to be durable. `stage()` is given a payload, checks it against the catalog "
    "and frames it; the others are given finished records."
)
_LATENCY = (
    "From the call of `stage()` to a reader of the target. The load is of batches made beforehand, which takes less "
    "than a tenth of a core. The worker's maximum is what it reached with a backlog and the machine for itself: of the "
    "same round for the lines `half`, else the median of the rounds."
)
_SCALE = (
    "Written by `make bench-scale`. CPU µs per event of one worker, the least of the rounds, of the backlog "
    "the median; the ratio is that of the last line to the first."
)
_PERCENTILES = ("p50", "p90", "p99", "p99.9")


def write(results: Results, folder: Path) -> None:
    """`RESULTS.md` and the plots it shows."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    relays = list(results.relays.values())
    (plots / "cpu.svg").write_text(
        bars("CPU µs per event, log scale", [(one.title, spread(one.cpu_us)) for one in relays])
    )
    (plots / "rate.svg").write_text(
        bars("events/s, one process, log scale", [(one.title, spread(one.per_s)) for one in relays])
    )
    series = {
        name: [(one["reached_per_s"], one[f"{name}_ms"]) for one in results.latency] for name in _PERCENTILES
    }
    if results.latency:
        (plots / "latency.svg").write_text(lines("stage() to target, ms", "offered events/s", series))
    (folder / "RESULTS.md").write_text(_page(results))


def ratios_table(results: Results) -> str:
    """The ratios, with what they must and should reach."""
    rows = ["| | this run | bar | goal |", "|---|---|---|---|"]
    found = results.ratios()
    for ratio in RATIOS:
        sign = "≤" if ratio.better == "less" else "≥"
        bar = "report" if ratio.bar is None else f"{sign} {ratio.bar:g}"
        goal = "" if ratio.goal is None else f"{sign} {ratio.goal:g}"
        value = f"**{found[ratio.name]:.2f}**" if ratio.name in found else "absent"
        rows.append(f"| {ratio.name} | {value} | {bar} | {goal} |")
    return "\n".join(rows)


def _page(results: Results) -> str:
    absent = [f"- {name}: {reason}" for name, reason in results.absent.items()]
    return (
        "\n\n".join(
            part
            for part in (
                "# What it costs",
                _INTRODUCTION,
                "\n".join(f"- {name}: {value}" for name, value in results.machine.items()),
                ratios_table(results),
                "## From staging to targets",
                _RELAYS,
                _table(results.relays),
                "![CPU per event](plots/cpu.svg)\n\n![events per second](plots/rate.svg)",
                "## From a service to staging",
                _EMITS,
                _table(results.emits),
                _table(results.outboxes),
                _lone(results),
                "## Latency over offered load" if results.latency else "",
                _LATENCY if results.latency else "",
                "![latency](plots/latency.svg)" if results.latency else "",
                _latency(results),
                "## Absent on this machine" if absent else "",
                "\n".join(absent),
            )
            if part
        )
        + "\n"
    )


def _table(samples: dict[str, Samples]) -> str:
    rows = ["| | events | CPU µs/event | thousand events/s |", "|---|---|---|---|"]
    for one in samples.values():
        cpu, rate = spread(one.cpu_us), spread([value / 1_000 for value in one.per_s])
        rows.append(
            f"| {one.title} | {one.events:,} | {cpu.median:.1f} ({cpu.least:.1f}–{cpu.most:.1f}) "
            f"| {rate.median:.1f} ({rate.least:.1f}–{rate.most:.1f}) |"
        )
    return "\n".join(rows)


def _lone(results: Results) -> str:
    rows = ["| one call at a time | p50 µs | p99 µs |", "|---|---|---|"]
    for way, taken in results.lone.items():
        cells = [f"{s.median:.0f} ({s.least:.0f}–{s.most:.0f})" for s in map(spread, taken.values())]
        rows.append(f"| `{way}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def _latency(results: Results) -> str:
    if not results.latency:
        return ""
    names = [f"{p} ms" for p in _PERCENTILES]
    rows = [
        f"| | offered events/s | reached | probes | {' | '.join(names)} | p99 of `stage()` ms | idle cores |",
        "|---" * (6 + len(names)) + "|",
    ]
    half = results.half_load
    for title, loads in (
        ("half, worker", half["worker"]),
        ("half, floor", half["floor"]),
        ("worker", results.latency),
    ):
        for one in loads:
            cells = " | ".join(f"{one[f'{p}_ms']:.1f}" for p in (*_PERCENTILES, "staged_p99"))
            rows.append(
                f"| {title} | {one['offered_per_s']:,.0f} | {one['reached_per_s']:,.0f} | {one['probes']:.0f} "
                f"| {cells} | {one['idle_cores']:.2f} |"
            )
    return "\n".join(rows)


def scale_page(machine: Mapping[str, str], found: Mapping[str, Any]) -> str:
    """The growth curves as a page."""
    parts = [
        "# How the cost of an event grows",
        _SCALE,
        "\n".join(f"- {name}: {value}" for name, value in machine.items()),
    ]
    fields = ("events", "definitions", "topics", "tenants", "partitions", "payload", "workers")
    for curve in found["curves"]:
        limit = "reported" if curve["limit"] is None else f"at most {curve['limit']}"
        rows = [f"| {' | '.join(fields)} | CPU µs/event | thousand events/s | resident MB |"]
        rows.append("|---" * (len(fields) + 3) + "|")
        for point in curve["points"]:
            cells = " | ".join(f"{point[name]:,}" for name in fields)
            rows.append(
                f"| {cells} | {point['cpu_us']:.1f} | {point['per_s'] / 1_000:.1f} | {point['rss_mb']:.0f} |"
            )
        parts += [f"## {curve['name']}: {curve['ratio']:.2f} ({limit})", "\n".join(rows)]
        if curve["name"] == "payload bytes":
            parts.append(_line_of(curve["points"]))
    idle = found["idle"]
    parts += [
        "## Idle",
        f"A worker uses {idle['worker']:.2%} of a core, a service's stager {idle['stager']:.2%}.",
    ]
    return "\n\n".join(parts) + "\n"


def _line_of(points: list[dict[str, float]]) -> str:
    """cost = a + b · bytes, from the smallest and the largest payload."""
    least, most = points[0], points[-1]
    slope = (most["cpu_us"] - least["cpu_us"]) / (most["payload"] - least["payload"])
    start = least["cpu_us"] - slope * least["payload"]
    return f"Cost of an event: {start:.1f} µs + {slope * 1_000:.2f} ns a byte."

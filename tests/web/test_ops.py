"""The dashboard and the alert rules name what is really exported (O4)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.metrics import ALL, STAGE_FAILED, WEB_REFUSED, Metric

OPS = Path(__file__).resolve().parents[2] / "ops"
KNOWN = {metric.name: metric for metric in ALL}
FROM_PROMETHEUS = {"instance", "job", "le"}


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression, and where it stands."""
    for panel in json.loads((OPS / "grafana.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    yield from re.findall(r"- alert: (\w+)\n\s+expr: (.+)\n", (OPS / "alerts.yml").read_text())


def metrics_of(expression: str) -> list[Metric]:
    """The metrics an expression names. Fails for one that is not exported."""
    names = re.findall(r"stagepost_\w+", expression)
    assert names, expression
    return [KNOWN[re.sub(r"_(bucket|count|sum)$", "", name)] for name in names]


def test_dashboard_and_alerts_name_what_is_exported() -> None:
    """O4: each expression names metrics of the one list, and groups by labels that they have."""
    found = list(expressions())
    assert len({where for where, _ in found}) >= 25
    for where, expression in found:
        labels = {label for metric in metrics_of(expression) for label in metric.labels} | FROM_PROMETHEUS
        grouped = {
            name.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for name in group.split(",")
        }
        matched = set(re.findall(r"[{,](\w+)=", expression))
        assert grouped | matched <= labels, where


def test_every_metric_is_on_the_dashboard() -> None:
    """O4: nothing is exported that nobody would look at."""
    panels = json.loads((OPS / "grafana.json").read_text())["panels"]
    shown = {m for panel in panels for target in panel["targets"] for m in metrics_of(target["expr"])}
    assert shown == set(ALL)


def test_alerts_see_the_first_time() -> None:
    """O4: a counter that appears with what it counted first has not increased: alerts on an increase are on counters
    that are exported from zero on, or ask for new ones too."""
    increases = [
        (where, name, expression)
        for where, expression in re.findall(
            r"- alert: (\w+)\n\s+expr: (.+)\n", (OPS / "alerts.yml").read_text()
        )
        for name in re.findall(r"increase\((\w+)", expression)
    ]
    assert len(increases) == 3
    for where, name, expression in increases:
        if name not in {STAGE_FAILED.name, WEB_REFUSED.name}:  # which are tested to begin at zero
            assert f"or ({name} unless {name} offset 5m)" in expression, where


def test_texts_of_alerts_name_labels_that_the_alert_has() -> None:
    """O4: what an alert tells a person is filled in: its labels survive the expression's grouping."""
    text = (OPS / "alerts.yml").read_text()
    for rule in text.split("- alert: ")[1:]:
        expression = re.search(r"expr: (.+)\n", rule)
        assert expression is not None
        kept = {n.strip() for group in re.findall(r"by \(([^)]*)\)", expression[1]) for n in group.split(",")}
        if " by (" not in expression[1] and "sum(" not in expression[1] and "absent" not in expression[1]:
            kept |= FROM_PROMETHEUS
        assert set(re.findall(r"\$labels\.(\w+)", rule)) <= kept, rule.split("\n")[0]

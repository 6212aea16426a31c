"""The overview's charts: throughput, latency, lag, backlog (O1)."""

from __future__ import annotations

from pipeline.metrics import DELIVERED, PARKED, Metrics
from pipeline.web.charts import HEIGHT, WIDTH, charts
from pipeline.web.history import History


def test_the_backlog_is_drawn_as_it_stands() -> None:
    """O1: beside what is parked a second there is how much is parked now: it stays high while nothing is added."""
    metrics = Metrics()
    history = History(metrics)
    for second, (lag, parked) in enumerate([(0, 0), (40, 300), (None, 300), (10, 300), (0, 0)]):
        metrics.add(DELIVERED, 20, "t")
        metrics.add(PARKED, 300 if second == 1 else 0, "t")
        history.sample(2.0 * second, 1_000.0 + 2 * second, lag=lag, waiting=0, parked=parked)
    found = {chart.title: chart for chart in charts(history.points)}
    assert found["Delivered a second"].lines[0].now == 10
    assert (found["Parked"].top, found["Parked"].lines[0].now) == (300, 0)
    (line,) = found["Parked"].lines[0].segments
    heights = [float(point.split(",")[1]) for point in line.split()]
    assert heights[0] == heights[1] == heights[2] < heights[3] == HEIGHT - 1
    assert line.split()[-1].startswith(f"{WIDTH:.1f},")
    assert found["Parked and dead a second"].lines[0].now == 0
    assert len(found["Not yet committed"].lines[0].segments) == 2

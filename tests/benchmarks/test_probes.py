"""What a benchmark makes of probes that ran beside this and that: each in its window, none left out, honest ratios."""

from __future__ import annotations

import pytest

from benchmarks.probes import ProbeLost, Window, in_windows, percentile, ratio, ratio_within

WINDOWS = (Window("alone", 10.0, 12.0), Window("beside", 13.0, 14.0))


def lines(*staged: float, took: float = 0.002) -> list[str]:
    """What probes print that were staged at these times."""
    return [f"{number} {at} {took}" for number, at in enumerate(staged)]


def test_a_probe_counts_where_it_was_staged() -> None:
    """A window has the probes staged in it, in milliseconds, whenever they arrived; what lies between has none."""
    told = ["0 9.9 0.5", "2 11.5 1.9", "1 10.0 0.001", "3 12.5 0.3", "4 13.0 0.004", "5 14.0 0.9"]
    assert [sorted(taken) for taken in in_windows(told, WINDOWS)] == [[1.0, 1_900.0], [4.0]]


def test_the_first_copy_counts() -> None:
    """At least once: a copy that comes later says nothing of how long its event took."""
    told = [*lines(10.5, 13.5, 14.5), "0 10.5 7.0"]
    assert in_windows(told, WINDOWS) == [[2.0], [2.0]]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_probe_is_no_fast_one(lost: int) -> None:
    """A probe that did not arrive would be the slowest of all: without it nothing is said."""
    told = lines(10.5, 11.9, 13.9, 14.5)
    del told[lost]
    with pytest.raises(ProbeLost):
        in_windows(told, WINDOWS)


def test_the_last_window_is_not_judged_too_early() -> None:
    """While nothing has arrived that was staged behind it, its slowest may still be under way."""
    with pytest.raises(ProbeLost):
        in_windows(lines(10.5, 13.5), WINDOWS)


def test_the_p99_is_that_of_all_rounds_together() -> None:
    """One bad round of ten counts for what it is: a tenth of all that was measured."""
    base = [[1.0] * 100 for _ in range(10)]
    ours = [*base[:9], [*[1.0] * 80, *[3.0] * 20]]
    assert percentile(ours, 0.99) == 3.0
    assert ratio(ours, base) == 3.0
    assert ratio([*base[:9], [*[1.0] * 95, *[3.0] * 5]], base) == 1.0


def test_how_much_is_left_to_chance() -> None:
    """Equal rounds leave nothing open; where one round makes the figure, the draws without it say so."""
    base = [[1.0] * 100 for _ in range(10)]
    assert ratio_within(base, base) == (1.0, 1.0)
    assert ratio_within([*base[:9], [3.0] * 100], base) == (1.0, 3.0)

"""What `make bench-check` takes for a ratio that has become worse, and how it bears with noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import check
from benchmarks.results import RATIOS, Results, Samples

LESS = next(ratio.name for ratio in RATIOS if ratio.better == "less")
MORE = next(ratio.name for ratio in RATIOS if ratio.better == "more")


@pytest.fixture(autouse=True)
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline of two ratios."""
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({LESS: 2.0, MORE: 10.0}))
    monkeypatch.setattr(check, "BASELINE", path)


@pytest.mark.parametrize(
    ("found", "bad"),
    [
        ({LESS: 2.0, MORE: 10.0}, []),
        ({LESS: 2.49, MORE: 8.1}, []),
        ({LESS: 2.51, MORE: 10.0}, [LESS]),
        ({LESS: 1.0, MORE: 7.9}, [MORE]),
        ({LESS: 1.0}, [MORE]),
    ],
)
def test_a_quarter_worse_is_too_much(found: Mapping[str, float], bad: list[str]) -> None:
    """Worse by more than a quarter fails, whichever way is better, and so does a ratio that is missing."""
    assert check.worse(found, {LESS: 2.0, MORE: 10.0}) == bad


def test_noise_gets_a_second_try() -> None:
    """A ratio that is fine when measured once more was noise; the others keep their first figure."""
    tries = iter([{LESS: 9.0, MORE: 10.0}, {LESS: 2.0, MORE: 1.0}])
    assert check.check(lambda: next(tries)) == 0


def test_twice_worse_fails() -> None:
    """What is worse both times is worse."""
    tries = iter([{LESS: 9.0, MORE: 10.0}, {LESS: 9.0, MORE: 10.0}])
    assert check.check(lambda: next(tries)) == 1


def test_the_committed_baseline_names_known_ratios() -> None:
    """A renamed ratio would be missing for ever."""
    committed = json.loads(Path(check.__file__).with_name("baseline.json").read_text())
    assert committed
    assert set(committed) <= {ratio.name for ratio in RATIOS}


def test_an_absent_contender_has_no_ratio() -> None:
    """What could not be measured is reported absent, never estimated."""
    results = Results(
        relays={
            "worker": Samples("worker", 10, [9.0, 10.0, 30.0], [1.0, 2.0, 3.0]),
            "floor": Samples("floor", 10, [5.0, 5.0, 5.0], [1.0, 1.0, 1.0]),
        }
    )
    assert results.ratios() == {"worker CPU/event ÷ floor": 2.0}

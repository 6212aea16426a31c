"""The pytest plugin in a run of its own: the fixture `staged`, its catalog, what it leaves behind (S8)."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest_plugins = ["pytester"]

TESTS = """
    import threading
    import pytest
    from pipeline import stage, stage_blocking
    from pipeline.client.default import _defaults
    from pipeline.errors import PayloadRefused

    async def test_staging(staged):
        await stage("weather.observed", WEATHER)
        thread = threading.Thread(target=stage_blocking, args=("weather.observed", WEATHER))
        thread.start()
        thread.join()
        staged.assert_staged_count("weather.observed", 2)
        with pytest.raises(PayloadRefused):
            await stage("weather.observed", {})

    def test_each_test_has_its_own(staged):
        staged.assert_nothing_staged()

    def test_nothing_stays():
        assert _defaults.chosen is None

    def test_failing(staged):
        stage_blocking("weather.observed", WEATHER)
        staged.assert_staged("weather.observed", tenant="t")

    WEATHER = {
        "station": "EWR", "observed_at": "2013-01-01T06:00:00Z", "temperature_f": 39.02, "dew_point_f": 26.06,
        "humidity_pct": 59.37, "wind_direction_deg": 270, "wind_speed_mph": 10.357, "wind_gust_mph": None,
        "precipitation_in": 0.0, "pressure_mbar": 1012.0, "visibility_mi": 10.0,
    }
"""


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(pytester: pytest.Pytester, *arguments: str, ini: str = "") -> pytest.RunResult:
    """Run the tests above in a process of their own, with the plugin by name, whether or not it is installed."""
    pytester.makeini(f"[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n{ini}")
    pytester.makepyfile(TESTS)
    return pytester.runpytest_subprocess("-p", "no:stagepost", "-p", "pipeline.testing.plugin", *arguments)


@pytest.mark.parametrize("way", ["option", "ini", "variable"])
def test_the_fixture(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """`staged` takes all staging of a test, and only of that; its catalog is named in one of three ways (S8)."""
    name = "catalog.examples.flights"
    if way == "variable":
        monkeypatch.setenv("STREAMING_CATALOG", name)
    arguments = [f"--stagepost-catalog={name}"] if way == "option" else []
    result = run(pytester, *arguments, ini=f"stagepost_catalog = {name}" if way == "ini" else "")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: no event 'weather.observed' with {'tenant': 't'} was staged; 1 event was staged:",
            "*its tenant is None, not 't'",
        ]
    )


def test_without_a_catalog(pytester: pytest.Pytester) -> None:
    """Where nobody names a catalog, the fixture says how to (S8)."""
    result = run(pytester)
    result.assert_outcomes(passed=1, errors=3)
    result.stdout.fnmatch_lines(["*needs a catalog: give --stagepost-catalog, the pytest setting*"])


def test_settings_of_the_run_hold(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the environment hold in the fixture, and wrong ones are named (S8, E)."""
    monkeypatch.setenv("STREAMING_CATALOG", "catalog.examples.flights")
    monkeypatch.setenv("STREAMING_MAX_PAYLOAD_BYTES", "10")
    monkeypatch.setenv("STREAMING_BROKERS", "")
    result = run(pytester)
    result.stdout.fnmatch_lines(["*RecordTooLarge: the payload has * bytes, the cap is 10 *"])

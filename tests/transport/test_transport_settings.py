"""The Faust app's own configuration: what a shell can and cannot change, and what is switched off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faust.types.settings.settings import Settings as FaustSettings
from mode import CrashingSupervisor

from pipeline.settings import Settings
from pipeline.transport.app import make_app

PARAMS = {
    name: param
    for name, param in FaustSettings.SETTINGS.items()
    if not param.version_deprecated and name != "reply_to"
}
VARIABLES = {param.env_name for param in PARAMS.values() if param.env_name}


def settings() -> Settings:
    """Settings that differ from Faust's defaults where it matters."""
    return Settings(
        brokers=("127.0.0.1:19092",),
        catalog="catalog.examples.flights",
        cloudevents_source="/tests/transport",
        namespace="envtest",
        web_port=16_066,
    )


def shown(value: object) -> str:
    """A setting's value, for comparing: functions and classes by name."""
    return getattr(value, "__qualname__", None) or str(value)


def configuration() -> dict[str, str]:
    """Every setting of Faust as the app has it."""
    conf = make_app(settings()).conf
    return {name: shown(getattr(conf, name)) for name in PARAMS}


def test_the_shell_does_not_change_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """N2: `APP_VERSION`, `WEB_PORT` and all the other unprefixed variables that Faust prefers to the arguments of an
    app are without effect: also values that would stop the start."""
    before = configuration()
    named = {"APP_VERSION", "WEB_PORT", "BROKER_URL", "PROCESSING_GUARANTEE", "STREAM_WAIT_EMPTY"}
    assert named <= VARIABLES
    for name in VARIABLES:
        monkeypatch.setenv(name, "1.4.2-nonsense")
    assert configuration() == before


@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("the tables' pages are off", lambda conf: conf.web_tables_enabled is False),
        ("the router's pages are off", lambda conf: conf.web_router_enabled is False),
        ("pages are on loopback", lambda conf: conf.web_bind == "127.0.0.1"),
        ("an agent that breaks ends the worker", lambda conf: conf.agent_supervisor is CrashingSupervisor),
        (
            "no transactions, which miss foreign topics",
            lambda conf: conf.processing_guarantee.value == "at_least_once",
        ),
        ("nothing is skipped for a lost offset", lambda conf: conf.consumer_auto_offset_reset == "earliest"),
        ("agents are registered by name", lambda conf: conf.autodiscover is False),
        ("no send of Faust's waits 20 minutes", lambda conf: conf.producer_request_timeout <= 30),
        ("draining fits into a rebalance", lambda conf: conf.broker_rebalance_timeout > 10 + 3 * 5),
    ],
)
def test_faust_is_kept_from_doing_harm(what: str, holds: Callable[[FaustSettings], bool]) -> None:
    """T5, T6, O3: the settings of Faust that this design depends on."""
    assert holds(make_app(settings()).conf), what

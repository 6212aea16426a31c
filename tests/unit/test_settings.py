"""The settings: read once, validated together, each wrong one named (E)."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr

from pipeline.errors import SettingsError
from pipeline.settings import PREFIX, Settings, reference

ROOT = Path(__file__).resolve().parents[2]
LEAST = {
    "STREAMING_BROKERS": "kafka:9092",
    "STREAMING_CATALOG": "shop.events",
    "STREAMING_CLOUDEVENTS_SOURCE": "//shop",
}


class Case(NamedTuple):
    """A variable, a value other than its default, what it becomes, values that are refused, and fields that must be
    set beside it."""

    field: str
    text: str
    value: object
    wrong: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


CERT = base64.b64encode(b"-----BEGIN CERTIFICATE-----").decode()
KEY = base64.b64encode(b"-----BEGIN PRIVATE KEY-----").decode()
TLS_CASES = (
    Case("tls_enabled", "true", True, ("maybe",)),
    Case("tls_ca_cert", CERT, SecretStr(CERT), ("no base64", KEY), ("tls_enabled",)),
    Case("tls_client_cert", CERT, SecretStr(CERT), ("=", KEY), ("tls_enabled", "tls_client_key")),
    Case("tls_client_key", KEY, SecretStr(KEY), ("=", CERT), ("tls_enabled", "tls_client_cert")),
    Case(
        "sasl_mechanism",
        "PLAIN",
        "PLAIN",
        ("GSSAPI", "plain"),
        ("tls_enabled", "sasl_username", "sasl_password"),
    ),
    Case("sasl_username", "me", "me", (), ("tls_enabled", "sasl_mechanism", "sasl_password")),
    Case(
        "sasl_password",
        "hunter2",
        SecretStr("hunter2"),
        (),
        ("tls_enabled", "sasl_mechanism", "sasl_username"),
    ),
    Case("sasl_allow_plaintext", "true", True, ("maybe",)),
)
CASES = (
    *TLS_CASES,
    *(
        case._replace(field=f"target_{case.field}", beside=tuple(f"target_{name}" for name in case.beside))
        for case in TLS_CASES
    ),
    Case("enabled", "false", False, ("maybe", "2")),
    Case(
        "brokers",
        " a:1 ,b.example:65535,[::1]:9092,",
        ("a:1", "b.example:65535", "[::1]:9092"),
        ("kafka", "kafka:", "kafka:0", "kafka:65536", ":9092", "http://kafka:9092", "a:1 b:2", "a:1,b"),
    ),
    Case("target_brokers", "t:1", ("t:1",), ("t", "t:x")),
    Case("catalog", "catalog.examples.flights", "catalog.examples.flights"),
    Case("cloudevents_source", "urn:shop:1", "urn:shop:1", ("two words", "ünï", "a\nb", "x" * 2049)),
    Case("cloudevents_dialect", "ce-", "ce-", ("ce", "CE_")),
    Case("namespace", "shop_1-x", "shop_1-x", ("Shop", "-x", "a.b", "x" * 101, "a b")),
    Case("type_prefix", "com.example.Shop", "com.example.Shop", (".com", "a b", "x" * 256, "é")),
    Case("event_policies", "a.b.dlq=never", "a.b.dlq=never"),
    Case("client_id", "shop", "shop", ("x" * 201,)),
    Case("batch_linger_ms", "0", 0.0, ("-1", "10001", "soon", "nan")),
    Case("batch_max_bytes", "1024", 1024, ("1023", "1.5", "1MB")),
    Case("max_buffered_records", "1", 1, ("0", "-1", "many")),
    Case("compression", "zstd", "zstd", ("lz5", "LZ4")),
    Case("stage_timeout_s", "0.5", 0.5, ("0", "-1", "nan", "inf", "86401", "2s")),
    Case("record_delivery_timeout_s", "60", 60.0, ("0", "nan", "x")),
    Case("drain_timeout_s", "1.5", 1.5, ("0", "x")),
    Case("close_timeout_s", "1", 1.0, ("0", "inf", "x")),
    Case("max_payload_bytes", "1", 1, ("0", "100000001", "x")),
    Case("max_record_bytes", "2000000", 2_000_000, ("1023", "104000001", "x")),
    Case("cb_failure_ratio", "0.25", 0.25, ("0", "1.1", "x")),
    Case("cb_min_requests", "5", 5, ("0", "x")),
    Case("cb_timeout_s", "7", 7.0, ("0", "inf", "x")),
    Case("target_soft_timeout_s", "0.5", 0.5, ("0", "inf", "x")),
    Case("park_max_bytes", "1", 1, ("0", "x")),
    Case("unknown_definition", "dlq", "dlq", ("drop",)),
    Case("outbox_dir", "/outbox", "/outbox"),
    Case("outbox_max_bytes", "2000000", 2_000_000, ("1048575", "x")),
    Case("data_dir", "/data", "/data"),
    Case("topics_autocreate", "false", False, ("maybe",)),
    Case("topic_partitions", "12", 12, ("0", "10001", "x")),
    Case("topic_replication", "3", 3, ("-1", "101", "x")),
    Case("web_bind", "0.0.0.0", "0.0.0.0"),
    Case("web_port", "8080", 8080, ("0", "65536", "http")),
    Case("max_redrives", "5", 5, ("0", "x")),
    Case(
        "admin_tokens",
        f"ann:{'a' * 64},",
        (f"ann:{'a' * 64}",),
        ("x", f"a b:{'a' * 64}", ",".join(2 * [f"a:{'b' * 64}"])),
    ),
    Case("show_payloads", "false", "false", ("maybe",)),
)


def variable(case: Case) -> str:
    """The variable of a case."""
    return PREFIX + case.field.upper()


def problems_of(env: dict[str, str]) -> tuple[str, ...]:
    """Every problem of an environment that is not usable."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(env)
    return caught.value.problems


def test_every_setting_has_a_case() -> None:
    """A new setting comes with a case here."""
    assert [case.field for case in CASES] == list(Settings.model_fields)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.field)
def test_every_variable_is_read(case: Case) -> None:
    """The variable sets its field, and only that; blanks around it do not count (E)."""
    beside = {variable(other): other.text for other in CASES if other.field in case.beside}
    given = {name: value for name, value in (LEAST | beside).items() if name != variable(case)}
    default = Settings.from_env(LEAST).model_dump()
    changed = Settings.from_env({**given, variable(case): f" {case.text} "}).model_dump()
    assert changed[case.field] == case.value
    assert default[case.field] != case.value
    same = dict.fromkeys((case.field, *case.beside))
    assert {**changed, **same} == {**default, **same}


@pytest.mark.parametrize(("case", "wrong"), [(case, wrong) for case in CASES for wrong in case.wrong])
def test_every_wrong_value_names_its_variable(case: Case, wrong: str) -> None:
    """A wrong value is an error that names the variable (E), whatever else is in order."""
    (problem,) = problems_of({**LEAST, variable(case): wrong})
    assert problem.startswith(f"{variable(case)}: ")


def test_all_problems_are_told_at_once() -> None:
    """Wrong, missing, unknown and what does not go together: all in one error (E)."""
    found = problems_of(
        {
            "STREAMING_WEB_PORT": "http",
            "STREAMING_COMPRESSION": "zip",
            "STREAMING_BROKER": "kafka:9092",
            "STREAMING_STAGE_TIMEOUT_S": "40",
            "STREAMING_CATALOG": "  ",
        }
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "STREAMING_BROKER",
        "STREAMING_COMPRESSION",
        "STREAMING_WEB_PORT",
        "STREAMING_BROKERS",
        "STREAMING_CATALOG",
        "STREAMING_CLOUDEVENTS_SOURCE",
        "STREAMING_RECORD_DELIVERY_TIMEOUT_S",
    ]


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("STREAMING_BROKER", "STREAMING_BROKERS"),
        ("STREAMING_CLOUDEVENT_SOURCE", "STREAMING_CLOUDEVENTS_SOURCE"),
        ("STREAMING_STAGE_TIMEOUT", "STREAMING_STAGE_TIMEOUT_S"),
        ("STREAMING_XYZZY", None),
    ],
)
def test_unknown_variables(unknown: str, meant: str | None) -> None:
    """A variable of ours that does not exist is an error, with the likely one where there is one (E)."""
    (problem,) = problems_of({**LEAST, unknown: "x"})
    suggestion = "" if meant is None else f", did you mean {meant}?"
    assert problem == f"{unknown}: no such setting{suggestion}"


def test_other_variables_do_not_matter() -> None:
    """Variables without the prefix, and the one of the test tool, are not looked at."""
    others = {"PATH": "/", "STREAMING_TEST_BROKERS": "x", "APP_STREAMING_X": "y"}
    assert Settings.from_env({**LEAST, **others}) == Settings.from_env(LEAST)


@pytest.mark.parametrize("name", LEAST)
def test_required_when_enabled(name: str) -> None:
    """Brokers, catalog and source are required, but not while staging is disabled (E)."""
    least = {**LEAST, name: ""}
    assert problems_of(least) == (f"{name}: required while STREAMING_ENABLED is true",)
    assert not Settings.from_env({**least, "STREAMING_ENABLED": "false"}).enabled


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        ("STREAMING_MAX_PAYLOAD_BYTES", "STREAMING_MAX_RECORD_BYTES", ("5000", "4999")),
        ("STREAMING_STAGE_TIMEOUT_S", "STREAMING_RECORD_DELIVERY_TIMEOUT_S", ("3", "2.9")),
    ],
)
def test_what_does_not_go_together(low: str, high: str, values: tuple[str, str]) -> None:
    """Two settings that contradict each other are refused, naming both; equal ones are not (E)."""
    Settings.from_env({**LEAST, low: values[0], high: values[0]})
    assert problems_of({**LEAST, low: values[0], high: values[1]}) == (
        f"{high}: must not be less than {low}",
    )


def test_a_value_is_not_repeated() -> None:
    """What was given does not stand in the error beyond what names it: settings may hold secrets (E)."""
    assert "hunter2" not in str(problems_of({**LEAST, "STREAMING_WEB_PORT": "hunter2"}))


def test_by_keyword() -> None:
    """Settings made by keyword are judged alike, and cannot be changed."""
    with pytest.raises(SettingsError, match="STREAMING_WEB_PORT: "):
        Settings(brokers=("a:1",), catalog="c", cloudevents_source="s", web_port=0)
    with pytest.raises(SettingsError, match="STREAMING_BROKERS: 'a' is not host:port"):
        Settings(brokers=("a",), catalog="c", cloudevents_source="s")
    settings = Settings.from_env(LEAST)
    with pytest.raises(Exception, match="frozen"):
        settings.web_port = 1  # type: ignore[misc]


def test_what_follows_from_others() -> None:
    """TARGET_BROKERS, TYPE_PREFIX and DATA_DIR fall back to what they say they do (E)."""
    plain = Settings.from_env({**LEAST, "STREAMING_NAMESPACE": "shop"})
    assert (plain.effective_target_brokers, plain.targets_apart) == (("kafka:9092",), False)
    assert (plain.effective_type_prefix, plain.effective_data_dir) == ("shop", "shop-data")
    apart = Settings.from_env(
        {**LEAST, "STREAMING_TARGET_BROKERS": "t:1", "STREAMING_TYPE_PREFIX": "p", "STREAMING_DATA_DIR": "/d"}
    )
    assert (apart.effective_target_brokers, apart.targets_apart) == (("t:1",), True)
    assert (apart.effective_type_prefix, apart.effective_data_dir) == ("p", "/d")
    same = Settings.from_env({**LEAST, "STREAMING_TARGET_BROKERS": "kafka:9092"})
    assert not same.targets_apart


@pytest.mark.parametrize(
    ("bind", "show", "loopback", "shown"),
    [
        ("127.0.0.1", "auto", True, True),
        ("::1", "auto", True, True),
        ("localhost", "auto", True, True),
        ("0.0.0.0", "auto", False, False),
        ("::", "auto", False, False),
        ("pages.example", "auto", False, False),
        ("127.0.0.1", "false", True, False),
        ("0.0.0.0", "true", False, True),
    ],
)
def test_what_the_pages_may_show_depends_on_who_can_reach_them(
    bind: str, show: str, loopback: bool, shown: bool
) -> None:
    """Payloads are shown while only this machine reaches the pages, unless SHOW_PAYLOADS says otherwise (O3, E)."""
    settings = Settings.from_env({**LEAST, "STREAMING_WEB_BIND": bind, "STREAMING_SHOW_PAYLOADS": show})
    assert (settings.web_is_loopback, settings.payloads_are_shown) == (loopback, shown)


def test_the_reference_is_what_the_code_says() -> None:
    """`.env.reference` lists every variable with type, default and purpose, as the code has them (E)."""
    text = (ROOT / ".env.reference").read_text()
    assert text == reference(), "write it anew: python -m pipeline.settings > .env.reference"
    for case in CASES:
        assert f"\n{variable(case)}=" in text
    printed = subprocess.run(
        [sys.executable, "-m", "pipeline.settings"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert printed.stdout == text


def test_the_reference_is_usable() -> None:
    """Its lines, with the required ones filled in, are the defaults: an empty value is as good as none (E)."""
    lines = (line for line in reference().splitlines() if line and not line.startswith("#"))
    given = dict(line.split("=", 1) for line in lines)
    assert Settings.from_env({**given, **LEAST}) == Settings.from_env(LEAST)

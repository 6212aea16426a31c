"""The settings of secure connections: what goes together, which set is for which cluster, what is not shown (E)."""

from __future__ import annotations

import pytest

from pipeline.settings import Settings
from tests.unit.test_settings import CERT, KEY, LEAST, problems_of

SASL = {"SASL_MECHANISM": "PLAIN", "SASL_USERNAME": "me", "SASL_PASSWORD": "hunter2"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (SASL, "SASL_MECHANISM: without TLS"),
        ({**SASL, "TLS_ENABLED": "true", "SASL_PASSWORD": ""}, "SASL_PASSWORD: required"),
        ({**SASL, "TLS_ENABLED": "true", "SASL_USERNAME": ""}, "SASL_USERNAME: required"),
        ({**SASL, "SASL_MECHANISM": ""}, "SASL_MECHANISM: required"),
        ({"TLS_ENABLED": "true", "TLS_CLIENT_CERT": CERT}, "TLS_CLIENT_KEY: a certificate"),
        ({"TLS_ENABLED": "true", "TLS_CLIENT_KEY": KEY}, "TLS_CLIENT_CERT: a certificate"),
        ({"TLS_CA_CERT": CERT}, "TLS_CA_CERT: has no effect"),
    ],
)
@pytest.mark.parametrize("prefix", ["STREAMING_", "STREAMING_TARGET_"])
def test_what_is_not_secure(given: dict[str, str], named: str, prefix: str) -> None:
    """SASL without TLS is refused unless it is allowed, and so is half a pair; for each cluster by its own
    names (E)."""
    env = {f"{prefix}{name}": value for name, value in given.items()}
    apart = {**LEAST, "STREAMING_TARGET_BROKERS": "targets:9092"}
    problems = problems_of(apart | env)
    assert f"{prefix}{named}" in " ".join(problems)
    assert "hunter2" not in " ".join(problems)
    if "without TLS" in named:
        Settings.from_env(apart | env | {f"{prefix}SASL_ALLOW_PLAINTEXT": "true"})


def test_the_targets_cluster_is_reached_like_the_other_unless_it_says_otherwise() -> None:
    """TARGET_TLS_*, TARGET_SASL_* are as the first set where they are empty; a pair comes from one set (E)."""
    first = {f"STREAMING_{name}": value for name, value in SASL.items()}
    first |= {
        "STREAMING_TLS_ENABLED": "true",
        "STREAMING_TLS_CLIENT_CERT": CERT,
        "STREAMING_TLS_CLIENT_KEY": KEY,
    }
    apart = {**LEAST, **first, "STREAMING_TARGET_BROKERS": "targets:9092"}
    assert Settings.from_env(apart).target_security == Settings.from_env(apart).security
    other = Settings.from_env(
        {**apart, "STREAMING_TARGET_SASL_USERNAME": "you", "STREAMING_TARGET_SASL_PASSWORD": "other"}
    ).target_security
    assert (other.username, other.password.get_secret_value(), other.mechanism) == ("you", "other", "PLAIN")
    assert other.prefix == "STREAMING_TARGET_"
    assert "SASL_PASSWORD: required" in str(problems_of({**apart, "STREAMING_TARGET_SASL_USERNAME": "you"}))
    bare = {**apart, "STREAMING_TARGET_TLS_ENABLED": "false", "STREAMING_TARGET_SASL_MECHANISM": "none"}
    plain = Settings.from_env(bare).target_security
    assert (plain.tls, plain.sasl, plain.username) == (False, False, "")
    assert not plain.client_key.get_secret_value()


def test_secrets_are_not_shown() -> None:
    """Passwords and keys stand in no repr of the settings, nor of what is made of them (E)."""
    env = {
        **LEAST,
        "STREAMING_TLS_ENABLED": "true",
        **{f"STREAMING_{name}": value for name, value in SASL.items()},
    }
    env |= {"STREAMING_TLS_CLIENT_CERT": CERT, "STREAMING_TLS_CLIENT_KEY": KEY}
    settings = Settings.from_env(env)
    shown = f"{settings!r}{settings}{settings.security!r}{settings.model_dump()}{settings.model_dump_json()}"
    assert "hunter2" not in shown
    assert KEY not in shown

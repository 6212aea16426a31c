"""Delivery policies: defaults, values, precedence and both text forms (D3 to D6, S10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import PolicyError
from catalog.policies import (
    MAX_ENTRIES,
    DeliveryPolicy,
    PolicyOverride,
    format_override,
    merge,
    override_from_mapping,
    parse_override,
    parse_policies,
)

OVERRIDES = st.builds(
    PolicyOverride,
    enabled=st.sampled_from([None, True, False]),
    direct=st.sampled_from([None, "direct", "skip"]),
    outbox=st.sampled_from([None, "never", "fallback_on_circuit_open", "always"]),
    dlq=st.sampled_from([None, "never", "on_routable_failure"]),
)


def test_defaults() -> None:
    """A policy nobody filled in is enabled, direct, with outbox fallback and DLQ (D3)."""
    expected = (True, "direct", "fallback_on_circuit_open", "on_routable_failure")
    policy = DeliveryPolicy()
    assert expected == (policy.enabled, policy.direct, policy.outbox, policy.dlq)


@pytest.mark.parametrize("field", ["direct", "outbox", "dlq"])
def test_partly_filled_is_enabled(field: str) -> None:
    """A partly filled policy is not disabled (D3)."""
    value = {"direct": "skip", "outbox": "always", "dlq": "never"}[field]
    assert merge(DeliveryPolicy(), override_from_mapping({field: value})).enabled


@pytest.mark.parametrize(
    ("base", "environment", "call", "expected"),
    [
        ("always", None, None, "always"),
        ("always", "never", None, "never"),
        ("always", None, "never", "never"),
        ("always", "never", "fallback_on_circuit_open", "fallback_on_circuit_open"),
    ],
)
def test_precedence(base: str, environment: str | None, call: str | None, expected: str) -> None:
    """The call beats the environment, which beats the definition (D4)."""
    layers = [override_from_mapping({"outbox": layer}) for layer in (base, environment, call)]
    assert expected == merge(DeliveryPolicy(), *layers).outbox


@given(st.lists(OVERRIDES, max_size=3))
def test_merge_is_field_by_field(overrides: list[PolicyOverride]) -> None:
    """Each field is that of the last layer that has it, whatever the others say (D4)."""
    merged = merge(DeliveryPolicy(), *overrides)
    for field in ("enabled", "direct", "outbox", "dlq"):
        values = [getattr(override, field) for override in overrides]
        given_values = [value for value in values if value is not None]
        expected = given_values[-1] if given_values else getattr(DeliveryPolicy(), field)
        assert expected == getattr(merged, field)


def test_false_overrides_true() -> None:
    """`enabled=False` is a value, not an absence (D4)."""
    assert not merge(DeliveryPolicy(), PolicyOverride(enabled=False)).enabled


def test_skip_needs_always() -> None:
    """direct=skip without outbox=always is refused, and only in the merged result (D3, D4)."""
    half = merge(DeliveryPolicy(), PolicyOverride(direct="skip"))
    with pytest.raises(PolicyError, match=r"order\.created.*direct=skip needs outbox=always") as caught:
        half.check("order.created")
    assert caught.value.entry == "order.created"
    assert merge(half, PolicyOverride(outbox="always")).check().direct == "skip"


@pytest.mark.parametrize("separator", [",", ";", "\n", "\r\n", " ,\n; "])
def test_separators(separator: str) -> None:
    """Entries are separated by comma, semicolon or newline (D5)."""
    text = separator.join(["a.b.outbox=always", " a.b.direct = skip ", "c.enabled=no", ""])
    expected = {
        "a.b": PolicyOverride(outbox="always", direct="skip"),
        "c": PolicyOverride(enabled=False),
    }
    assert expected == parse_policies(text)


def test_no_policies() -> None:
    """An empty variable overrides nothing (D5)."""
    assert parse_policies(" \n,") == {}


@pytest.mark.parametrize("value", ["true", "1", "yes", "TRUE", "Yes"])
def test_enabled_true(value: str) -> None:
    """`enabled` takes true, 1 and yes in any case (D5)."""
    assert parse_policies(f"a.enabled={value}")["a"].enabled is True


@pytest.mark.parametrize("value", ["false", "0", "no", "False", "NO"])
def test_enabled_false(value: str) -> None:
    """`enabled` takes false, 0 and no in any case (D5)."""
    assert parse_policies(f"a.enabled={value}")["a"].enabled is False


def test_later_duplicate_wins() -> None:
    """Of two entries for one field the later counts (D5)."""
    assert parse_policies("a.dlq=never,a.dlq=on_routable_failure")["a"].dlq == "on_routable_failure"


@pytest.mark.parametrize(
    "entry",
    [
        "a.b.colour=red",
        "a.b.outbox=sometimes",
        "a.b.outbox=",
        "a.b.outbox=Always",
        "a.b.Outbox=always",
        "a.b.enabled=on",
        "a.b.outbox",
        "outbox=always",
        ".outbox=always",
        "=",
    ],
)
def test_bad_entry_is_named(entry: str) -> None:
    """An unknown field or value, or no entry at all, is an error that names the entry (D5)."""
    with pytest.raises(PolicyError) as caught:
        parse_policies(f"x.y.dlq=never, {entry} ;x.y.outbox=never")
    assert entry == caught.value.entry
    assert entry in str(caught.value)


def test_entry_limit() -> None:
    """1,024 entries pass, blank ones not counted; one more is refused and named (D5)."""
    text = ",,".join(f"k{number}.dlq=never" for number in range(MAX_ENTRIES))
    assert len(parse_policies(text)) == MAX_ENTRIES == 1024
    with pytest.raises(PolicyError, match="1025 entries") as caught:
        parse_policies(f"{text},last.dlq=never")
    assert caught.value.entry == "last.dlq=never"


KEYS = st.text(st.characters(exclude_characters=",;\n", exclude_categories=["Cs"]), min_size=1).filter(
    lambda key: key == key.strip()
)


@given(st.dictionaries(KEYS, OVERRIDES, max_size=20), st.sampled_from([",", ";", "\n"]))
def test_policies_round_trip(policies: dict[str, PolicyOverride], separator: str) -> None:
    """Whatever is written as entries is read back, dots and equals signs in keys included (D5)."""
    entries = [
        f"{key}.{part}"
        for key, override in policies.items()
        for part in format_override(override).split(";")
        if part
    ]
    expected = {key: value for key, value in policies.items() if value != PolicyOverride()}
    assert expected == parse_policies(separator.join(entries))


@given(OVERRIDES)
def test_header_round_trip(override: PolicyOverride) -> None:
    """The staging header reads back as it was written (S10)."""
    assert override == parse_override(format_override(override))


def test_header_form() -> None:
    """The header is `direct=…;outbox=…;dlq=…`, plain text, nothing for what is not overridden (S10)."""
    override = PolicyOverride(direct="skip", outbox="always", dlq="never")
    assert format_override(override) == "direct=skip;outbox=always;dlq=never"
    assert format_override(PolicyOverride(enabled=False)) == "enabled=false"
    assert format_override(PolicyOverride()) == ""


@pytest.mark.parametrize(
    "text",
    [
        "direct=skip;",
        "direct = skip",
        "direct=skip,outbox=always",
        "direct=skip;direct=direct",
        "enabled=1",
        "enabled=True",
        "colour=red",
        "outbox=sometimes",
        "outbox",
        " ",
    ],
)
def test_header_is_strict(text: str) -> None:
    """A wire format takes one spelling only (S10)."""
    with pytest.raises(PolicyError):
        parse_override(text)


def test_mapping() -> None:
    """`stage(policy={...})` takes plain values; None is as good as left out (S1, D4)."""
    expected = PolicyOverride(enabled=False, outbox="always")
    assert expected == override_from_mapping({"enabled": False, "outbox": "always", "dlq": None})


@pytest.mark.parametrize(
    "values",
    [{"enabled": "false"}, {"enabled": 0}, {"outbox": "sometimes"}, {"colour": "red"}, {"dlq": True}],
)
def test_bad_mapping(values: dict[str, object]) -> None:
    """A wrong field or value is an error that names it (D3)."""
    with pytest.raises(PolicyError, match=next(iter(values))):
        override_from_mapping(values)


@pytest.mark.parametrize("kind", [DeliveryPolicy, PolicyOverride])
def test_values_are_checked_when_made(kind: type[DeliveryPolicy | PolicyOverride]) -> None:
    """A policy with a value that does not exist cannot be made (D3)."""
    with pytest.raises(PolicyError, match="outbox=sometimes"):
        kind(outbox="sometimes")  # type: ignore[arg-type]  # that is the point

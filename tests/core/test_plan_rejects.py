"""What the planner refuses: with which class and disposition, and whether it is dead-lettered (C1, C3, D3, D4, D6)."""

from __future__ import annotations

import pytest

from catalog import Catalog, EventDefinition
from pipeline.dlq import Disposition
from pipeline.errors import ErrorClass
from pipeline.plan import Limits, Rejected
from pipeline.routes import Router
from pipeline.staging import record_size
from tests.core.staged_records import NAMESPACE, SEAL, Staged, planned, router, staged


def rejected(record: Staged, using: Router | None = None, limits: Limits | None = None) -> Rejected:
    """The one rejected record of a plan; its neighbours, before and after, are delivered."""
    before, after = staged({"id": b"before"}), staged({"id": b"after"})
    result = planned(before, record, after, using=using, limits=limits or Limits(1_000_000, 1_040_000))
    delivered = [index for column in result.columns.values() for index in column.sources]
    assert sorted(delivered) == [0, 2]
    (found,) = result.rejected
    assert found.index == 1
    return found


def poison(record: Staged, says: str, using: Router | None = None, limits: Limits | None = None) -> Rejected:
    """The same, for what is the record's own fault: validation error, poison (C3)."""
    found = rejected(record, using, limits)
    assert found.failure.error_class is ErrorClass.VALIDATION
    assert found.failure.disposition is Disposition.POISON
    assert says in found.failure.message
    return found


@pytest.mark.parametrize("name", ["version", "definition", "id", "time", "source"])
def test_a_missing_header(name: str) -> None:
    """S10: each required header that is missing, or null, is poison and is named."""
    for record in (staged(without=[name]), staged({name: None})):
        found = poison(record, f"required header missing: stage-{name}")
        assert (found.route is None) == (name == "definition")
        assert found.dead_letter


def test_all_missing_headers_are_named() -> None:
    """S10: a record of nobody's making says all that it lacks, and has no target (Q1)."""
    found = poison(
        Staged([("x", b"y")]), "stage-version, stage-definition, stage-id, stage-time, stage-source"
    )
    assert found.route is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("id", b"", "is empty"),
        ("id", b"x" * 257, "id"),
        ("id", b"\xff", "not UTF-8"),
        ("id", b"a\nb", "control"),
        ("id", "\u0085".encode(), "control"),
        ("subject", b"x" * 1025, "subject"),
        ("subject", b"\x80", "not UTF-8"),
        ("subject", b"a\x7fb", "control"),
        ("tenant", b"x" * 257, "tenant"),
        ("tenant", b"\xfe", "not UTF-8"),
        ("tenant", b"a\x00", "control"),
        ("source", b"", "is empty"),
        ("source", b"x" * 2049, "source"),
        ("source", b"\xc0", "not UTF-8"),
        ("time", b"yesterday", "RFC 3339"),
        ("time", b"2026-01-02T03:04:05", "RFC 3339"),
        ("time", b"2026-02-29T03:04:05Z", "RFC 3339"),
        ("time", b"2026-01-02T03:04:05." + b"1" * 60 + b"Z", "RFC 3339"),
    ],
)
def test_a_bad_field(name: str, value: bytes, says: str) -> None:
    """S5, S10: each field has its limit, is UTF-8 without control characters, and is named when it is not."""
    found = poison(staged({name: value}), says)
    assert found.dead_letter


def test_a_character_cut_in_two() -> None:
    """S10: the halves of one character in two fields are two faults, not one legal text."""
    poison(staged({"id": b"\xc3", "subject": b"\xa9"}), "id is not UTF-8")


def test_a_tenant_is_checked_on_a_system_event_too() -> None:
    """S5: it is not used there, but a record within its caps is what everything else relies on."""
    poison(staged({"definition": b"clock.ticked", "tenant": b"x" * 257}), "tenant")


def test_fields_at_their_limits() -> None:
    """S5: a field of just its limit is delivered."""
    record = staged({"id": b"x" * 256, "subject": b"s" * 1024, "tenant": b"t" * 256, "source": b"u" * 2048})
    assert not planned(record).rejected


@pytest.mark.parametrize("name", ["stage-id", "stage-tenant", "stage-policy", "stage-version"])
def test_a_staging_header_that_stands_twice(name: str) -> None:
    """S10: two values of one header contradict each other; which is meant is not for us to say."""
    record = staged({"tenant": b"acme", "policy": b"dlq=on_routable_failure"})
    value = dict(record.headers)[name]
    for again in (value, None):
        poison(Staged([*record.headers, (name, again)]), f"{name} stands twice")


def test_a_header_name_that_is_not_utf8() -> None:
    """S10: header names are UTF-8; one that is not is poison, in words that can be printed."""
    found = poison(staged(more=[("\udcffx", b"1")]), r"'\udcffx'")
    assert found.failure.message.isprintable()


def test_an_unknown_definition() -> None:
    """C3: skew, the deployment's fault and an operator's to mend; it has no target here."""
    for key in (b"no.such", b"\xff", "order.created\ufffd".encode()):
        found = rejected(staged({"definition": key}))
        assert found.failure.error_class is ErrorClass.VALIDATION
        assert found.failure.disposition is Disposition.OPERATOR
        assert found.route is None
        assert "not in this worker's catalog" in found.failure.message


def test_bytes_that_only_look_like_a_key() -> None:
    """C3: a key that is not UTF-8 names no definition, not even one that has a replacement character in its name."""
    odd = EventDefinition(key="odd\ufffd", resource_type="odd", event_type="thing")
    using = Router(Catalog([odd], namespace=NAMESPACE), dialect="ce_", type_prefix="x")
    assert using.route("odd\ufffd".encode()) is not None
    assert using.route(b"odd\xff") is None


def test_an_unknown_staging_version() -> None:
    """C3: skew as well; its target is known all the same."""
    found = rejected(staged({"version": b"2"}))
    assert found.failure.disposition is Disposition.OPERATOR
    assert found.failure.message == "stage-version '2' is not known to this worker"
    assert found.route is not None


def test_a_forbidden_source() -> None:
    """D1: who is not among the definition's sources may not stage it; who is, may, also beyond ASCII."""
    definition = {"definition": b"payout.sent"}
    found = poison(staged(definition), "'//shop/web' may not stage 'payout.sent'")
    assert found.dead_letter
    assert not planned(staged(definition | {"source": "//bank/café".encode()})).rejected


def test_a_body_its_definition_refuses() -> None:
    """D1, S4: a foreign record's body is judged by the definition, in words that quote nothing of it."""
    found = poison(
        staged({"definition": b"order.paid"}, value=b'{"cents": "hunter2"}'), "does not match the definition"
    )
    assert "hunter2" not in found.failure.message
    assert not planned(staged({"definition": b"order.paid"}, value=b'{"cents": 5}')).rejected


@pytest.mark.parametrize("body", [b"{", b"", b"NaN", b'"\xff"', b"{} {}"])
def test_a_body_that_is_not_json(body: bytes) -> None:
    """S4: a JSON content type with a body that is not JSON (RFC 8259)."""
    poison(staged(value=body), "not JSON")


def test_a_sealed_record_skips_the_check_of_its_body() -> None:
    """S10: a stager that checked against this very catalog says so by its fingerprint; no other seal counts."""
    bad = b'{"cents": "x"}'
    assert not planned(staged({"definition": b"order.paid", "catalog": SEAL}, value=bad)).rejected
    for seal in (b"", SEAL[:-1], SEAL + b"0", b"0" * 16):
        poison(staged({"definition": b"order.paid", "catalog": seal}, value=bad), "does not match")


def test_a_seal_excuses_nothing_else() -> None:
    """S10: fields and caps are checked whoever staged the record."""
    poison(staged({"catalog": SEAL, "id": b""}), "is empty")
    poison(staged({"catalog": SEAL}, value=b"x" * 11), "the payload has 11 bytes", limits=Limits(10, 9_999))


def test_the_payload_cap() -> None:
    """S5: `MAX_PAYLOAD_BYTES` holds to the byte."""
    limits = Limits(10, 10_000)
    poison(staged(value=b'"' + b"x" * 9 + b'"'), "the cap is 10", limits=limits)
    assert not planned(staged(value=b'"' + b"x" * 8 + b'"'), limits=limits).rejected


@pytest.mark.parametrize("sealed", [True, False])
def test_the_record_cap(sealed: bool) -> None:
    """S5: `MAX_RECORD_BYTES` counts key, value and every header, to the byte, wherever the bytes are."""
    seal: dict[str, bytes | None] = {"catalog": SEAL} if sealed else {}
    for record in (
        staged(seal, value=b'"' + b"x" * 50_000 + b'"'),
        staged(seal, more=[("x", b"x" * 50_000)]),
        staged(seal, more=[("x" * 50_000, b"")]),
        staged(seal, more=[("stage-later", b"x" * 50_000)]),
        staged(seal, key=b"k" * 50_000),
    ):
        size = record_size(record.key, record.value, record.headers)
        poison(record, f"the record has {size:,} bytes", limits=Limits(51_000, size - 1))
        small = staged({"id": b"before"}), staged({"id": b"after"})
        assert not planned(small[0], record, small[1], limits=Limits(51_000, size)).rejected
    if not sealed:
        poison(staged({"catalog": b"c" * 50_000}), "the record has", limits=Limits(51_000, 50_000))


# --- policies


def test_a_disabled_definition() -> None:
    """D6: `enabled=false` is for an operator to mend: dead-lettered whatever `dlq` says, never dropped."""
    found = rejected(staged({"definition": b"fax.sent"}))
    assert found.dead_letter
    assert found.failure.disposition is Disposition.OPERATOR
    assert found.failure.error_class is ErrorClass.VALIDATION
    assert found.failure.message == "'fax.sent' is disabled by its delivery policy"


def test_precedence() -> None:
    """D4: definition < the worker's variable < the call, field by field; only the merged result is validated."""
    created, fax = staged(), staged({"definition": b"fax.sent"})
    off, on = router(policies="order.created.enabled=false"), router(policies="fax.sent.enabled=true")
    assert rejected_of(created, off)
    assert not rejected_of(fax, on)
    assert not rejected_of(staged({"policy": b"enabled=true"}), off)
    assert rejected_of(staged({"definition": b"fax.sent", "policy": b"enabled=false"}), on)
    assert not rejected_of(staged({"policy": b"dlq=never"}))
    # direct=skip alone cannot be (D3); with the worker's outbox=always below it, it can.
    skip = staged({"policy": b"direct=skip"})
    assert "skip" in rejected_of(skip)[0].failure.message
    assert not rejected_of(skip, router(policies="order.created.outbox=always"))


def rejected_of(record: Staged, using: Router | None = None) -> list[Rejected]:
    """What is rejected of a single record."""
    return planned(record, using=using).rejected


@pytest.mark.parametrize(
    "policy", [b"dlq", b"dlq=maybe", b"color=red", b"dlq=never;dlq=never", b"\xff", b" "]
)
def test_a_policy_nobody_can_read(policy: bytes) -> None:
    """S10: poison, and dead-lettered, for it does not say that it should not be; the same when it comes again."""
    using = router()
    for _ in range(2):
        assert poison(staged({"policy": policy}), "delivery policy", using).dead_letter


def test_dlq_never() -> None:
    """D6: with `dlq=never`, by definition, variable or call, a poison record is skipped; without, dead-lettered."""
    bad = {"time": b"never"}
    assert poison(staged(bad), "RFC 3339").dead_letter
    assert not poison(staged(bad | {"policy": b"dlq=never"}), "RFC 3339").dead_letter
    assert not poison(staged(bad | {"definition": b"hint.given"}), "RFC 3339").dead_letter
    assert not poison(staged(bad), "RFC 3339", router(policies="order.created.dlq=never")).dead_letter
    told = bad | {"definition": b"hint.given", "policy": b"dlq=on_routable_failure"}
    assert poison(staged(told), "RFC 3339").dead_letter

    assert not rejected(staged({"definition": b"hint.given"}, without=["id"])).dead_letter


def test_skew_is_never_skipped() -> None:
    """C3, D6: `dlq=never` is about poison; what another worker might deliver is kept."""
    assert rejected(staged({"definition": b"hint.given", "version": b"9"})).dead_letter
    assert rejected(staged({"definition": b"no.such", "policy": b"dlq=never"})).dead_letter

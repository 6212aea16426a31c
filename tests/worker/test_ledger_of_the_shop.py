"""The ledger over what a real worker made of the shop's events, good and bad (T5, T6)."""

from __future__ import annotations

from tests.cli.command_line import run
from tests.worker.shop import EARLY, HAPPY, POISON, SEQUENCE, SKIPPED, Shop
from tests.worker.shop_records import CATALOG


def test_everything_staged_is_accounted_for(shop: Shop) -> None:
    """T5, T6: of all that was staged – delivered, dead-lettered, skipped, aborted, hostile – nothing is missing, double
    or out of order, and each end is counted once."""
    answer = run(
        "ledger",
        "verify",
        "--json",
        BROKERS=shop.bootstrap,
        NAMESPACE=shop.namespace,
        CATALOG=CATALOG,
        EVENT_POLICIES="payout.sent.enabled=false",
    )
    assert answer.status == 0, answer.out + answer.err
    counts = answer.document["counts"]
    bad_in_sequence = sum(record.value == b"{" for record in SEQUENCE)
    assert counts["staged"] >= len([*EARLY, *HAPPY, *POISON, *SKIPPED, *SEQUENCE])
    assert counts["skipped"] >= len(SKIPPED)
    assert counts["dead_lettered"] >= len(POISON) + bad_in_sequence
    assert counts["delivered"] + counts["dead_lettered"] + counts["skipped"] == counts["staged"]
    assert not any(counts[name] for name in ("pending", "parked", "double", "foreign", "unjudged"))

"""The account of a run: what was written down against what was read back. Pure.

Owns: what counts as missing, misplaced, altered, unexpected or twice. Must not know: Kafka, files, output.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from catalog import Catalog, OwnTopics
from catalog.names import dlq_of
from demo.ledger import Entry

__all__ = ["Account", "Found", "account", "expected_topic"]


class Found(NamedTuple):
    """A record read back: where it lies, whose it is, a checksum of its value, the class of a dead letter."""

    topic: str
    id: str
    tenant: str
    checksum: int
    error_class: str = ""


class Account(NamedTuple):
    """What became of a run's events. `delivered` counts by (topic, tenant), `dead` by (topic, error class).

    Every other collection holds ids that make the run fail; `twice` does not: delivery is at least once.
    """

    written_down: int
    delivered: Counter[tuple[str, str]]
    dead: Counter[tuple[str, str]]
    twice: int
    missing: tuple[str, ...]
    misplaced: tuple[str, ...]
    altered: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every id written down was found where it belongs, as it was staged, and nothing else."""
        return not (self.missing or self.misplaced or self.altered or self.unexpected)


def expected_topic(entry: Entry, catalog: Catalog, topics: OwnTopics) -> str:
    """Return where an event has to end: its target, that target's dead letters, or those of staging."""
    if not entry.key:
        return topics.staging_dlq
    target = catalog.topic(entry.key)
    return dlq_of(target) if entry.error_class else target


def account(
    entries: Iterable[Entry],
    staged: Iterable[Found],
    ended: Iterable[Found],
    catalog: Catalog,
    topics: OwnTopics,
) -> Account:
    """Compare the ledgers with what stands on the staging topic and on the topics where events end."""
    expected = {entry.id: entry for entry in entries}
    sent = {found.id: found.checksum for found in staged}
    ends: defaultdict[str, list[Found]] = defaultdict(list)
    for found in ended:
        ends[found.id].append(found)
    missing, misplaced, altered = [], [], []
    delivered: Counter[tuple[str, str]] = Counter()
    dead: Counter[tuple[str, str]] = Counter()
    for entry in expected.values():
        here = ends.get(entry.id)
        if not here:
            missing.append(entry.id)
            continue
        right = (expected_topic(entry, catalog, topics), entry.tenant, entry.error_class)
        if any((found.topic, found.tenant, found.error_class) != right for found in here):
            misplaced.append(entry.id)
        elif any(found.checksum != sent.get(entry.id) for found in here):
            altered.append(entry.id)
        elif entry.error_class:
            dead[here[0].topic, entry.error_class] += 1
        else:
            delivered[here[0].topic, entry.tenant] += 1
    return Account(
        written_down=len(expected),
        delivered=delivered,
        dead=dead,
        twice=sum(len(here) - 1 for here in ends.values()),
        missing=tuple(missing),
        misplaced=tuple(misplaced),
        altered=tuple(altered),
        unexpected=tuple(event_id for event_id in ends if event_id not in expected),
    )

"""What the index counts – groups, previews, topics – beside a plain look at every letter."""

from __future__ import annotations

import bisect
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from pipeline.redrive import queries as questions
from pipeline.redrive.model import Group, Preview
from pipeline.redrive.queries import Queries
from pipeline.redrive.selection import LetterState, Selection
from pipeline.redrive.store import Store
from tests.redrive.letters import ending, entry

_BEGAN = 1_000.0
_MAX_REDRIVES = 3


@dataclass(frozen=True)
class Plain:
    """A letter, as far as it is selected and counted by."""

    topic: str
    partition: int
    offset: int
    fingerprint: str
    tenant: str
    error_class: str
    definition: str
    failed_at: float
    redrives: int
    state: LetterState = LetterState.OPEN

    def entry(self) -> bytes:
        """Its index record."""
        facts = asdict(self)
        del facts["offset"], facts["state"]
        return entry(self.offset, **facts)

    def ending(self) -> bytes:
        """Its state record."""
        return ending(self.offset, self.state, partition=self.partition, topic=self.topic)


def _letters(chance: random.Random, count: int) -> list[Plain]:
    """Few failures and tenants have most of them; some failed at the same moment."""
    return [
        Plain(
            topic=chance.choice(["a.dlq", "a.dlq", "b.dlq"]),
            partition=number % 3,
            offset=number // 3,
            fingerprint=f"{min(int(chance.expovariate(0.5)), 9):016x}",
            tenant=chance.choice(["", "t1", f"rare-{chance.randrange(40)}"]),
            error_class=chance.choice(["validation_error", "auth_error"]),
            definition=chance.choice(["one", "two"]),
            failed_at=_BEGAN + chance.choice([float(chance.randrange(20)), 20 * chance.random()]),
            redrives=int(chance.expovariate(1.0)),
        )
        for number in range(count)
    ]


def _selections(chance: random.Random, letters: list[Plain], count: int) -> Iterator[Selection]:
    """Of every kind: each condition there or not; times beside, between and exactly at those of letters."""
    times = [
        None,
        _BEGAN - 1.0,
        _BEGAN + 30.0,
        *(_BEGAN + number for number in range(20)),
        *(letter.failed_at for letter in letters[:20]),
    ]
    for _ in range(count):
        some = chance.choice(letters)
        topic = chance.choice([None, some.topic])
        partition = None if topic is None else chance.choice([None, None, some.partition])
        given = {
            name: chance.choice([None, None, getattr(some, name)])
            for name in ("fingerprint", "tenant", "error_class", "definition")
        }
        yield Selection(
            **given,
            topic=topic,
            partition=partition,
            first_offset=None if partition is None else chance.choice([None, some.offset, 20]),
            last_offset=None if partition is None else chance.choice([None, some.offset, 120]),
            since_at=chance.choice([None, chance.choice(times)]),
            until_at=chance.choice([None, chance.choice(times)]),
            state=chance.choice([None, *LetterState]),
        )


def _is_meant(letter: Plain, selection: Selection) -> bool:
    exact = ("topic", "partition", "fingerprint", "tenant", "error_class", "definition", "state")
    return (
        all(getattr(selection, name) in {None, getattr(letter, name)} for name in exact)
        and (selection.since_at is None or letter.failed_at >= selection.since_at)
        and (selection.until_at is None or letter.failed_at < selection.until_at)
        and (selection.first_offset is None or letter.offset >= selection.first_offset)
        and (selection.last_offset is None or letter.offset <= selection.last_offset)
    )


Counts = tuple[str, str, str, str, int, tuple[str, ...], int, float, float]


def _plain_groups(letters: list[Plain]) -> list[Counts]:
    kinds: dict[tuple[str, str, str, str], list[Plain]] = {}
    for letter in letters:
        kind = (letter.topic, letter.fingerprint, letter.error_class, letter.definition)
        kinds.setdefault(kind, []).append(letter)
    found: list[Counts] = []
    for kind, of in kinds.items():
        tenants = Counter(letter.tenant for letter in of)
        most = tuple(sorted(tenants, key=lambda tenant: (-tenants[tenant], tenant))[:10])
        times = [letter.failed_at for letter in of]
        found.append((*kind, len(of), most, len(tenants), min(times), max(times)))
    return sorted(found)


def _counts(group: Group) -> Counts:
    kind = (group.topic, group.fingerprint, group.error_class, group.definition)
    return (*kind, group.count, tuple(group.tenants), group.tenant_count, group.first_at, group.last_at)


def _check_preview(preview: Preview, meant: list[Plain], groups: list[Counts]) -> None:
    assert (preview.count, preview.kinds) == (len(meant), len(groups))
    assert preview.too_often == sum(letter.redrives >= _MAX_REDRIVES for letter in meant)
    assert [group.count for group in preview.groups] == sorted((one[4] for one in groups), reverse=True)[:20]
    assert {_counts(group) for group in preview.groups} <= set(groups)
    times = [letter.failed_at for letter in meant]
    assert (preview.oldest_at, preview.newest_at) == (min(times, default=None), max(times, default=None))
    if not meant:
        assert not preview.histogram
        return
    begins = [bar.from_at for bar in preview.histogram]
    assert [bar.until_at for bar in preview.histogram] == [*begins[1:], preview.newest_at]
    plain = Counter(bisect.bisect_right(begins, time) - 1 for time in times)
    assert [bar.count for bar in preview.histogram] == [plain[number] for number in range(len(begins))]


def _check(queries: Queries, letters: list[Plain], chance: random.Random) -> None:
    for selection in (Selection(), Selection(state=None), *_selections(chance, letters, 50)):
        meant = [letter for letter in letters if _is_meant(letter, selection)]
        groups = _plain_groups(meant)
        found = queries.groups(selection)
        assert sorted(map(_counts, found.largest)) == groups, selection
        assert (found.count, found.kinds) == (len(meant), len(groups)), selection
        _check_preview(queries.preview(selection, _MAX_REDRIVES), meant, groups)
    now = _BEGAN + 310.0  # five minutes after half of them
    topics = queries.topics(now)
    assert {topic.topic for topic in topics} == {letter.topic for letter in letters}
    for topic in topics:
        of = [letter for letter in letters if letter.topic == topic.topic]
        states = Counter(letter.state for letter in of)
        assert (topic.open, topic.redriven, topic.discarded) == tuple(states[state] for state in LetterState)
        opened = [letter for letter in of if letter.state is LetterState.OPEN]
        assert topic.by_class == Counter(letter.error_class for letter in opened)
        times = [letter.failed_at for letter in opened]
        assert (topic.oldest_at, topic.newest_at) == (min(times, default=None), max(times, default=None))
        assert topic.per_minute * 5 == pytest.approx(sum(letter.failed_at > _BEGAN + 10.0 for letter in of))


def _forget(store: Store, firsts: dict[tuple[str, int], int]) -> None:
    while store.forget(firsts, 7) == 7:
        pass


def _still_there(letters: list[Plain], firsts: dict[tuple[str, int], int]) -> list[Plain]:
    return [one for one in letters if one.offset >= firsts[one.topic, one.partition]]


@pytest.mark.parametrize("few_owners", [0, 1_000])
@pytest.mark.parametrize("seed", range(2))
def test_counts_are_those_of_a_plain_look_at_every_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, few_owners: int
) -> None:
    """O1: whichever conditions are combined, groups with their tenants and times, previews with their histogram and
    topics say what a look at each letter says: while letters come, when their states change and change again, when the
    oldest are deleted from their topics, and from an index that is read anew, with what was deleted, in another order.
    """
    monkeypatch.setattr(questions, "_FEW_OWNERS", few_owners)
    chance = random.Random(seed)
    letters = _letters(chance, 600)
    store = Store(tmp_path, "shop")
    queries = Queries(store.path)
    firsts = {(topic, partition): 0 for topic in ("a.dlq", "b.dlq") for partition in range(3)}
    for upto in (250, 600, 600, 600):
        ended = [
            replace(letter, state=chance.choice(list(LetterState)))
            for letter in letters
            if chance.random() < 0.2
        ]
        states = {(letter.topic, letter.partition, letter.offset): letter for letter in ended}
        letters = [states.get((one.topic, one.partition, one.offset), one) for one in letters]
        store.take_in([one.entry() for one in letters[:upto]], [one.ending() for one in ended], {})
        _forget(store, firsts)
        _check(queries, _still_there(letters[:upto], firsts), chance)
        firsts = {place: first + chance.randrange(40) for place, first in firsts.items()}
        _forget(store, firsts)
        _check(queries, _still_there(letters[:upto], firsts), chance)

    queries.close()
    store.begin_anew()
    records = [(one.entry(), one.ending()) for one in letters]
    chance.shuffle(records)
    for first in range(0, len(records), 100):
        store.take_in([letter for letter, _ in records[first : first + 100]], [], {})
    store.take_in([], [state for _, state in records], {})
    _check(queries, letters, chance)
    _forget(store, firsts)
    _check(queries, _still_there(letters, firsts), chance)
    firsts |= {(topic, partition): 1_000 for topic, partition in firsts if topic == "b.dlq"}
    _forget(store, firsts)
    _check(queries, _still_there(letters, firsts), chance)
    queries.close()
    store.close()

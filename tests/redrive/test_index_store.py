"""The index on disk: what goes in comes out, counted rightly, whatever the order, damage or repetition."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.redrive.model import Coordinates, Letter
from pipeline.redrive.queries import Queries
from pipeline.redrive.selection import LetterState, Selection, WrongSelection
from pipeline.redrive.store import Store
from tests.redrive.letters import TOPIC, ending, entry, offsets

ANY = Selection(state=None)


class Bench:
    """A store and questions to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder, "shop")
        self.queries = Queries(self.store.path)

    def take_in(self, letters: list[bytes], endings: list[bytes] | None = None) -> int:
        """Store records."""
        return self.store.take_in(letters, endings or [], {})

    def close(self) -> None:
        """Close both."""
        self.queries.close()
        self.store.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An empty index."""
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_letter_comes_out_as_it_went_in(bench: Bench) -> None:
    """O1: everything the index record says of a dead letter is known of it; an unknown place is no letter."""
    assert bench.take_in([entry(7, tenant="café", redrives=2, source_offset=99)]) == 0
    letter = bench.queries.letter(Coordinates(TOPIC, 0, 7))
    assert letter == Letter(
        TOPIC,
        0,
        7,
        LetterState.OPEN,
        "validation_error",
        "id is empty",
        "f" * 16,
        "order.created",
        "1.0.0",
        "poison",
        "café",
        "id-7",
        "/shop",
        1_767_323_007.0,
        1_767_323_007.0,
        2,
        512,
        "stagepost",
        "shop.order.created",
        0,
        99,
    )
    assert bench.queries.letter(Coordinates(TOPIC, 0, 8)) is None


def test_what_became_of_a_letter_may_be_known_before_the_letter(bench: Bench) -> None:
    """Q5: index and state are two topics; whichever is read first, and however often, the counts are right."""
    bench.take_in([entry(1), entry(2)], [ending(2), ending(3, LetterState.DISCARDED)])
    bench.take_in([entry(3), entry(1), entry(2)], [ending(1)])
    bench.take_in([], [ending(1), ending(3, LetterState.DISCARDED)])
    (topic,) = bench.queries.topics(0.0)
    assert (topic.open, topic.redriven, topic.discarded) == (0, 2, 1)
    assert (topic.oldest_at, topic.newest_at) == (None, None)
    assert offsets(bench.queries.letters(ANY, None, 10).letters) == [3, 2, 1]
    assert bench.queries.ended_by("j-1") == 3


def test_a_few_records_leave_the_processor_to_others_now_and_then(bench: Bench) -> None:
    """What a redrive ended is taken in a few at a time, with gaps for live events between; still in order, the last
    word about a letter counts."""
    bench.take_in([entry(n) for n in range(100)])
    begin = time.monotonic()
    bench.take_in([], [ending(n) for n in range(100)] + [ending(n, LetterState.DISCARDED) for n in range(25)])
    assert time.monotonic() - begin >= 4 * 0.003
    (topic,) = bench.queries.topics(0.0)
    assert topic.open == 0
    letters = [bench.queries.letter(Coordinates(TOPIC, 0, n)) for n in (0, 24, 25, 99)]
    assert [letter and letter.state.value for letter in letters] == ["discarded"] * 2 + ["redriven"] * 2


def test_the_overview_counts_the_open_ones(bench: Bench) -> None:
    """O1: per topic and class: count, oldest, newest, and how many came in the last five minutes."""
    late = 1_767_400_000.0
    bench.take_in(
        [entry(n) for n in range(5)]
        + [entry(n, failed_at=late, error_class="auth_error") for n in range(5, 10)]
        + [entry(0, topic="shop.other.dlq", failed_at=late - 1)],
        [ending(0)],
    )
    first, second = bench.queries.topics(late + 60)
    assert (first.topic, first.open, first.redriven) == (TOPIC, 9, 1)
    assert first.by_class == {"validation_error": 4, "auth_error": 5}
    assert (first.oldest_at, first.newest_at) == (1_767_323_001.0, late)
    assert first.per_minute == 1.0
    assert (second.topic, second.open) == ("shop.other.dlq", 1)


def test_groups_are_failures_of_one_kind(bench: Bench) -> None:
    """O1: by fingerprint, those with most letters first, with the tenants hit most; ended ones are not counted."""
    tenants = [f"t{n % 12}" for n in range(30)]
    bench.take_in([entry(n, tenant=tenant) for n, tenant in enumerate(tenants)] + [entry(30, tenant="t0")])
    bench.take_in([entry(n, fingerprint="a" * 16, message="other", tenant="") for n in range(40, 45)])
    bench.take_in([], [ending(30), ending(44)])
    first, second = bench.queries.groups(Selection()).largest
    assert (first.count, first.tenant_count, len(first.tenants)) == (30, 12, 10)
    assert first.tenants[:3] == ("t0", "t1", "t2")
    assert (first.first_at, first.last_at) == (1_767_323_000.0, 1_767_323_029.0)
    assert (second.count, second.message, second.tenants) == (4, "other", ("",))
    assert second.last_at == 1_767_323_043.0
    (other,) = bench.queries.groups(Selection(state=LetterState.REDRIVEN, fingerprint="a" * 16)).largest
    assert (other.count, other.first_at) == (1, 1_767_323_044.0)


def test_a_list_of_kinds_that_ends_early_says_so(bench: Bench) -> None:
    """O1: of more than a thousand kinds those with most letters are listed; how many kinds there are, and how many
    letters all have, is told of all of them."""
    bench.take_in([entry(n, fingerprint=f"{n % 1_003:016x}") for n in range(1_503)])
    found = bench.queries.groups(Selection())
    assert (found.count, found.kinds, len(found.largest)) == (1_503, 1_003, 1_000)
    assert [group.count for group in found.largest] == [2] * 500 + [1] * 500
    preview = bench.queries.preview(Selection(), 3)
    assert (preview.count, preview.kinds, len(preview.groups)) == (1_503, 1_003, 20)
    nothing = bench.queries.groups(Selection(tenant="nobody"))
    assert (nothing.count, nothing.kinds, nothing.largest) == (0, 0, [])


def _random_letters(count: int) -> list[dict[str, object]]:
    chance = random.Random(7)
    return [
        {
            "topic": chance.choice(["a.dlq", "b.dlq"]),
            "partition": number % 3,
            "offset": number // 3,
            "fingerprint": chance.choice("xyz") * 16,
            "tenant": chance.choice(["", "t1", "t2", *(f"rare-{n}" for n in range(200))]),
            "error_class": chance.choice(["validation_error", "auth_error"]),
            "definition": chance.choice(["one", "two"]),
            "failed_at": 1_000.0 + chance.randrange(60),
            "state": chance.choice([LetterState.OPEN, LetterState.OPEN, LetterState.REDRIVEN]),
        }
        for number in range(count)
    ]


def _is_meant(letter: dict[str, object], selection: Selection) -> bool:
    exact = ("topic", "partition", "fingerprint", "tenant", "error_class", "definition", "state")
    if any(getattr(selection, name) not in {None, letter[name]} for name in exact):
        return False
    failed_at, offset = letter["failed_at"], letter["offset"]
    assert isinstance(failed_at, float)
    assert isinstance(offset, int)
    return (
        (selection.since_at is None or failed_at >= selection.since_at)
        and (selection.until_at is None or failed_at < selection.until_at)
        and (selection.first_offset is None or offset >= selection.first_offset)
        and (selection.last_offset is None or offset <= selection.last_offset)
    )


def _selections() -> Iterator[Selection]:
    chance = random.Random(3)
    for _ in range(150):
        topic = chance.choice([None, "a.dlq"])
        partition = chance.choice([None, 1]) if topic else None
        yield Selection(
            topic=topic,
            partition=partition,
            first_offset=chance.choice([None, 20]) if partition is not None else None,
            last_offset=chance.choice([None, 120]) if partition is not None else None,
            fingerprint=chance.choice([None, None, "x" * 16]),
            tenant=chance.choice([None, None, "", "t1", "rare-3"]),
            error_class=chance.choice([None, "auth_error"]),
            definition=chance.choice([None, "one"]),
            since_at=chance.choice([None, None, 1_010.0]),
            until_at=chance.choice([None, None, 1_040.0]),
            state=chance.choice([None, LetterState.OPEN, LetterState.REDRIVEN]),
        )


def test_every_combination_of_conditions(bench: Bench) -> None:
    """O1, O2: whichever conditions are combined, list, groups, preview and the order of a redrive mean the same
    letters as a plain look at each of them; pages neither lose nor repeat one, also among equal times."""
    letters = _random_letters(900)
    values = [entry(0, **{n: v for n, v in letter.items() if n != "state"}) for letter in letters]
    endings = [
        ending(
            int(str(letter["offset"])), partition=int(str(letter["partition"])), topic=str(letter["topic"])
        )
        for letter in letters
        if letter["state"] is LetterState.REDRIVEN
    ]
    bench.take_in(values, endings)
    for selection in _selections():
        meant = {
            (letter["topic"], letter["partition"], letter["offset"])
            for letter in letters
            if _is_meant(letter, selection)
        }
        found: list[Letter] = []
        cursor: str | None = ""
        while cursor is not None:
            page = bench.queries.letters(selection, cursor, 17)
            found += page.letters
            cursor = page.cursor
        places = [(one.topic, one.partition, one.offset) for one in found]
        assert (set(places), len(places)) == (meant, len(meant)), selection
        assert [one.failed_at for one in found] == sorted((one.failed_at for one in found), reverse=True)
        assert bench.queries.groups(selection).count == len(meant), selection
        preview = bench.queries.preview(selection, 3)
        assert preview.count == len(meant), selection
        assert sum(bar.count for bar in preview.histogram) == len(meant), selection
        staged: list[Letter] = []
        after: Coordinates | None = None
        while more := bench.queries.in_staged_order(selection, after, 13):
            staged += more
            after = Coordinates(more[-1].topic, more[-1].partition, more[-1].offset)
        places = [(one.topic, one.partition, one.offset) for one in staged]
        assert (set(places), len(places)) == (meant, len(meant)), selection


def test_the_order_of_a_redrive_is_that_of_staging(bench: Bench) -> None:
    """Q3: what was staged first is redriven first, wherever it lies among the dead letters; where it came from is
    not known, the order of its topic."""
    sources = [(0, 9), (0, 3), (1, 1), (0, 5), (-1, -1), (-1, -1)]
    bench.take_in(
        [
            entry(at, source_partition=partition, source_offset=offset)
            for at, (partition, offset) in enumerate(sources)
        ]
    )
    assert offsets(bench.queries.in_staged_order(Selection(), None, 10)) == [4, 5, 1, 3, 0, 2]


@pytest.mark.parametrize("topic", [TOPIC, None])
def test_a_redrive_far_into_its_letters_reads_none_of_them_again(bench: Bench, topic: str | None) -> None:
    """Q5: the next letters of a job cost the same at its beginning and behind thousands; a letter that is not known
    any more costs nothing but a look from the beginning."""
    bench.take_in([entry(at, source_partition=at % 3, source_offset=at) for at in range(6_000)])
    selection = Selection(topic=topic)

    def steps(after: Coordinates | None) -> int:
        """How much SQLite works for it, in hundreds of its instructions."""
        counted: list[None] = []
        bench.queries.in_staged_order(selection, after, 1)  # connects
        connection = bench.queries._connection
        assert connection is not None
        connection.set_progress_handler(lambda: counted.append(None), 100)
        assert len(bench.queries.in_staged_order(selection, after, 20)) == 20
        connection.set_progress_handler(None, 0)
        return len(counted)

    assert steps(Coordinates(TOPIC, 0, 5_900)) <= 2 * steps(None)
    assert offsets(bench.queries.in_staged_order(selection, Coordinates(TOPIC, 0, 9_999), 2)) == [0, 3]


def test_a_redrive_goes_on_behind_a_letter_that_was_forgotten(bench: Bench) -> None:
    """Q5: where the last letters of a running job are deleted from their topic meanwhile, it goes on behind them; it
    would redrive again those of which the index has not heard yet, and count again what it has passed over."""
    places = [(at, 59 - at) for at in range(60)]  # the last on its topic was staged first
    bench.take_in([entry(at, source_offset=source) for at, source in places])
    bench.take_in([entry(at, topic="a.dlq", source_offset=at) for at in range(5)])
    for selection in (Selection(topic=TOPIC), Selection()):
        first = bench.queries.in_staged_order(selection, None, 30)
        last = first[-1]
        bench.store.forget({(last.topic, 0): last.offset + 1}, 1_000)
        assert bench.queries.letter(Coordinates(last.topic, 0, last.offset)) is None
        after: Coordinates | None = Coordinates(last.topic, 0, last.offset)
        assert not set(first) & set(bench.queries.in_staged_order(selection, after, 100))
    met = 0
    for _ in range(200):  # also where many lists were asked for: what is kept of them is bounded
        met += len(bench.queries.in_staged_order(Selection(topic=TOPIC), None, 1 + met % 20))
    assert len(bench.queries._last) <= 64


def test_what_is_gone_from_its_topic_is_forgotten(bench: Bench) -> None:
    """O1, Q5: letters before the first offset of their partition are in no count, group or list any more, whatever
    became of them; others stay, also at the same offsets of other partitions and topics. A topic without letters is
    no topic. How many letters a job has ended is known all the same."""
    bench.take_in([entry(at) for at in range(10)] + [entry(at, partition=1, tenant="b") for at in range(10)])
    bench.take_in([entry(3, topic="shop.other.dlq", fingerprint="a" * 16)])
    bench.take_in([], [ending(0), ending(1, LetterState.DISCARDED), ending(8), ending(1, partition=1)])
    bench.take_in([], [ending(2, partition=5)])  # of a letter that is not known yet
    assert bench.store.topics() == [TOPIC, "shop.other.dlq"]

    assert bench.store.forget({(TOPIC, 0): 0, (TOPIC, 9): 5, ("none.dlq", 0): 5}, 100) == 0
    assert bench.store.forget({(TOPIC, 0): 4}, 100) == 6  # two endings
    assert bench.store.forget({(TOPIC, 0): 4}, 100) == 0
    (other, topic) = sorted(bench.queries.topics(0.0), key=lambda one: one.open)
    assert (topic.open, topic.redriven, topic.discarded, other.open) == (5 + 9, 1 + 1, 0, 1)
    assert offsets(
        bench.queries.letters(Selection(topic=TOPIC, partition=0, state=None), None, 50).letters
    ) == [*(9, 8, 7, 6, 5, 4)]
    assert bench.queries.letter(Coordinates(TOPIC, 0, 3)) is None
    assert bench.queries.ended_by("j-1") == 5

    assert bench.store.forget({(TOPIC, 1): 100, (TOPIC, 5): 100, (TOPIC, 0): 100}, 100) == 6 + 1 + 10 + 1 + 1
    assert bench.store.topics() == ["shop.other.dlq"]
    assert [one.topic for one in bench.queries.topics(0.0)] == ["shop.other.dlq"]
    assert bench.queries.groups(Selection(state=None)).count == 1
    assert bench.queries.ended_by("j-1") == 5
    for table in ("failure", "kind", "letter"):  # the disk has nothing of it either
        assert bench.store._connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)

    bench.take_in([entry(100)], [ending(100)])
    assert bench.queries.ended_by("j-1") == 6
    (group,) = bench.queries.groups(Selection(topic=TOPIC, state=None)).largest
    assert (group.count, group.tenants) == (1, ("acme",))


def test_no_more_is_forgotten_at_once_than_was_asked(bench: Bench) -> None:
    """What is read meanwhile, and pages, wait for a chunk only: of each the oldest go first, a letter never after what
    became of it, for it would be open again."""
    bench.take_in([entry(at) for at in range(30)], [ending(at) for at in range(30)])
    chunks = []
    while count := bench.store.forget({(TOPIC, 0): 20}, 8):
        chunks.append(count)
        (topic,) = bench.queries.topics(0.0)
        assert (topic.open, topic.redriven) == (0, max(10, 30 - sum(chunks)))
    assert chunks == [8, 8, 8, 8, 8]


def test_a_preview_says_what_the_loop_guard_holds_back(bench: Bench) -> None:
    """Q3: letters that were redriven as often as is allowed are counted apart."""
    bench.take_in([entry(n, redrives=n) for n in range(6)])
    preview = bench.queries.preview(Selection(), 3)
    assert (preview.count, preview.too_often) == (6, 3)
    assert (preview.oldest_at, preview.newest_at) == (1_767_323_000.0, 1_767_323_005.0)
    nobody = bench.queries.preview(Selection(tenant="nobody"), 3)
    assert nobody.oldest_at is None


def test_a_preview_says_when_the_letters_failed(bench: Bench) -> None:
    """O1: a histogram by time, of bars of equal width from the oldest to the newest, which has every letter selected;
    letters of one moment are one bar."""
    bench.take_in([entry(n) for n in (0, 1, 1 + 1, 47, 48)])
    preview = bench.queries.preview(Selection(), 3)
    first, *_, last = bars = preview.histogram
    assert (len(bars), sum(bar.count for bar in bars)) == (24, preview.count)
    assert (first.from_at, first.count, last.until_at, last.count) == (
        preview.oldest_at,
        2,
        preview.newest_at,
        2,
    )
    assert {round(bar.until_at - bar.from_at, 6) for bar in bars} == {2.0}
    one = Selection(until_at=1_767_323_000.5)
    (only,) = bench.queries.preview(one, 3).histogram
    assert only.count == 1


@pytest.mark.parametrize("cursor", ["x", "1,2", "nan?,1,2,t", "1.0,a,2,t"])
def test_a_cursor_that_is_none(bench: Bench, cursor: str) -> None:
    """O2: a cursor that no list ended with is refused, and so is a page without an end."""
    with pytest.raises(WrongSelection, match="cursor"):
        bench.queries.letters(Selection(), cursor, 10)
    with pytest.raises(WrongSelection, match="limit"):
        bench.queries.letters(Selection(), None, 1_001)


def test_records_that_are_not_ours_are_left_out(bench: Bench) -> None:
    """Whatever somebody wrote to the index topic, the letters beside it are taken in, and it is counted."""
    bad = [b"{", b"null", b"[]", b"\xff", b'{"topic": "x"}', entry(3, offset=None)]
    assert bench.take_in([entry(1), *bad[:3], entry(2), *bad[3:]], [b"x", ending(1)]) == 7
    assert offsets(bench.queries.letters(ANY, None, 10).letters) == [2, 1]
    assert bench.queries.letters(Selection(state=LetterState.REDRIVEN), None, 10).letters[0].offset == 1


def test_it_goes_on_where_it_left_off(bench: Bench) -> None:
    """The offsets read are stored with the records, so that nothing is taken in twice after a restart."""
    bench.store.take_in([entry(1)], [], {("shop.dlq.index", 2): 9})
    bench.close()
    again = Bench(bench.folder)
    try:
        assert again.store.next_offsets() == {("shop.dlq.index", 2): 9}
        assert offsets(again.queries.letters(ANY, None, 10).letters) == [1]
        again.queries.close()
        again.store.begin_anew()
        assert again.store.next_offsets() == {}
        assert not again.queries.letters(ANY, None, 10).letters
    finally:
        again.close()


def test_files_that_are_of_no_use_are_thrown_away(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The index is a copy: damaged, or written by another version, it is begun anew, with a word about it."""
    bench.take_in([entry(1)])
    bench.close()
    bench.store.path.write_bytes(b"damaged" * 1_000)
    again = Bench(tmp_path)
    try:
        assert not again.queries.letters(ANY, None, 10).letters
        assert again.take_in([entry(1)]) == 0
    finally:
        again.close()
    assert "is read anew from its topic" in caplog.text


def test_closed_under_a_statement(bench: Bench) -> None:
    """A worker that stops while records are taken in waits for that statement: it crashed the process otherwise."""
    letters = [entry(number) for number in range(20_000)]
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            store = Store(bench.folder / "other", "shop")
            taking = pool.submit(store.take_in, letters, [], {})
            while not store._lock.locked() and not taking.done():
                pass
            store.close()
            assert taking.result() == 0
            store.path.unlink()

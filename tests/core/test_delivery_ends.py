"""From a plan to the ends of its records: what is written where, and when a batch has ended (T6, Q1, Q2, Q4, D6).

The clusters here only take notes; what a broker does is said by the tests.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from aiokafka import errors as kafka_errors

from catalog import OwnTopics
from pipeline import delivery
from pipeline.clock import SYSTEM_CLOCK
from pipeline.delivery import Delivery
from pipeline.kafka.cluster import Cluster
from pipeline.kafka.lane import Parcel
from pipeline.kafka.topics import TopicSpec, TopicSpecs
from pipeline.meter import Meter
from pipeline.metrics import Metrics
from pipeline.park import NOTHING_DIVERTED, Diverted
from pipeline.parking.backlog import Stray
from pipeline.parking.parking import Parking
from pipeline.partition import key_hash
from pipeline.record import OutRecord
from pipeline.routes import Router
from pipeline.settings import Settings
from tests.core.staged_records import CATALOG, LIMITS, NAMESPACE, Staged, router, staged

TOO_LARGE = kafka_errors.MessageSizeTooLargeError("x-0")
INVALID = kafka_errors.CorruptRecordException("x-0")
OWN = OwnTopics(NAMESPACE)
SETTINGS = Settings(
    brokers=("h:1",), catalog="c", cloudevents_source="s", namespace=NAMESPACE, topic_partitions=4
)


class Notes(Cluster):
    """A cluster that notes what it is given; nothing is sent, and what goes to the index is acknowledged at once."""

    index_answers = True

    def __init__(self, **partitions: int) -> None:
        self.partitions = {name.replace("__", "."): count for name, count in partitions.items()}
        self.sent: list[tuple[str, int, Parcel]] = []
        self.indexed: list[Parcel] = []
        self.specs: list[TopicSpec] = []
        self.learning: dict[str, list[Callable[[], None]]] = {}
        self.withdrawn: set[Parcel] = set()

    def put(self, topic: str, partition: int, parcel: Parcel) -> None:
        """Note a parcel."""
        if topic != OWN.dlq_index:
            self.sent.append((topic, partition, parcel))
            return
        self.indexed.append(parcel)
        if self.index_answers:
            acked(parcel)

    def put_when_known(self, spec: TopicSpec, hashed: int, parcel: Parcel) -> None:
        """Note the topic as it would be created, and the parcel."""
        self.specs.append(spec)
        self.put(spec.name, hashed % self.partitions.setdefault(spec.name, spec.partitions), parcel)

    def learn(self, spec: TopicSpec, then: Callable[[], None]) -> None:
        """Note who waits for the topic."""
        self.learning.setdefault(spec.name, []).append(then)

    def withdraw(self, parcels: set[Parcel]) -> None:
        """Note what is taken back."""
        self.withdrawn |= parcels

    def on(self, topic: str) -> list[Parcel]:
        """The parcels for a topic."""
        return [parcel for name, _, parcel in self.sent if name == topic]


@dataclass(eq=False)
class Batch:
    """Staging records of partition 5."""

    records: Sequence[Staged]
    partition: int = 5


class Straight(Parking):
    """Diverts what is `shut`, at first nothing, and notes what it is to park."""

    def __init__(self) -> None:
        self.shut: frozenset[str] = frozenset()
        self.parked: list[tuple[str, Stray]] = []  # type: ignore[assignment]

    def diverted(self, number: int) -> Diverted:  # noqa: ARG002
        """What is shut."""
        return NOTHING_DIVERTED._replace(targets=self.shut)

    def full(self, number: int) -> str:  # noqa: ARG002
        """There is room."""
        return ""

    def divert(self, number: int, name: str, stray: Stray) -> Parcel | None:  # noqa: ARG002
        """Note it."""
        self.parked.append((name, stray))
        return None

    def reached(self, target: str, count: int) -> None:
        """It is nothing to nobody."""


class Bench:
    """A delivery between two noting clusters, and how often its batches have ended."""

    def __init__(self, targets: Notes | None = None, using: Router | None = None) -> None:
        self.targets = targets or Notes(**dict.fromkeys((t.replace(".", "__") for t in CATALOG.topics), 7))
        self.own = Notes(shop__staging=6)
        self.parking = Straight()
        self.ended = 0
        self.metrics = Metrics()
        self.delivery = Delivery(
            using or router(),
            LIMITS,
            targets=self.targets,
            own=self.own,
            topics=OWN,
            specs=TopicSpecs(SETTINGS),
            parking=self.parking,
            clock=SYSTEM_CLOCK,
            producer_id="w/1",
            meter=Meter(self.metrics, SYSTEM_CLOCK),
        )

    def deliver(self, *records: Staged) -> Batch:
        """Deliver a batch."""
        batch = Batch(records)
        assert not self.delivery.deliver(batch, self._end)
        return batch

    def _end(self) -> None:
        self.ended += 1


def acked(parcel: Parcel) -> None:
    """Every record of the parcel is on its topic."""
    parcel.acked(0, len(parcel.records), 0)


def plain(parcel: Parcel) -> list[OutRecord]:
    """The parcel's records, none of them packed."""
    records = [record for record in parcel.records if not isinstance(record, bytes)]
    assert len(records) == len(parcel.records)
    return records


def header(parcel: Parcel, name: str) -> str:
    """A header of the parcel's one record."""
    ((_, _, headers),) = plain(parcel)
    return (dict(headers)[name] or b"").decode()


POISON = staged({"time": b"never"})


def test_a_batch_ends_with_its_last_record() -> None:
    """T6: the end is told once, when every record has been acknowledged, on the target or as a dead letter."""
    bench = Bench()
    bench.deliver(staged({"tenant": b"a"}), POISON, staged({"tenant": b"b"}), staged({"tenant": b"a"}))
    first, second = bench.targets.on("shop.order.created")
    (letter,) = bench.own.on("shop.order.created.dlq")
    second.acked(0, 1, 0)
    acked(letter)
    assert bench.ended == 0
    first.acked(0, 2, 0)
    assert bench.ended == 1


def test_unknown_topics_write_nothing() -> None:
    """T6: while a partition count is missing the whole batch waits, dead letters too, so that nothing comes twice."""
    bench = Bench(Notes(shop__order__created=7))
    records = [POISON, staged(), staged({"definition": b"order.created@2"})]
    hold = bench.delivery.deliver(Batch(records), pytest.fail)
    assert hold is not None
    assert hold.topics == {"shop.order.created.v2"}
    assert not bench.targets.sent
    assert not bench.own.sent


def test_where_dead_letters_go() -> None:
    """Q1: to `<target>.dlq` with the target's partition count, by the record's own key; without a target to
    `<ns>.staging.dlq`, with staging's; without a key by the staging partition."""
    bench = Bench()
    bench.deliver(POISON, staged({"definition": b"no.such"}, key=None))
    (topic, partition, letter), (lost_topic, lost_partition, lost) = bench.own.sent
    assert (topic, partition) == ("shop.order.created.dlq", key_hash(b"any") % 7)
    assert (lost_topic, lost_partition) == ("shop.staging.dlq", 5)
    assert header(letter, "dlq-source-topic") == "shop.order.created"
    assert header(lost, "dlq-source-topic") == "shop.staging"
    assert [(spec.name, spec.partitions) for spec in bench.own.specs] == [(topic, 7), (lost_topic, 6)]
    assert all(spec.config["retention.ms"] == "-1" for spec in bench.own.specs)
    assert {header(letter, "dlq-staging-partition"), header(letter, "dlq-staging-offset")} == {"5", "0"}


def test_a_dead_letter_topic_waits_for_its_targets_count() -> None:
    """Q1: a target of which no record was ever delivered: its batch waits until its count is learnt, before its
    dead-letter topic is made."""
    bench = Bench(Notes())
    hold = bench.delivery.deliver(Batch([POISON]), pytest.fail)
    assert hold is not None
    assert hold.topics == {"shop.order.created"}
    assert not bench.own.sent
    bench.targets.partitions["shop.order.created"] = 3
    bench.deliver(POISON)
    assert bench.own.specs[0].partitions == 3
    acked(bench.own.on("shop.order.created.dlq")[0])
    assert bench.ended == 1


def test_poison_is_parked_where_its_dead_letter_topic_cannot_be_made() -> None:
    """C3, Q1: while the cluster of the targets is lost, a count that nobody knows stops no partition: the poison is
    parked among the events of its target, in order."""
    bench = Bench(Notes())
    bench.parking.shut = frozenset({"shop.order.created"})
    bench.deliver(staged(), POISON, staged())
    ((name, stray),) = bench.parking.parked
    assert name == "shop.order.created"
    assert stray.records == [staged(), POISON, staged()]
    assert not bench.own.sent
    assert not bench.targets.learning
    stray.ended(3)
    assert bench.ended == 1


def test_what_is_drained_waits_for_its_targets_count() -> None:
    """Q1: the same for what was parked as unknown and turns out to be poison: it waits, and holds nobody up."""
    bench = Bench(Notes())
    ticket = bench.delivery.begin(Batch([POISON]), bench._end)
    bench.delivery.write(ticket, bench.delivery.plan([POISON], NOTHING_DIVERTED))
    assert not bench.own.sent
    bench.targets.partitions["shop.order.created"] = 3
    (then,) = bench.targets.learning["shop.order.created"]
    then()
    assert bench.own.specs[0].partitions == 3
    acked(bench.own.on("shop.order.created.dlq")[0])
    assert bench.ended == 1


def test_a_known_dead_letter_topic_waits_for_nothing() -> None:
    """C3: poison goes to its dead-letter topic at once, also while the target's cluster cannot be asked."""
    bench = Bench(Notes())
    bench.own.partitions["shop.order.created.dlq"] = 2
    bench.deliver(POISON)
    assert len(bench.own.on("shop.order.created.dlq")) == 1


def test_a_dead_letter_ends_in_the_index() -> None:
    """T6, O1: a dead letter is the end of its record once the index knows it, by the place the broker gave it; the
    index has what an operator looks for, and nothing of the payload."""
    bench = Bench()
    bench.own.index_answers = False
    bench.deliver(
        staged({"tenant": b"a", "id": b"i-1", "time": b"never"}, value=b'"hunter2"', offset=77, key=b"a")
    )
    (letter,) = bench.own.on("shop.order.created.dlq")
    letter.acked(0, 1, 1_234)
    assert bench.ended == 0
    (entry,) = bench.own.indexed
    ((key, value, _),) = plain(entry)
    partition = key_hash(b"a") % 7
    assert key == b"shop.order.created.dlq/%d/1234" % partition
    found = json.loads(value or b"")
    assert found.pop("failed_at") == pytest.approx(found.pop("first_failure_at"), abs=60)
    assert re.fullmatch("[0-9a-f]{16}", found.pop("fingerprint"))
    assert found.pop("size") > 400
    assert found == {
        "topic": "shop.order.created.dlq",
        "partition": partition,
        "offset": 1234,
        "class": "validation_error",
        "message": "stage-time is not an RFC # timestamp with an offset in # bytes",
        "definition": "order.created",
        "schema_version": "1.0.0",
        "disposition": "poison",
        "tenant": "a",
        "id": "i-1",
        "source": "//shop/web",
        "redrives": 0,
        "dialect": "stagepost",
        "source_topic": "shop.order.created",
        "source_partition": 5,
        "source_offset": 77,
    }
    acked(entry)
    assert bench.ended == 1


def test_a_dead_letter_without_a_place(caplog: pytest.LogCaptureFixture) -> None:
    """T6: where the broker does not tell its offset, the record has ended all the same, and the log says how the
    index gets to know it."""
    bench = Bench()
    bench.deliver(POISON)
    bench.own.on("shop.order.created.dlq")[0].acked(0, 1, -1)
    assert bench.ended == 1
    assert not bench.own.indexed
    assert "delivery.not_indexed topic=shop.order.created.dlq" in caplog.text


def test_refused_by_the_target() -> None:
    """C3, Q2: a record the broker refuses for its content is dead-lettered with its CloudEvents headers behind the
    originals, and no header twice; its neighbours stay delivered."""
    bench = Bench()
    trace = ("traceparent", b"00-1")
    bench.deliver(staged({"tenant": b"a"}), staged({"tenant": b"a", "id": b"bad"}, more=[trace]))
    (column,) = bench.targets.on("shop.order.created")
    column.acked(0, 1, 0)
    column.refused(1, TOO_LARGE)
    (letter,) = bench.own.on("shop.order.created.dlq")
    ((key, value, headers),) = plain(letter)
    assert (key, value) == (b"any", b"{}")
    names = [name for name, _ in headers]
    framed = [name for name in names if name.startswith("ce_") or name == "content-type"]
    assert names[: names.index("traceparent") + 1] == [
        *[n for n in names if n.startswith("stage-")],
        "traceparent",
    ]
    assert names[6 + 1 : 6 + 1 + len(framed)] == framed
    assert {"ce_id", "ce_tenantid", "content-type"} <= set(framed)
    assert len(set(names)) == len(names)
    assert header(letter, "dlq-error-class") == "serialization_error"
    assert "refused by the broker" in header(letter, "dlq-error-message")
    acked(letter)
    assert bench.ended == 1


def test_a_dead_letter_says_how_often_its_record_was_sent_again() -> None:
    """Q2: `dlq-retry-count` is 0 for what was never sent, else how often a batch with the record was sent again."""
    bench = Bench()
    bench.deliver(POISON, staged())
    (column,) = bench.targets.on("shop.order.created")
    column.retries = 3
    column.refused(0, TOO_LARGE)
    assert [header(letter, "dlq-retry-count") for letter in bench.own.on("shop.order.created.dlq")] == [
        "0",
        "3",
    ]


def test_a_skip_is_audited() -> None:
    """D6, T6: under `dlq=never` poison ends as a record in `<ns>.audit` with id, coordinates and reason, also when
    it is the broker that refuses it; nothing of its payload is in there."""
    bench = Bench(using=router(policies="order.created.dlq=never"))
    bench.deliver(
        staged({"time": b"never", "id": b"i\xff"}, value=b'"hunter2"'), staged({"id": b"2"}, offset=8)
    )
    bench.targets.on("shop.order.created")[0].refused(0, TOO_LARGE)
    unread, refused = bench.own.on("shop.audit")
    ((key, value, _),) = plain(unread)
    entry = json.loads(value or b"")
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "action": "skipped",
        "id": "i\ufffd",
        "definition": "order.created",
        "topic": "shop.staging",
        "partition": 5,
        "offset": 0,
        "error_class": "validation_error",
        "reason": "stage-time is not an RFC 3339 timestamp with an offset in 64 bytes",
        "by": "w/1",
    }
    assert key == b"shop.staging/5/0"
    assert json.loads(plain(refused)[0][1] or b"")["offset"] == 8
    assert not bench.own.on("shop.order.created.dlq")
    acked(unread)
    assert bench.ended == 0
    acked(refused)
    assert bench.ended == 1


def test_an_audit_record_is_small_and_clean() -> None:
    """T6: whatever the skipped record holds, its audit record fits, and shows no credentials."""
    bench = Bench(using=router(policies="payout.sent.dlq=never"))
    monster = staged({"definition": b"hint.given", "id": b"\x00" * 900_000}, key=b"k" * 900_000)
    secret = staged({"definition": b"payout.sent", "source": b"https://user:hunter2@example.com"})
    bench.deliver(monster, secret)
    entries = bench.own.on("shop.audit")
    assert all(len(part or b"") < 4_096 for parcel in entries for part in plain(parcel)[0][:2])
    reason = json.loads(plain(entries[1])[0][1] or b"")["reason"]
    assert reason.startswith("stage-source 'https://***@example.com' may not stage")


def test_a_dead_letter_topic_that_is_too_small() -> None:
    """Q2: the payload is left out, and its size told; the rest is as it was."""
    bench = Bench()
    bench.deliver(POISON)
    (letter,) = bench.own.on("shop.order.created.dlq")
    letter.refused(0, TOO_LARGE)
    _, smaller = bench.own.on("shop.order.created.dlq")
    ((_, _, headers),) = plain(letter)
    assert smaller.records == (
        (b"any", None, [*headers, ("dlq-payload-omitted", b"true"), ("dlq-payload-bytes", b"2")]),
    )
    acked(smaller)
    assert bench.ended == 1


async def _later(bench: Bench, count: int) -> Parcel:
    async with asyncio.timeout(5):
        while len(bench.own.sent) < count:  # noqa: ASYNC110 -- it is the loop's timer that is waited for
            await asyncio.sleep(0.001)
    return bench.own.sent[-1][2]


async def test_a_dead_letter_that_is_refused_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q4: refused even without its payload, it is not dropped: it is tried again, whole, until it is taken; the
    batch does not end before."""
    monkeypatch.setattr(delivery, "_RETRY_S", 0.01)
    bench = Bench()
    bench.deliver(POISON)
    whole = bench.own.sent[0][2].records
    bench.own.sent[0][2].refused(0, TOO_LARGE)
    bench.own.sent[1][2].refused(0, TOO_LARGE)
    again = await _later(bench, 3)
    assert again.records == whole
    assert bench.ended == 0
    acked(again)
    assert bench.ended == 1


async def test_many_that_are_refused_say_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Q4: each of them is tried again, in order; the log names the topic once for each round, not once for each."""
    monkeypatch.setattr(delivery, "_RETRY_S", 0.01)
    bench = Bench()
    bench.deliver(*(staged({"time": b"never", "id": b"%d" % number}, offset=number) for number in range(5)))
    first = [parcel for _, _, parcel in bench.own.sent]
    for parcel in first:
        parcel.refused(0, INVALID)
    await _later(bench, 10)
    assert [parcel.records for _, _, parcel in bench.own.sent[5:]] == [parcel.records for parcel in first]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "delivery.not_kept topic=shop.order.created.dlq" in caplog.text


@pytest.mark.parametrize("definition", [b"order.created", b"hint.given"])
async def test_only_size_costs_the_payload(monkeypatch: pytest.MonkeyPatch, definition: bytes) -> None:
    """Q2, Q4: refused for anything else, a dead letter keeps its payload; an audit record keeps its value always."""
    monkeypatch.setattr(delivery, "_RETRY_S", 0.01)
    error = INVALID if definition == b"order.created" else TOO_LARGE
    bench = Bench()
    bench.deliver(staged({"definition": definition, "time": b"never"}))
    kept = bench.own.sent[0][2]
    kept.refused(0, error)
    assert len(bench.own.sent) == 1
    assert (await _later(bench, 2)).records == kept.records


async def test_an_abandoned_batch_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5: what belongs to somebody else is taken back, never ends here, and its dead letters are tried no more."""
    monkeypatch.setattr(delivery, "_RETRY_S", 0.01)
    bench = Bench()
    mine, lost = bench.deliver(staged()), bench.deliver(staged(), POISON)
    dead = bench.own.sent[0][2]
    dead.refused(0, INVALID)
    bench.delivery.abandon([lost])
    columns = bench.targets.on("shop.order.created")
    assert columns[1] in bench.targets.withdrawn
    assert dead in bench.own.withdrawn
    assert columns[0] not in bench.targets.withdrawn | bench.own.withdrawn
    await asyncio.sleep(0.05)  # the time in which a retry would come
    assert len(bench.own.sent) == 1
    for column in columns:
        acked(column)
    assert bench.ended == 1
    bench.delivery.abandon([mine])  # ended long ago: nothing happens

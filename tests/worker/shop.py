"""What is staged for the shop's worker, good and bad, and what is read back of it.

Everything is staged before the first test, some of it before the worker's first start; the worker has committed it
all when a test begins.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache

from pipeline import Settings, Stager
from pipeline.record import RawHeader
from tests.kafka_client import (
    OutRecord,
    Record,
    create_topic,
    produce,
    read_all,
)
from tests.worker.shop_records import (
    CATALOG,
    produce_in_transaction,
    produce_raw,
    staged,
    wait_committed,
)
from tests.worker_harness import WorkerProcess

TENANT = "café".encode()
TRACE = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
HOSTILE: list[RawHeader] = [(b"\xff\xfename".decode(errors="surrogateescape"), b"\x00")]
NOISE = os.urandom(5_000)  # does not compress, so that a broker's limit counts every byte

HAPPY = [
    staged(
        "full",
        {"definition": b"order.created@2", "tenant": TENANT, "subject": b"order-7"},
        more=[TRACE, ("x", b"1"), ("y", b"\xff"), ("x", b"2")],
        value=b'{"a":  1}',
    ),
    staged("system", {"definition": b"clock.ticked", "tenant": b"acme"}),
    staged("subject", {"subject": b"s-1"}),
    staged("bare"),
    staged("tombstone", value=None),
    staged("bytes", {"definition": b"report.made"}, value=b"\x00\xff"),
]
POISON = [
    staged("no-time", without="time", value=b"\x00\xff", more=[("x", b"1"), ("x", b"2")]),
    staged("source", {"definition": b"payout.sent"}),
    staged("body", {"definition": b"order.paid"}, value=b'{"cents": "hunter2"}'),
    staged("not-json", value=b"{"),
    staged("large", value=b'"' + b"x" * 999_999 + b'"'),
    staged("refused", {"definition": b"report.made", "tenant": b"t"}, value=NOISE, more=[TRACE]),
    staged("unknown", {"definition": b"no.such"}),
    staged("version", {"version": b"9"}),
    staged("off", {"definition": b"payout.sent", "source": b"//bank/payouts"}),
    staged("fat", {"definition": b"fax.sent"}, value=NOISE),
]
SKIPPED = [
    staged("skipped", {"definition": b"hint.given"}, value=b"{"),
    staged("call", {"policy": b"dlq=never"}, value=b"{"),
]
EARLY = [
    staged(
        f"early-{number}",
        {"tenant": b"early", "definition": (b"order.created", b"order.created@2")[number % 2]},
        value=b"%d" % number,
    )
    for number in range(1_500)
]
SEQUENCE = [
    staged(f"seq-{number:03}", {"tenant": b"seq"}, value=b"{" if number % 10 == 7 else b"%d" % number)
    for number in range(200)
]


class Shop:
    """A worker that has ended everything staged above, and what is on its topics."""

    def __init__(self, bootstrap: str, namespace: str, worker: WorkerProcess) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.worker = worker
        self.at: dict[str, tuple[int, int]] = {}
        self.read = cache(self._read)

    def topic(self, name: str) -> str:
        """A topic's full name."""
        return f"{self.namespace}.{name}"

    def stage(self, records: Sequence[OutRecord]) -> list[tuple[int, int]]:
        """Write staging records and note their places by event id."""
        places = produce(self.bootstrap, self.topic("staging"), records)
        for record, place in zip(records, places, strict=True):
            self.at[dict(record.headers)["stage-id"].decode()] = place
        return places

    def one(self, topic: str, event_id: str) -> Record:
        """The one record of this event on a topic, delivered or dead."""
        names = ("ce_id", "stage-id")
        (found,) = [
            r for r in self.read(topic) if event_id.encode() in {r.header.get(name) for name in names}
        ]
        return found

    def _read(self, name: str) -> list[Record]:
        return read_all(self.bootstrap, self.topic(name))


async def _stage_with_the_client(settings: Settings) -> list[tuple[int, int]]:
    async with Stager(settings) as stager:
        done = await asyncio.gather(
            *(
                stager.stage(
                    "order.paid",
                    {"cents": n},
                    id=f"ours-{n}",
                    tenant="ours",
                    time=datetime(2026, 1, n, tzinfo=UTC),
                )
                for n in range(1, 9)
            )
        )
    return [(staged.partition or 0, staged.offset or 0) for staged in done]


@contextmanager
def running_shop(bootstrap: str) -> Iterator[Shop]:
    """The worker, with some topics made beforehand, after everything was staged and has ended."""
    namespace = f"t{os.urandom(4).hex()}"
    create_topic(bootstrap, f"{namespace}.staging", 6)
    create_topic(bootstrap, f"{namespace}.report.made", 3, {"max.message.bytes": "2000"})
    create_topic(bootstrap, f"{namespace}.payout.sent", 2)
    create_topic(bootstrap, f"{namespace}.fax.sent.dlq", 1, {"max.message.bytes": "3000"})
    create_topic(bootstrap, f"{namespace}.parcel.lost.dlq", 1, {"max.message.bytes": "200"})
    env = {
        "STREAMING_EVENT_POLICIES": "payout.sent.enabled=false",
        "STREAMING_TYPE_PREFIX": "com.shop",
        "STREAMING_UNKNOWN_DEFINITION": "dlq",
    }
    worker = WorkerProcess(bootstrap, namespace, catalog=CATALOG, env=env)
    found = Shop(bootstrap, namespace, worker)
    places = found.stage(EARLY)
    with worker:
        worker.wait_ready()
        settings = Settings(
            brokers=(bootstrap,),
            catalog=CATALOG,
            cloudevents_source="//shop/ours",
            namespace=namespace,
            outbox_dir=str(worker.folder / "outbox"),
        )
        places += asyncio.run(_stage_with_the_client(settings))
        places += found.stage([*HAPPY, *POISON, *SKIPPED, *SEQUENCE])
        hostile: list[RawHeader] = [*staged("hostile", {"definition": b"trap.sprung"}).headers, *HOSTILE]
        nulls: list[RawHeader] = [*staged("nulls").headers, ("stage-tenant", None), ("x", None)]
        for event_id, headers in (("hostile", hostile), ("nulls", nulls)):
            place = produce_raw(bootstrap, found.topic("staging"), 0, event_id.encode(), b"{}", headers)
            found.at[event_id] = place
            places.append(place)
        for event_id, commit in (("aborted", False), ("transacted", True)):
            record = staged(event_id, {"tenant": b"seq"})
            place = produce_in_transaction(
                bootstrap, found.topic("staging"), record, namespace, commit=commit
            )
            places.append(place)
        places += found.stage([staged("behind", partition=0)])
        wait_committed(worker, bootstrap, namespace, places)
        yield found

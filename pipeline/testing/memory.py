"""`MemoryStager`: checks events as the real stager does and keeps them for a test to look at.

Owns: the kept events, waiting for one, the assertions. Must not know: pytest, Kafka clients.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime

from catalog import Catalog, OwnTopics
from catalog.policies import Outbox
from pipeline import staging
from pipeline.client.event import Event, EventChecker, encode
from pipeline.client.stager import Stager, load_catalog
from pipeline.clock import SYSTEM_CLOCK, Clock
from pipeline.errors import StagerClosed
from pipeline.outbox.row import decode as decode_row
from pipeline.partition import partition_of
from pipeline.settings import Settings
from pipeline.staging import check_extra_headers
from pipeline.testing.event import ANY, StagedEvent, decoded, differences, kept, shown
from pipeline.types import ExtraHeaders, Health, Payload, PolicyArgument, Prepared, Staged

__all__ = ["MemoryStager"]

Wanted = str | Callable[[StagedEvent], bool]
"""A definition's key, or a predicate."""


class MemoryStager(Stager):
    """A stager for tests: refuses what the real one refuses (S4), keeps the rest in memory.

    Works without being started, from any thread and any event loop. An event under `outbox=always` comes back
    with `via="outbox"`, every other with `via="topic"` and the partition it would have.
    """

    def __init__(
        self, settings: Settings, *, catalog: Catalog | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Load the catalog of the settings, unless one is given. Raises `CatalogError`."""
        super().__init__(settings, catalog=catalog, clock=clock)
        self._catalog = catalog or load_catalog(settings)
        self._checker = EventChecker(self._catalog, settings, clock)
        self._topic = OwnTopics(settings.namespace).staging
        self._lock = threading.Lock()
        self._events: list[StagedEvent] = []
        self._offsets: defaultdict[int, int] = defaultdict(int)
        self._sequence = 0
        self._error: Exception | None = None
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    # --- what the code under test calls

    async def stage(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        policy: PolicyArgument = None,
        headers: ExtraHeaders | None = None,
    ) -> Staged:
        """Check the event and keep it. Does not block."""
        return self.stage_blocking(
            key, payload, tenant=tenant, subject=subject, id=id, time=time, policy=policy, headers=headers
        )

    def stage_blocking(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        policy: PolicyArgument = None,
        headers: ExtraHeaders | None = None,
    ) -> Staged:
        """The same."""
        if self._closed:
            raise StagerClosed
        event = self._checker.check(
            key, payload, tenant=tenant, subject=subject, id=id, time=time, policy=policy, headers=headers
        )
        return self._keep(event, event.policy.outbox)

    def prepare(
        self,
        key: str,
        payload: Payload,
        *,
        tenant: str | None = None,
        subject: str | None = None,
        id: str | None = None,  # noqa: A002 -- the CloudEvents name
        time: datetime | None = None,
        headers: ExtraHeaders | None = None,
    ) -> Prepared:
        """Check the event and give its row; it counts as staged once it is relayed."""
        if self._closed:
            raise StagerClosed
        event = self._checker.check(
            key, payload, tenant=tenant, subject=subject, id=id, time=time, headers=headers
        )
        return Prepared(event.id, event.row())

    async def relay(self, row: bytes) -> Staged:
        """Keep the event of a row. Raises `BadRow`."""
        if self._closed:
            raise StagerClosed
        decoded_row = decode_row(row)
        headers = dict(decoded_row.headers)
        definition = self._catalog.require(headers[staging.DEFINITION].decode())
        tenant = headers.get(staging.TENANT, b"").decode() or None
        policy = self._catalog.policy(definition.key)
        event = Event(
            decoded_row.id,
            decoded_row.key,
            decoded_row.packed,
            policy,
            definition,
            tenant,
        )
        return self._keep(event, "never")

    async def health(self) -> Health:
        """Down while it is told to fail and once it is closed, else healthy."""
        if self._closed:
            return Health("down", str(StagerClosed()))
        return Health("healthy") if self._error is None else Health("down", str(self._error))

    # --- what the test calls

    @property
    def events(self) -> tuple[StagedEvent, ...]:
        """The events staged so far, in the order of staging; what is staged later does not change it."""
        with self._lock:
            return tuple(self._events)

    def fail_with(self, error: Exception | None) -> None:
        """Let every call from now on that passes the checks raise `error` and keep nothing; None: succeed again."""
        self._error = error

    def clear(self) -> None:
        """Forget the events staged so far."""
        with self._lock:
            self._events.clear()

    def assert_staged(
        self,
        key: str,
        *,
        payload: Payload = ANY,
        tenant: object = ANY,
        subject: object = ANY,
        id: object = ANY,  # noqa: A002 -- the CloudEvents name
        time: object = ANY,
        headers: ExtraHeaders | object = ANY,
    ) -> StagedEvent:
        """The first event of that key whose named fields are as given. Raises `AssertionError` without one.

        `payload` is compared as a consumer would see it, so that a model equals its JSON.
        """
        __tracebackhide__ = True
        definition = self._catalog.require(key)
        if payload is not ANY:
            payload = decoded(encode(definition, payload)[0], is_json=definition.is_json)
        if headers is not ANY:
            pairs = headers.items() if isinstance(headers, Mapping) else headers
            headers = tuple(check_extra_headers(pairs))  # type: ignore[arg-type]
        expected = {"payload": payload, "tenant": tenant, "subject": subject, "id": id, "time": time}
        expected["headers"] = headers
        events = self.events
        for event in events:
            if event.key == key and not differences(event, expected):
                return event
        given = {name: value for name, value in expected.items() if value is not ANY}
        wanted = f"event {key!r}" + (f" with {given}" if given else "")
        raise AssertionError(f"no {wanted} was staged; {_what_was_staged(events, key, expected)}")

    def assert_staged_count(self, key: str, count: int) -> None:
        """Raise `AssertionError` unless exactly `count` events of that key were staged."""
        __tracebackhide__ = True
        self._catalog.require(key)
        events = self.events
        found = sum(event.key == key for event in events)
        if found != count:
            raise AssertionError(
                f"event {key!r} was staged {found} times, not {count}; {_what_was_staged(events)}"
            )

    def assert_tenant(self, tenant: str | None) -> None:
        """Raise `AssertionError` unless events were staged and all of them are of that tenant (None: of none)."""
        __tracebackhide__ = True
        events = self.events
        if not events or any(event.tenant != tenant for event in events):
            raise AssertionError(f"not all events are of tenant {tenant!r}; {_what_was_staged(events)}")

    def assert_nothing_staged(self) -> None:
        """Raise `AssertionError` if any event was staged."""
        __tracebackhide__ = True
        events = self.events
        if events:
            raise AssertionError(f"events were staged, none was expected; {_what_was_staged(events)}")

    async def wait_for_staged(self, wanted: Wanted, timeout_s: float = 5.0) -> StagedEvent:
        """The first event of that key, or for which the predicate holds; waits for it, for at most `timeout_s`.

        Events that are already there count. Raises `AssertionError` at the limit.
        """
        __tracebackhide__ = True
        if isinstance(wanted, str):
            self._catalog.require(wanted)
        woken = asyncio.Event()
        with self._lock:
            self._waiting[woken] = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                while (found := _first(self.events, wanted)) is None:
                    await woken.wait()
                    woken.clear()
                return found
        except TimeoutError:
            what = repr(wanted) if isinstance(wanted, str) else "for which the predicate holds"
            message = f"no event {what} was staged within {timeout_s:g} s; {_what_was_staged(self.events)}"
            raise AssertionError(message) from None
        finally:
            with self._lock:
                del self._waiting[woken]

    def _keep(self, event: Event, outbox: Outbox) -> Staged:
        with self._lock:
            if self._error is not None:
                raise self._error.with_traceback(None)
            staged = self._place(event, outbox)
            self._events.append(kept(event, staged))
            waiting = list(self._waiting.items())
        for woken, loop in waiting:
            loop.call_soon_threadsafe(woken.set)
        return staged

    def _place(self, event: Event, outbox: Outbox) -> Staged:
        if outbox == "always":
            self._sequence += 1
            return Staged(event.id, "outbox", sequence=self._sequence)
        partition = partition_of(event.key, self._settings.topic_partitions)
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        return Staged(event.id, "topic", self._topic, partition, offset)


def _first(events: tuple[StagedEvent, ...], wanted: Wanted) -> StagedEvent | None:
    for event in events:
        if event.key == wanted if isinstance(wanted, str) else wanted(event):
            return event
    return None


def _what_was_staged(
    events: tuple[StagedEvent, ...], key: str = "", expected: Mapping[str, object] | None = None
) -> str:
    if not events:
        return "nothing was staged"
    lines = [f"{len(events)} {'event was' if len(events) == 1 else 'events were'} staged:"]
    for number, event in enumerate(events, 1):
        lines.append(f"  {number}. {shown(event)}")
        if event.key == key:
            lines += [f"     its {difference}" for difference in differences(event, expected or {})]
    return "\n".join(lines)

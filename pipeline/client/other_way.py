"""What a stager asks of the other way for its events, beside the direct one; and a stager that has none.

Owns: the protocol between `KafkaStager` and `Fallback`, and when a stager may do without an outbox. Must not know:
what an outbox is made of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from catalog import Catalog
from pipeline.breaker import Breaker, BreakerPolicy
from pipeline.client.call import Call, failure_of
from pipeline.client.direct import DirectPath
from pipeline.client.relay import Relay
from pipeline.errors import SettingsError
from pipeline.outbox.process import ProcessOutbox
from pipeline.outbox.protocol import Waiting
from pipeline.types import Health

__all__ = ["NoFallback", "OtherWay", "check_no_outbox_is_needed"]

_NAMED = 10


def check_no_outbox_is_needed(catalog: Catalog) -> None:
    """Raise `SettingsError` naming the definitions, if the policy of any may use an outbox."""
    policies = {definition.key: catalog.policy(definition.key) for definition in catalog}
    keys = [key for key, policy in policies.items() if policy.enabled and policy.outbox != "never"]
    if keys:
        named = ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if keys[_NAMED:] else "")
        problem = (
            "STREAMING_OUTBOX_DIR: required, a folder on a disk that outlasts the process: by their policy these "
            f"events may go to an outbox: {named}. Those that shall not need outbox=never"
        )
        raise SettingsError([problem])


class OtherWay(Protocol):
    """What a stager asks of the other way for its events."""

    exists: bool
    breaker: Breaker

    async def start(self, direct: DirectPath, relay_of: Callable[[ProcessOutbox], Relay]) -> None:
        """Begin, once the direct way is there; `relay_of` gives a relay for an outbox. Raises `OutboxUnavailable`."""
        ...

    def takes(self, call: Call) -> bool:
        """Whether the call has to go this way; if so it was taken."""
        ...

    def overdue(self, call: Call, cause: BaseException) -> None:
        """The direct way took too long for this call."""
        ...

    def gave_up(self, call: Call, cause: BaseException) -> None:
        """The direct way took too long for this call, which may go no other."""
        ...

    def failed(self, call: Call, error: BaseException) -> None:
        """There is no direct way for this call."""
        ...

    def deserted(self, call: Call) -> None:
        """The caller of this one has gone on, and it may still arrive the direct way."""
        ...

    def succeeded(self, count: int) -> None:
        """So many events went the direct way."""
        ...

    def wake(self) -> None:
        """The direct way is open."""
        ...

    async def health(self) -> Health:
        """How this way is."""
        ...

    def waiting_now(self) -> Waiting | None:
        """What waits here; None where nothing can, or it does not answer at once. May block for a moment."""
        ...

    async def drained(self) -> None:
        """Wait, without limit, until nothing waits here."""
        ...

    async def settle(self) -> None:
        """Begin nothing more, and wait, for no longer than a call waits, for what is under way."""
        ...

    async def close(self, limit_s: float) -> bool:
        """End; what is under way on the direct one goes this way, where there is one. Whether that was done in time."""
        ...


class NoFallback:
    """Without `OUTBOX_DIR` there is no other way: every policy says outbox=never, and what fails raises."""

    exists = False

    def __init__(self) -> None:
        self.breaker = Breaker(BreakerPolicy())
        """Nobody counts, so it stays closed."""

    async def start(self, direct: DirectPath, relay_of: Callable[[ProcessOutbox], Relay]) -> None:
        """Nothing begins."""

    def takes(self, call: Call) -> bool:
        """Refuses what may only go through an outbox."""
        if call.outbox != "always":
            return False
        cause = ConnectionError("outbox=always needs an outbox: set STREAMING_OUTBOX_DIR")
        call.fail(failure_of(call.event_id, cause, unknown=False))
        return True

    def overdue(self, call: Call, cause: BaseException) -> None:
        """It goes on waiting."""

    def gave_up(self, call: Call, cause: BaseException) -> None:
        """Nobody counts."""

    def failed(self, call: Call, error: BaseException) -> None:
        """Its caller hears why."""
        call.fail(failure_of(call.event_id, error, unknown=False))

    def deserted(self, call: Call) -> None:
        """Nothing goes another way ahead of it."""

    def succeeded(self, count: int) -> None:
        """Nobody counts."""

    def wake(self) -> None:
        """Nobody waits."""

    async def health(self) -> Health:
        """Always healthy: there is nothing that could be ill."""
        return Health("healthy")

    def waiting_now(self) -> Waiting | None:
        """There is no outbox to ask."""
        return None

    async def drained(self) -> None:
        """Nothing waits."""

    async def settle(self) -> None:
        """Nothing is under way."""

    async def close(self, limit_s: float) -> bool:  # noqa: ARG002
        """Nothing ends."""
        return True

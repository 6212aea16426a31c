"""Faust's recovery after a rebalance, mended where it ends without a word and leaves its partitions unread.

Owns: that a step of it which takes too long ends the worker. Must not know: which tables there are.

What it overrides of Faust is held by tests/transport/test_transport_pins.py.
"""

from __future__ import annotations

from typing import Any

from faust.tables import TableManager
from faust.tables import recovery as upstream

__all__ = ["Recovery", "Tables"]


class Recovery(upstream.Recovery):
    """Seeks, and reads tables back, before the agents go on."""

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ASYNC109 -- upstream's signature
        """Upstream takes a step that is not done in time for the end of the service: it stops looking for
        rebalances, and the worker keeps its partitions and reads nothing, for good. It must exit instead.
        """
        try:
            await super()._wait(coro, timeout)
        except upstream.ServiceStopped:
            if self.should_stop:
                raise
            raise TimeoutError(
                f"the recovery after a rebalance took more than {timeout:g} s a step"
            ) from None


class Tables(TableManager):
    """Upstream's, with our recovery."""

    @property
    def recovery(self) -> upstream.Recovery:
        """The recovery of this worker."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

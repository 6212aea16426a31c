"""Who works on the batches of the partitions that are assigned, as the consumer tells them what becomes of those.

Owns: the calls and when they come. Must not know: what is done about them.
"""

from __future__ import annotations

from collections.abc import Sequence

from faust.types import TP

from pipeline.transport.progress import Batch

__all__ = ["Tenant"]


class Tenant:
    """Does nothing; a worker overrides what it has to know. Nothing but `settled` may wait."""

    def assigned(self, partitions: set[TP]) -> None:
        """These partitions of batch topics are ours from now on, and no others."""

    def settling(self) -> None:
        """All of them are about to be given away: what keeps batches from ending must end now."""

    async def settled(self) -> None:
        """Awaited once no batch is begun, before the last commit; within `DRAIN_TIMEOUT_S`."""

    def let_go(self) -> None:
        """They belong to somebody else."""

    def abandoned(self, batches: Sequence[Batch]) -> None:
        """These batches did not end before their partition was lost: their writes can be taken back."""

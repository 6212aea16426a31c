"""The service, and its outbox on Django's ORM."""

from __future__ import annotations

from collections.abc import Sequence

from asgiref.sync import sync_to_async
from django.db import transaction

from examples.django_shop.models import Order, OutboxRow
from pipeline import Stored, prepare

__all__ = ["DjangoOutbox", "place_order"]


def place_order(number: int, customer: str) -> None:
    """Both the order and its event, or neither. Does not wait for Kafka; safe in a view, also inside `atomic()`."""
    prepared = prepare("order.placed", {"order": number}, tenant=customer)
    with transaction.atomic():
        OutboxRow.objects.create(row=prepared.bytes)
        Order.objects.create(number=number, customer=customer)


class DjangoOutbox:
    """`OutboxRow` as an `Outbox`; see the command `ship_outbox`."""

    async def read(self, after: int, limit: int) -> Sequence[Stored]:
        """Up to `limit` rows above a sequence that have not been set aside, in order."""
        rows = OutboxRow.objects.filter(id__gt=after, reason=None)[:limit]
        return [Stored(row.pk, row.at.timestamp(), bytes(row.row)) async for row in rows]

    async def delete(self, rows: Sequence[Stored]) -> None:
        """Forget rows that were shipped."""
        await sync_to_async(self._delete)([row.sequence for row in rows])

    async def set_aside(self, row: Stored, reason: str) -> None:
        """Keep a row that can never be shipped, with the reason."""
        await OutboxRow.objects.filter(id=row.sequence).aupdate(reason=reason)

    @staticmethod
    def _delete(sequences: list[int]) -> None:
        with transaction.atomic():
            for first in range(0, len(sequences), 500):  # a statement takes only so many
                OutboxRow.objects.filter(id__in=sequences[first : first + 500]).delete()

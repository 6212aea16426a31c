"""`python -m django ship_outbox`: run one beside the web server, so that each key keeps its order."""

from __future__ import annotations

import asyncio
import os
from argparse import ArgumentParser

from django.core.management.base import BaseCommand

from examples.django_shop.outbox import DjangoOutbox
from pipeline import Settings, Stager


class Command(BaseCommand):
    """Ships what waits in the outbox, again and again."""

    help = "Ship the events that wait in the outbox."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Name what can be asked."""
        parser.add_argument("--once", action="store_true", help="end when nothing waits")

    def handle(self, *, once: bool, **_: object) -> None:
        """Run until it is interrupted."""
        asyncio.run(self._ship(once=once))

    async def _ship(self, *, once: bool) -> None:
        async with Stager(Settings.from_env(os.environ)) as stager:
            while True:
                shipped, aside = await stager.ship(DjangoOutbox())
                if shipped or aside:
                    self.stdout.write(f"shipped {shipped}, set aside {aside}")
                if once:
                    return
                await asyncio.sleep(1)

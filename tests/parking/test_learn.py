"""What the next owner of a partition waits for while the parked topics have no place for it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from catalog import OwnTopics
from pipeline.kafka.reader import Place
from pipeline.park import Checkpoint, Cursor
from pipeline.parking import learn as learn_module
from pipeline.parking.learn import learn_all
from tests.parking.test_look import Topics

OWN = OwnTopics("shop")


class Mended(Topics):
    """Both topics in memory, with two partitions; they can be taken away, and brought back."""

    fails = 0

    def take_away(self, topic: str, *numbers: int) -> None:
        """As where somebody made the topic anew with fewer partitions, or deleted it."""
        for number in numbers:
            del self.records[Place(topic, number)]

    def bring_back(self, topic: str, *numbers: int) -> None:
        """Empty."""
        self.records |= {Place(topic, number): [] for number in numbers}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Topics]:
        """As a reader, which may fail to connect."""
        if self.fails:
            self.fails -= 1
            raise ConnectionRefusedError
        yield self


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again without a pause."""
    monkeypatch.setattr(learn_module, "_AGAIN_S", 0.0)


@pytest.mark.parametrize("topic", [OWN.parked, OWN.parked_cursors])
async def test_a_partition_waits_for_its_place(topic: str, caplog: pytest.LogCaptureFixture) -> None:
    """P1, P4, O1: of a topic that has fewer partitions than staging, or is missing, those that it has are learnt; the
    others wait, by a cause that names it, said once, and are learnt as soon as it has them, without a restart."""
    topics = Mended()
    topics.park(0, "shop.order.created", "acme", 1.0)
    topics.take_away(topic, 1)
    learning = learn_all(topics.open, OWN, {0, 1})
    found, lacking = await anext(learning)
    assert {number: list(checkpoint.cursors) for number, checkpoint in found.items()} == {
        0: ["shop.order.created"]
    }
    short = f"{topic} has 1 partitions, fewer than staging: `faust -A pipeline topics check` says what to do"
    assert lacking == short
    assert await anext(learning) == ({}, short)

    topics.take_away(topic, 0)
    topics.fails = 1  # and nothing is known of it
    missing = f"{topic} is missing: `faust -A pipeline topics check` says what to do"
    assert await anext(learning) == ({}, missing)

    topics.bring_back(topic, 0, 1)
    found, lacking = await anext(learning)
    assert (set(found), lacking) == ({1}, "")
    assert [found async for found in learning] == []
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said == [f"parking.no_place partitions=[1] reason={reason!r}" for reason in (short, missing)]


async def test_a_checkpoint_of_a_parked_topic_that_is_gone_is_not_believed() -> None:
    """P3, P4: somebody deleted the parked topic and made it anew while the checkpoints stayed. One that is ahead of the
    new topic tells of the old one: all that is parked now is counted, and delivered, from its beginning."""
    topics = Mended()
    topics.save(0, Checkpoint(1_000, {"gone": Cursor(900, 999, 100, 2_000, 1.0, "down")}))
    for at in (5.0, 6.0):
        topics.park(0, "shop.order.created", "acme", at)
    found, _ = await anext(learn_all(topics.open, OWN, {0}))
    (name, cursor), *others = found[0].cursors.items()
    assert (name, cursor.first, cursor.last, cursor.records) == ("shop.order.created", 0, 1, 2)
    assert not others

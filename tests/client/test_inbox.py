"""The way from threads to a stager's event loop, and back."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from pipeline.client import inbox as inbox_module
from pipeline.client.call import Answer, Call
from pipeline.client.inbox import Inbox
from pipeline.errors import StagerClosed
from pipeline.types import Staged


@pytest.fixture(params=["bell", "no bell"], autouse=True)
def bells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems with eventfd, and those without."""
    if request.param == "no bell":
        monkeypatch.setattr(inbox_module, "_HAS_BELLS", False)
    elif not hasattr(os, "eventfd"):
        pytest.skip("this system has no eventfd")


def call(name: str) -> Call:
    """A call of a thread."""
    return Call(name, b"key", b"", "never", Answer(), lambda _: None)


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def post(inbox: Inbox, loop: asyncio.AbstractEventLoop, name: str) -> str:
    """Post one from here and wait for its answer."""
    one = call(name)
    inbox.post(one, loop)
    assert isinstance(one.outcome, Answer)
    return one.outcome.wait(20).id


async def test_every_call_of_many_threads_is_answered_in_its_order() -> None:
    """S1, S6, S9: none is forgotten, and those of one thread come in the order they were posted."""
    seen: list[str] = []

    def accept(one: Call) -> None:
        seen.append(one.event_id)
        one.outcome.set_result(Staged(one.event_id, "noop"))

    inbox, loop = Inbox(accept), asyncio.get_running_loop()
    names = [[f"{thread}-{number}" for number in range(200)] for thread in range(4)]

    def work(mine: list[str]) -> None:
        for name in mine:
            assert post(inbox, loop, name) == name

    await asyncio.gather(*(asyncio.to_thread(work, mine) for mine in names))
    assert [[name for name in seen if name.startswith(f"{thread}-")] for thread in range(4)] == names
    inbox.close()


async def test_what_comes_while_it_closes_is_handed_over() -> None:
    """S9: a call that is posted before, while or after the inbox closes reaches the stager, which says that it is
    closed; nobody waits in vain."""

    def accept(one: Call) -> None:
        one.outcome.set_exception(StagerClosed())

    inbox, loop, begun = Inbox(accept), asyncio.get_running_loop(), threading.Event()

    def work() -> int:
        refused = 0
        for number in range(400):
            try:
                post(inbox, loop, str(number))
            except StagerClosed:
                refused += 1
            begun.set()
        return refused

    working = [asyncio.create_task(asyncio.to_thread(work)) for _ in range(3)]
    await asyncio.to_thread(begun.wait)
    inbox.close()
    inbox.close()
    assert await asyncio.gather(*working) == [400, 400, 400]


async def test_what_the_loop_has_not_heard_of_is_handed_over() -> None:
    """S9: a call that is posted right before the inbox closes, and of which the loop has not heard, is not lost."""
    inbox, loop = (
        Inbox(lambda one: one.outcome.set_result(Staged(one.event_id, "noop"))),
        asyncio.get_running_loop(),
    )
    await asyncio.to_thread(post, inbox, loop, "first")
    late = call("late")
    inbox.post(late, loop)
    inbox.close()
    await asyncio.sleep(0)
    assert late.outcome.done()


async def test_it_leaves_no_descriptor() -> None:
    """S9: a process may open and close any number of stagers."""
    loop = asyncio.get_running_loop()

    async def once() -> None:
        inbox = Inbox(lambda one: one.outcome.set_result(Staged(one.event_id, "noop")))
        await asyncio.to_thread(post, inbox, loop, "x")
        inbox.close()

    await once()
    before = descriptors()
    for _ in range(20):
        await once()
    assert descriptors() == before


def test_a_closed_loop_is_named() -> None:
    """S9: each call says that the loop has ended, and none waits for it."""
    inbox, loop = (
        Inbox(lambda one: one.outcome.set_result(Staged(one.event_id, "noop"))),
        asyncio.new_event_loop(),
    )
    loop.run_until_complete(asyncio.to_thread(post, inbox, loop, "x"))
    loop.close()
    for _ in range(2):
        with pytest.raises(StagerClosed, match="open a new stager"):
            inbox.post(call("y"), loop)


def test_nobody_answers_in_time() -> None:
    """S7: a thread waits no longer than it said; what it is told later changes nothing for it."""
    answer = Answer()
    assert not answer.done()
    with pytest.raises(TimeoutError):
        answer.wait(0.001)
    answer.set_exception(StagerClosed())
    assert answer.done()
    with pytest.raises(StagerClosed):
        answer.wait(1)

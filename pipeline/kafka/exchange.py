"""Produce requests under way, and their answers, carried back to the lanes.

Owns: the answers that are waited for. Must not know: when a lane is ready, what goes into a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from aiokafka import errors as kafka_errors
from aiokafka.protocol.api import Response

from pipeline.clock import Clock
from pipeline.kafka.connection import REQUEST_TIMEOUT_S
from pipeline.kafka.lane import Batch, Lane
from pipeline.kafka.node import Node
from pipeline.kafka.request import NO_ERROR, Sent, carry, produce_request
from pipeline.kafka.session import Session

__all__ = ["Exchange"]

log = logging.getLogger(__name__)


class Exchange:
    """Sends requests through a session. `look_at` is told of lanes whose state has changed."""

    def __init__(self, session: Session, clock: Clock, look_at: Callable[..., None]) -> None:
        self._session = session
        self._clock = clock
        self._look_at = look_at
        self._answers: set[asyncio.Future[Response]] = set()
        self._stopped = False

    def begin(self, node: Node, batches: Sent) -> None:
        """Send one request to a broker. Does not block; its lanes are told how it ends."""
        node.in_flight += 1
        try:
            answer = self._session.begin(node.node_id, produce_request(batches.values(), REQUEST_TIMEOUT_S))
        except Exception as error:  # noqa: BLE001 -- it ends as an answer that nobody understands
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(error)
        self._answers.add(answer)
        answer.add_done_callback(partial(self._ended, node, batches))

    async def stop(self, timeout_s: float) -> None:
        """Wait for no answer any more; the lanes of what is under way are told nothing."""
        self._stopped = True
        for answer in self._answers:
            answer.cancel()
        if self._answers:
            await asyncio.wait(self._answers, timeout=timeout_s)

    def _ended(self, node: Node, batches: Sent, answer: asyncio.Future[Response]) -> None:
        """Carry an answer back to the lanes."""
        self._answers.discard(answer)
        unanswered = dict(batches)
        failure: BaseException = kafka_errors.KafkaConnectionError("the request ended without an answer")
        in_doubt = True
        try:
            for topic, partitions in answer.result().topics:
                for partition, code, offset, *_ in partitions:
                    lane, batch = unanswered.pop((topic, partition))
                    if lane.batch is not batch:
                        continue  # it was given up meanwhile
                    if code == NO_ERROR:
                        lane.succeeded(offset)
                    else:
                        self._refused(lane, batch, code)
        except asyncio.CancelledError:
            unanswered.clear()  # the producer ends, and with it every lane
        except kafka_errors.NodeNotReadyError as error:  # there was no connection to write to
            failure, in_doubt = error, False
        except kafka_errors.KafkaError as error:
            failure = error
        except (OSError, TimeoutError) as error:
            failure = kafka_errors.KafkaConnectionError(str(error))
        except Exception:
            log.exception("produce.failed -- in an unknown way; please report this")
        node.in_flight -= 1
        self._fail([lane for lane, batch in unanswered.values() if lane.batch is batch], failure, in_doubt)
        self._look_at(*(lane for lane, _ in batches.values()))

    def _fail(self, lanes: list[Lane], failure: BaseException, in_doubt: bool) -> None:
        if not lanes:
            return
        if not self._stopped and not all(lane.trouble for lane in lanes):
            log.warning("produce.failed error=%r", failure)
        for lane in lanes:
            lane.failed(failure, self._clock.monotonic(), in_doubt=in_doubt)
        self._session.refresh()

    def _refused(self, lane: Lane, batch: Batch, code: int) -> None:
        before = lane.trouble
        error = carry(lane, code, self._clock.monotonic())
        if error is not None:
            self._session.refresh()
            if type(error) is not type(before):
                log.warning("produce.refused records=%d error=%r", batch.count, error)

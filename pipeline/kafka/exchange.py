"""Produce requests under way, and their answers, carried back to the lanes.

Owns: one task for each request. Must not know: when a lane is ready, what goes into a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiokafka import errors as kafka_errors

from pipeline.clock import Clock
from pipeline.kafka.connection import REQUEST_TIMEOUT_S
from pipeline.kafka.lane import Batch, Lane
from pipeline.kafka.node import Node
from pipeline.kafka.request import Sent, carry, produce_request
from pipeline.kafka.session import Session

__all__ = ["Exchange"]

log = logging.getLogger(__name__)


class Exchange:
    """Sends requests through a session. `look_at` is told of lanes whose state has changed."""

    def __init__(self, session: Session, clock: Clock, look_at: Callable[..., None]) -> None:
        self._session = session
        self._clock = clock
        self._look_at = look_at
        self._requests: set[asyncio.Task[None]] = set()
        self._stopped = False

    def begin(self, node: Node, batches: Sent) -> None:
        """Send one request to a broker. Does not block; its lanes are told how it ends."""
        node.in_flight += 1
        task = asyncio.create_task(self._request(node, batches))
        self._requests.add(task)
        task.add_done_callback(self._request_ended)

    async def stop(self, timeout_s: float) -> None:
        """Wait for no answer any more; the lanes of what is under way are told nothing."""
        self._stopped = True
        for task in self._requests:
            task.cancel()
        if self._requests:
            await asyncio.wait(self._requests, timeout=timeout_s)

    async def _request(self, node: Node, batches: Sent) -> None:
        """One ProduceRequest, and its answer carried back to the lanes."""
        unanswered = dict(batches)
        request = produce_request(batches.values(), REQUEST_TIMEOUT_S)
        failure: BaseException = kafka_errors.KafkaConnectionError("the request ended without an answer")
        in_doubt = True
        try:
            response = await self._session.send(node.node_id, request)
            for topic, partitions in response.topics:
                for partition, code, offset, *_ in partitions:
                    lane, batch = unanswered.pop((topic, partition))
                    if lane.batch is batch:  # else it was given up meanwhile
                        self._answered(lane, batch, code, offset)
        except asyncio.CancelledError:
            unanswered.clear()  # the producer ends, and with it every lane
            raise
        except kafka_errors.NodeNotReadyError as error:  # there was no connection to write to
            failure, in_doubt = error, False
        except kafka_errors.KafkaError as error:
            failure = error
        except (OSError, TimeoutError) as error:
            failure = kafka_errors.KafkaConnectionError(str(error))
        finally:
            node.in_flight -= 1
            self._fail(
                [lane for lane, batch in unanswered.values() if lane.batch is batch], failure, in_doubt
            )
            self._look_at(*(lane for lane, _ in batches.values()))

    def _fail(self, lanes: list[Lane], failure: BaseException, in_doubt: bool) -> None:
        if not lanes:
            return
        if not self._stopped and not all(lane.trouble for lane in lanes):
            log.warning("produce.failed error=%r", failure)
        for lane in lanes:
            lane.failed(failure, self._clock.monotonic(), in_doubt=in_doubt)
        self._session.refresh()

    def _request_ended(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("produce.failed -- in an unknown way; please report this", exc_info=error)

    def _answered(self, lane: Lane, batch: Batch, code: int, offset: int) -> None:
        before = lane.trouble
        error = carry(lane, code, offset, self._clock.monotonic())
        if error is not None:
            self._session.refresh()
            if type(error) is not type(before):
                log.warning("produce.refused records=%d error=%r", batch.count, error)

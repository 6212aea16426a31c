"""What the transport takes from inside Faust, mode and aiokafka is as it was when it was written against.

An upgrade that changes any of it fails here, with what to read again. When it is read and mended, print the new
table with `python tests/transport/test_transport_pins.py`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher as KafkaFetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from faust.app.base import App
from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from faust.web.base import Web
from mode.utils.queues import FlowControlEvent, FlowControlQueue, ThrowableQueue

ROOT = Path(__file__).resolve().parents[2]

OURS = {
    "mended": "pipeline/transport/mended.py",
    "batches": "pipeline/transport/consumer.py",
    "thread": "pipeline/transport/thread.py",
    "app": "pipeline/transport/app.py",
    "recovery": "pipeline/transport/recovery.py",
    "client": "pipeline/kafka/client.py",
    "closing": "pipeline/kafka/closing.py",
}

PINNED: list[tuple[Callable[..., Any], str, str, str]] = [
    # what, hash of its source, our module, what we rely on
    (
        faust_consumer.Consumer._drain_messages,
        "a7344bf08281",
        "mended",
        "replaced by the same loop around drain_once",
    ),
    (
        faust_consumer.Consumer.getmany,
        "fa2160740939",
        "batches",
        "replaced by drain_once: what is dropped when",
    ),
    (
        faust_consumer.Consumer._wait_next_records,
        "f982a13cb29d",
        "batches",
        "called: waits for the flow, then fetches",
    ),
    (
        faust_consumer.Consumer._reset_state,
        "8ab4368d11bf",
        "mended",
        "extended: makes the set of active partitions",
    ),
    (
        faust_consumer.Consumer._set_active_tps,
        "7df10184233e",
        "mended",
        "keeps the set of active partitions, and empties it",
    ),
    (
        faust_consumer.Consumer.on_buffer_full,
        "f728bbeba147",
        "batches",
        "called: leaves a partition out of fetches",
    ),
    (faust_consumer.Consumer.on_buffer_drop, "5fa65e9ef34c", "batches", "called: takes it in again"),
    (faust_consumer.Consumer.pause_partitions, "e7c5892a084b", "batches", "called by hold"),
    (faust_consumer.Consumer.resume_partitions, "16e63b9245e9", "mended", "put off until the flow resumes"),
    (
        faust_consumer.Consumer.stop_flow,
        "c25e52686ebe",
        "mended",
        "called: the flow is off while partitions are revoked",
    ),
    (faust_consumer.Consumer.resume_flow, "adfaabe16d15", "mended", "extended: partitions come back here"),
    (
        faust_consumer.Consumer.perform_seek,
        "7ece4303af72",
        "batches",
        "calls seek_to_committed and keeps the answer",
    ),
    (
        faust_consumer.ThreadDelegateConsumer.seek_to_committed,
        "cead20c0e0d4",
        "batches",
        "extended: what comes next",
    ),
    (
        faust_consumer.ThreadDelegateConsumer.seek_wait,
        "a7ee0a06ba15",
        "batches",
        "called: returns when the position is set",
    ),
    (faust_consumer.Consumer.commit, "aa8a60c3577a", "mended", "a second caller only waits for the first"),
    (
        faust_consumer.Consumer.maybe_wait_for_commit_to_finish,
        "9f7685341963",
        "mended",
        "swallows a cancellation",
    ),
    (faust_consumer.Consumer._commit_tps, "dec60395cc40", "batches", "commits what _new_offset says"),
    (
        faust_consumer.Consumer._commit_offsets,
        "f10bbd2092f7",
        "batches",
        "commits what is assigned, remembers it as committed",
    ),
    (
        faust_consumer.Consumer._filter_tps_with_pending_acks,
        "1f74958fb0de",
        "batches",
        "extended by batch partitions",
    ),
    (
        faust_consumer.Consumer._filter_committable_offsets,
        "590e78450cb3",
        "batches",
        "asks _new_offset, then _should_commit",
    ),
    (
        faust_consumer.Consumer._should_commit,
        "82179cc87bd4",
        "batches",
        "commits only what is above the committed offset",
    ),
    (faust_consumer.Consumer._new_offset, "97522d62af0d", "batches", "replaced for batch topics"),
    (faust_consumer.Consumer._add_gap, "a8848ee6a7d1", "mended", "called for records of ordinary topics"),
    (
        faust_consumer.Consumer.wait_empty,
        "44f8226e6759",
        "batches",
        "extended: called when revoked and when stopping",
    ),
    (faust_consumer.Consumer.on_stop, "f14d2915638b", "batches", "calls wait_empty once more"),
    (
        faust_consumer.Consumer.on_partitions_revoked,
        "e08fbf72babb",
        "mended",
        "extended: forgets acks before it commits",
    ),
    (faust_consumer.Consumer.on_partitions_assigned, "4c9a240900c8", "mended", "extended"),
    (faust_consumer.Consumer._commit_handler.fun, "87e1544e748b", "batches", "commits on an interval"),
    (faust_consumer.Consumer.verify_event_path, "963861de3f55", "batches", "silenced for batch topics"),
    (
        faust_consumer.Fetcher._fetcher.fun,
        "f4cbf7815ce4",
        "mended",
        "runs _drain_messages; what its end means",
    ),
    (driver.Consumer._new_consumer_thread, "97a8bccc6642", "mended", "replaced by our thread"),
    (driver.Consumer._to_message, "d3d26ccd6cb0", "mended", "called for records of ordinary topics"),
    (
        driver.ConsumerRebalanceListener.on_partitions_revoked,
        "27149b446e52",
        "mended",
        "marks the app as rebalancing",
    ),
    (
        driver.ConsumerRebalanceListener.on_partitions_assigned,
        "c4d72541e6bc",
        "mended",
        "sets the generation",
    ),
    (
        driver.AIOKafkaConsumerThread._create_worker_consumer,
        "8af43cc84405",
        "thread",
        "extended: the fetch wait, hard-coded",
    ),
    (
        driver.AIOKafkaConsumerThread.close,
        "4f0766bac8a1",
        "thread",
        "replaced: closed connections in use",
    ),
    (driver.AIOKafkaConsumerThread._ensure_consumer, "0e000de4325f", "thread", "called"),
    (
        driver.AIOKafkaConsumerThread._commit,
        "7ed9ecb4e807",
        "batches",
        "which errors of a commit crash the worker",
    ),
    (
        driver.AIOKafkaConsumerThread._seek_wait,
        "0ff130eef21a",
        "batches",
        "seeks, then waits for the position",
    ),
    (
        driver.AIOKafkaConsumerThread._fetch_records,
        "29037e5578da",
        "batches",
        "fetches only with the flow on, from a live set",
    ),
    (App._new_web, "bc4fce4cb981", "app", "replaced"),
    (App.on_webserver_init, "9850f1df89f5", "app", "replaced: does nothing upstream"),
    (
        Web.init_server,
        "98deff07d356",
        "app",
        "called once on the event loop, before the server starts: puts pages on it",
    ),
    (
        Web._enabled_blueprints,
        "d2a12bee0de5",
        "app",
        "which pages Faust adds by itself: those of four class attributes",
    ),
    (
        GroupCoordinator.coordinator_dead,
        "b7018b74292f",
        "thread",
        "no coordinator_id while no broker answers",
    ),
    (GroupCoordinator.reset_generation, "f33f3309e39b", "thread", "no generation while it has to join again"),
    (
        AIOKafkaConsumer.highwater,
        "439d44fb6c3f",
        "thread",
        "the end of an assigned partition as last fetched",
    ),
    (App._new_transport, "789f55e75805", "app", "replaced"),
    (App._new_producer_transport, "f20e159a0d45", "app", "replaced"),
    (
        App._stop_consumer,
        "29bb5b49d183",
        "batches",
        "the order of a stop: flow off, queues cleared, wait_empty",
    ),
    (
        App._on_partitions_revoked,
        "bab74163f353",
        "batches",
        "the order of a revocation: flow off, queues cleared, wait_empty",
    ),
    (App._on_partitions_assigned, "6b7fe8db9e02", "mended", "pauses everything until recovery is done"),
    (App.on_rebalance_start, "a52d33064012", "mended", "rebalancing becomes true"),
    (App.on_rebalance_end, "d13897074960", "mended", "rebalancing becomes false, after resume_flow"),
    (Recovery._resume_streams, "d4302c7aed43", "mended", "resume, seek, clear, resume the flow"),
    (Recovery.on_recovery_completed, "aea64ef7a82c", "mended", "the same with the flow on"),
    (
        Recovery._wait,
        "eb02481cfe13",
        "recovery",
        "says that the service was stopped where a step takes too long",
    ),
    (
        Recovery._restart_recovery.fun,
        "375fc15acdae",
        "recovery",
        "ends where it is told so, fails for any other error",
    ),
    (TableManager.recovery.fget, "0cd5c22b2ac7", "recovery", "replaced"),  # type: ignore[attr-defined]
    (
        AIOKafkaClient._md_synchronizer,
        "029fe8376dca",
        "thread",
        "asks anew when what it has is too old",
    ),
    (
        AIOKafkaClient.send,
        "ea1c213ebe20",
        "client",
        "extended: gets a connection, closes it where no answer comes",
    ),
    (
        AIOKafkaClient._get_conn,
        "7b17b41103f3",
        "client",
        "replaced: connects to one broker at a time; None where it cannot",
    ),
    (
        AIOKafkaConsumer.start,
        "6a7cfdb79530",
        "client",
        "uses the client from here on: until then it can be replaced",
    ),
    (
        FlowControlQueue.force_put_nowait,
        "01b8bcc18ad3",
        "handover",
        "called: into the agent's queue, whatever its size",
    ),
    (ThrowableQueue.empty, "b5d3c4060b89", "handover", "asked: whether the agent has taken all"),
    (FlowControlQueue.clear, "d4a020e5d8cf", "batches", "what waits in a queue vanishes"),
    (FlowControlEvent.suspend, "fdeb3764f5c2", "mended", "called before the commit of a revocation"),
    (FlowControlEvent.clear, "e5bfc62f24e8", "mended", "called then: what waits in the queues vanishes"),
    (FlowControlEvent.resume, "703313a62f32", "mended", "clears the queues"),
    (
        KafkaFetcher.close,
        "72b69ba9019a",
        "closing",
        "replaced: ends the task that fetches, then what it began",
    ),
    (
        KafkaFetcher.fetched_records,
        "e770983a08c7",
        "mended",
        "an empty set means all partitions; takes max_records",
    ),
    (
        FetchResult.check_assignment,
        "bd3c184dedae",
        "batches",
        "a list from before a seek is not returned after it",
    ),
    (FetchResult.getall, "3f241a33c8ba", "batches", "the position moves when a list is taken"),
    (SubscriptionState.fetch_context, "d60ae3d6db48", "thread", "sets _last_fetch_ended"),
    (AIOKafkaConsumer.seek_to_committed, "12d0b86b7708", "batches", "does not seek to offset 0"),
    (GroupCoordinator._push_error_to_user, "d788c6649db8", "thread", "keeps _pending_exception, then waits"),
    (
        GroupCoordinator.ensure_active_group,
        "1d2d41444728",
        "thread",
        "does not join again while nothing is fetched",
    ),
    (
        GroupCoordinator._heartbeat_routine,
        "c4501944ec00",
        "thread",
        "leaves the group while nothing is fetched",
    ),
    (
        GroupCoordinator.commit_offsets,
        "6f1b63140d18",
        "batches",
        "repeats what a broker fault refuses, without end",
    ),
]


def name_of(what: Callable[..., Any]) -> str:
    """Module and qualified name."""
    return f"{what.__module__}.{what.__qualname__}"


def fingerprint(what: Callable[..., Any]) -> str:
    """A short hash of the signature and the source as it stands, comments and all."""
    function = inspect.unwrap(what)
    text = f"{inspect.signature(function)}\n{textwrap.dedent(inspect.getsource(function))}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", ["aiokafka", "faust-streaming", "mode-streaming"])
def test_the_installed_version_is_the_pinned_one(name: str) -> None:
    """T6 rests on private hooks of these: what runs must be exactly what pyproject.toml pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["worker"]]
    (pin,) = [one for one in wanted if one.partition("==")[0].partition("[")[0] == name]
    assert pin.partition("==")[2] == importlib.metadata.version(name)


@pytest.mark.parametrize(("what", "known", "ours", "relied_on"), PINNED, ids=[name_of(p[0]) for p in PINNED])
def test_upstream_is_as_we_know_it(what: Callable[..., Any], known: str, ours: str, relied_on: str) -> None:
    """T5, T6: each method of Faust, mode and aiokafka that we replace, extend or rely on is unchanged."""
    assert fingerprint(what) == known, (
        f"{name_of(what)} is not the one we know. We rely on this: {relied_on}. Read it again, and with it "
        f"{OURS[ours]}; then run tests/transport and tests/fire, the long ones too, and put {fingerprint(what)} here."
    )


if __name__ == "__main__":
    for one, _, _, _ in PINNED:
        print(f"{name_of(one)} {fingerprint(one)}")

"""What a service and a worker do, step by step, under whatever rights they are given.

Owns: the steps, and which of them is the first that fails. Must not know: which rights those are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Self
from urllib.parse import quote

from catalog import OwnTopics
from pipeline import Settings, Stager
from tests.kafka_client import OutRecord, produce, read_all, wait_until
from tests.secure.secure_kafka import SecureKafka
from tests.service import own_transactions
from tests.web.asking import TOKENS, Site
from tests.worker_harness import WorkerProcess

__all__ = ["Steps", "delivered", "service_settings", "stage"]


def service_settings(secure: SecureKafka, env: Mapping[str, str]) -> Settings:
    """The service's settings."""
    return Settings.from_env(
        {**env, **secure.tls(), **secure.sasl("service", "PLAIN"), "STREAMING_BROKERS": secure.at("SASL")}
    )


async def stage(settings: Settings, numbers: Iterable[int]) -> None:
    """As the service does."""
    async with Stager(settings) as stager:
        for number in numbers:
            await stager.stage("order.placed", {"order": number}, tenant="acme", id=f"order-{number}")


def delivered(secure: SecureKafka, namespace: str) -> list[bytes]:
    """The ids on the target, in the order of their first deliveries."""
    records = read_all(secure.bootstrap, f"{namespace}.order.placed")
    return [*dict.fromkeys(record.header["ce_id"] for record in records)]


class Steps:
    """A service and a worker over TLS, each under its own name, the targets' cluster under another. A context manager
    that ends the worker."""

    def __init__(
        self, secure: SecureKafka, namespace: str, env: Mapping[str, str], patience_s: float
    ) -> None:
        self.secure = secure
        self.namespace = namespace
        self.topics = OwnTopics(namespace)
        self.target = f"{namespace}.order.placed"
        self.settings = service_settings(secure, env)
        self._patience_s = patience_s
        self._left = ExitStack()
        worker_env = {
            **env,
            **secure.tls(),
            **secure.sasl("worker", "SCRAM-SHA-512"),
            "STREAMING_ADMIN_TOKENS": TOKENS,
            "STREAMING_BROKERS": secure.at("SASL"),
            "STREAMING_TARGET_BROKERS": secure.at("MUTUAL"),
            "STREAMING_TARGET_SASL_MECHANISM": "none",
            "STREAMING_CB_TIMEOUT_S": "0.5",
            **secure.own(secure.authority.sign("targets"), "STREAMING_TARGET_"),
        }
        self.worker = WorkerProcess(
            secure.bootstrap, namespace, catalog=own_transactions.NAME, env=worker_env
        )
        self.site = Site(self.worker)

    def __enter__(self) -> Self:
        """Nothing is started yet: that is the first step."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker."""
        self._left.close()

    def first_failure(self) -> str:
        """Take each step; the name of the first that fails, empty where none does."""
        for step in (
            self.stage,
            self.start,
            self.deliver,
            self.dead_letter,
            self.index,
            self.skip,
            self.audit_page,
            self.show,
            self.redrive,
            self.discard,
            self.park,
            self.drain,
            self.restart,
        ):
            try:
                step()
            except AssertionError as error:
                print(f"{step.__name__} failed: {error}\n{self.worker.log_tail(15)}")
                return step.__name__
            except Exception as error:  # noqa: BLE001 -- of whatever a right that is missing makes of it
                print(f"{step.__name__} failed: {error!r}")
                return step.__name__
        return ""

    def stage(self) -> None:
        """The service stages ten events; the policy of the definition allows no outbox."""
        asyncio.run(stage(self.settings, range(10)))

    def start(self) -> None:
        """The worker starts, and takes part in its group."""
        self._left.enter_context(self.worker)
        self.worker.wait_ready(30)

    def deliver(self) -> None:
        """The worker delivers them."""
        self._wait(lambda: len(delivered(self.secure, self.namespace)) == 10, "10 events")

    def dead_letter(self) -> None:
        """What cannot be delivered lies on a dead-letter topic: its target's, and staging's own."""
        self._produce({"stage-definition": b"order.placed", "stage-id": b"bad"}, {"stage-id": b"nobody's"})
        for topic in (f"{self.target}.dlq", self.topics.staging_dlq):
            self._wait(lambda topic=topic: bool(read_all(self.secure.bootstrap, topic)), topic)  # type: ignore[misc]

    def index(self) -> None:
        """The pages know of both."""
        self._wait(lambda: self._open() == 2, "two open dead letters")

    def skip(self) -> None:
        """What is skipped by its policy leaves an audit record."""
        skipped = {"stage-definition": b"order.placed", "stage-id": b"skipped", "stage-policy": b"dlq=never"}
        self._produce(skipped)
        self._wait(lambda: bool(read_all(self.secure.bootstrap, self.topics.audit)), "an audit record")

    def audit_page(self) -> None:
        """The page of audit records shows it."""
        self._wait(lambda: bool(self.site.get("/audit/").data["lines"]), "a line on /audit/")

    def show(self) -> None:
        """The page of a dead letter shows it in full, on both topics."""
        for topic in (f"{self.target}.dlq", self.topics.staging_dlq):
            partition = read_all(self.secure.bootstrap, topic)[0].partition
            answer = self.site.get(f"/dlq/{quote(topic)}/{partition}/0/")
            assert answer.status == 200, answer.text

    def redrive(self) -> None:
        """A job sends both back to staging, where they fail again."""
        self._job("redrive", 2)
        self._wait(lambda: self._open() == 2, "both again")

    def discard(self) -> None:
        """A job discards both."""
        self._job("discard", 2)
        self._wait(lambda: self._open() == 0, "none open")

    def park(self) -> None:
        """While their target is paused, events are parked."""
        assert self.site.post(f"/breakers/{self.target}/pause", {"reason": "test"}).status == 200
        asyncio.run(stage(self.settings, range(10, 20)))
        self._wait(lambda: len(read_all(self.secure.bootstrap, self.topics.parked)) == 10, "10 parked")

    def drain(self) -> None:
        """Once it is resumed they are drained, and deleted; how far is kept for the next owner of the partition."""
        assert self.site.post(f"/breakers/{self.target}/resume").status == 200
        self._wait(lambda: len(delivered(self.secure, self.namespace)) == 20, "20 events")
        self._wait(lambda: not read_all(self.secure.bootstrap, self.topics.parked), "none parked")
        self._wait(lambda: bool(read_all(self.secure.bootstrap, self.topics.parked_cursors)), "a cursor")

    def restart(self) -> None:
        """The next owner of the partitions knows that nothing is parked any more."""
        assert self.worker.terminate() == 0
        self.worker.start().wait_ready(30)
        asyncio.run(stage(self.settings, range(20, 21)))
        self._wait(lambda: len(delivered(self.secure, self.namespace)) == 21, "21 events")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, self._patience_s, what)

    def _produce(self, *fields: Mapping[str, bytes]) -> None:
        records = [OutRecord(b"k", b"{", [("stage-version", b"1"), *one.items()]) for one in fields]
        produce(self.secure.bootstrap, self.topics.staging, records)

    def _open(self) -> int:
        return sum(topic["open"] for topic in self.site.get("/dlq/").data["topics"])

    def _job(self, kind: str, count: int) -> None:
        answer = self.site.post("/jobs/", {"kind": kind, "reason": "test"})
        assert answer.status in {200, 201, 202}, answer.text
        number = answer.data["job"]["id"]

        def ended() -> bool:
            job = self.site.get(f"/jobs/{number}/").data["job"]
            return bool(job["state"] == "done")

        self._wait(ended, f"{count} letters: {kind}")

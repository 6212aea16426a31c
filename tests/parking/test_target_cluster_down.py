"""The targets' cluster dies, hangs, comes back: events wait in order on staging's cluster, and nothing stops."""

from __future__ import annotations

import shutil

from devtools.kafka import Brokers, Cluster
from tests.parking.parked_shop import ParkedShop


def test_targets_down_and_the_worker_killed(kafka: Brokers, own_kafka: Cluster, namespace: str) -> None:
    """C3, T5, T6: with the targets' cluster dead everything is parked and committed, no DLQ takes a record; a worker
    that starts without that cluster and without its disk, after kill -9, delivers it all in order. A cluster that
    hangs is no other case."""
    shop = ParkedShop(kafka.bootstrap, own_kafka.bootstrap, namespace)
    node = own_kafka.nodes[0]
    with shop.worker() as worker:
        worker.wait_ready()
        shop.stage("order.created", 200)
        shop.stage("report.made", 50)
        shop.wait_delivered()
        node.kill()
        shop.stage("order.created", 300)
        shop.stage("report.made", 50)
        shop.wait_committed(worker)
        assert len(shop.parked()) >= 350
        worker.kill()
        shutil.rmtree(worker.folder / "data", ignore_errors=True)
        worker.start().wait_ready()
        shop.stage("order.created", 100)
        shop.wait_committed(worker)
        assert {record.header["park-target"] for record in shop.parked()} == {
            shop.topic("order.created").encode(),
            shop.topic("report.made").encode(),
        }
        shop.assert_no_dead_letters()
        node.restart()
        own_kafka.wait_ready()
        shop.wait_delivered(repeats=True)
        shop.wait_drained()
        shop.stage("order.created", 100)
        shop.wait_delivered(repeats=True)
        node.pause()
        shop.stage("order.created", 300)
        shop.wait_committed(worker)
        node.resume()
        shop.wait_delivered(repeats=True)
        assert worker.terminate() == 0

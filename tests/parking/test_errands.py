"""Release and move-on with real workers: what is parked ends as an operator orders it, whoever has the partitions."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import pytest

from devtools.kafka import Brokers
from pipeline.redrive.job import JobKind, Order, Part, Wanted, read_told
from tests.cli.command_line import Call, run_all
from tests.kafka_client import OutRecord, produce, read_all, record_count, wait_until
from tests.parking.guarded import WELL
from tests.parking.parked_shop import ParkedShop, id_of
from tests.web.asking import HTML, TOKEN, TOKENS, Site
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

TARGET = "order.created"
MANY = 12_000
"""Events that take long enough to be dead-lettered for something to happen meanwhile."""
_MORE = 40_000
"""Many more than the 8,000 that may be under way when it is heard that they are not to go on."""
ADMIN = {"STREAMING_ADMIN_TOKENS": TOKENS, "STREAMING_CB_TIMEOUT_S": "3600"}


@pytest.fixture
def shop(kafka: Brokers, namespace: str) -> ParkedShop:
    """A namespace on a broker that is well: what parks is what an operator pauses."""
    return ParkedShop(kafka.bootstrap, kafka.bootstrap, namespace)


def pause(site: Site, shop: ParkedShop) -> None:
    """Pause the target."""
    assert site.post(f"/breakers/{shop.topic(TARGET)}/pause").status == 200


def order(site: Site, shop: ParkedShop, how: str, **body: str) -> str:
    """Order it; the job's id."""
    answered = site.post(f"/breakers/{shop.topic(TARGET)}/{how}", body)
    assert answered.status == 200, answered.text
    return str(answered.data["job"]["id"])


def ended(site: Site, job: str, timeout: float = 60.0) -> Mapping[str, Any]:
    """The job once it has ended."""

    def look() -> Mapping[str, Any] | None:
        found: Mapping[str, Any] = site.get(f"/jobs/{job}/").data["job"]
        return found if found["state"] in {"done", "cancelled", "failed"} else None

    found = wait_until(look, timeout, "the end of the job")
    assert found is not None
    return found


def dead(shop: ParkedShop) -> list[str]:
    """The ids of the dead letters of the target, in the order of their partitions."""
    letters = read_all(shop.bootstrap, shop.topic(f"{TARGET}.dlq"))
    return [letter.header["stage-id"].decode() for letter in letters]


def audited(site: Site, action: str) -> list[Mapping[str, Any]]:
    """The audit records of an action, newest first."""
    lines: list[Mapping[str, Any]] = site.get(f"/audit/?action={action}&limit=1000").data["lines"]
    return lines


def test_an_operator_moves_a_tenant_on_and_releases_the_rest(shop: ParkedShop) -> None:
    """P6, Q2, O3: a dry run says how many, whose and since when; a tenant's events go to the dead letters with the
    reason they were parked for, the others are released, in order, though the target is paused; what is staged then is
    parked again; what was moved on is redriven. Each order is audited; without a token nothing is done."""
    with shop.worker(ADMIN) as worker:
        worker.wait_ready()
        site = Site(worker)
        pause(site, shop)
        shop.stage(TARGET, 300)
        shop.stage(WELL, 20)
        shop.wait_committed(worker)
        address = f"/breakers/{shop.topic(TARGET)}/"

        whole = site.get(address).data["parked"]
        assert (whole["count"], whole["is_whole"], whole["reasons"]) == (300, True, ["paused by ann"])
        assert {share["name"]: share["count"] for share in whole["tenants"]} == {
            f"tenant-{number}": 60 for number in range(5)
        }
        assert whole["definitions"] == [{"name": TARGET, "count": 300}]
        chosen = site.get(f"{address}?tenant=tenant-3").data["parked"]
        assert (chosen["count"], len(chosen["partitions"])) == (60, 1)
        page = site.get(f"{address}?tenant=tenant-3", HTML).text
        assert "Parked for" in page
        assert "tenant-3" in page

        assert site.post(f"{address}move-on", {"tenant": "tenant-3"}, token=None).status == 401
        assert site.post(f"{address}move-on", {"partition": "99"}).status == 400
        assert site.post("/breakers/no.such/release").status == 404
        assert record_count(shop.bootstrap, shop.topic("parked")) == 300
        assert dead(shop) == []

        moved = ended(site, order(site, shop, "move-on", tenant="tenant-3", reason="they can wait"))
        assert (moved["state"], moved["done"], moved["total"], moved["held"]) == ("done", 60, 60, {})
        wanted = shop.wanted.pop((TARGET, b"tenant-3"))
        assert dead(shop) == wanted
        letter = read_all(shop.bootstrap, shop.topic(f"{TARGET}.dlq"))[0]
        assert letter.header["dlq-error-class"] == b"broker_unavailable"
        assert letter.header["dlq-disposition"] == b"operator"
        assert letter.header["dlq-error-message"] == (
            b"paused by ann; moved on from parking by 'ann': 'they can wait'"
        )
        assert (letter.header["dlq-source-topic"], letter.header["dlq-retry-count"]) == (
            shop.topic(TARGET).encode(),
            b"0",
        )
        assert not any(name.startswith("park-") for name, _ in letter.headers)
        assert site.get(address).data["parked"]["count"] == 240
        again = ended(site, order(site, shop, "move-on", tenant="tenant-3"))
        assert (again["state"], again["done"]) == ("done", 0)

        released = ended(site, order(site, shop, "release"))
        assert (released["state"], released["done"], released["held"]) == ("done", 240, {})
        shop.wait_delivered()
        shop.wait_drained()
        shop.stage(TARGET, 10, tenants=2)
        shop.wait_committed(worker)
        assert record_count(shop.bootstrap, shop.topic("parked")) == 10
        assert site.post(f"{address}resume").status == 200
        shop.wait_delivered()

        redrive = {"kind": "redrive", "topic": shop.topic(f"{TARGET}.dlq")}
        wait_until(lambda: site.get("/dlq/").data["open"] == 60, 30, "an index that knows them")
        assert ended(site, site.post("/jobs/", redrive).data["job"]["id"])["done"] == 60
        wait_until(lambda: len(shop.on(TARGET)) == 310, 30, "the redriven")
        ids = [id_of(record) for record in shop.on(TARGET) if record.key == b"tenant-3"]
        assert [one for one in ids if one in wanted] == wanted

        (ordered,) = [one for one in audited(site, "move-on.ordered") if one["facts"]["count"] == 60]
        assert (ordered["by"], ordered["facts"]["reason"]) == ("ann", "they can wait")
        assert ordered["facts"]["selection"]["tenant"] == "tenant-3"
        assert [one["facts"]["count"] for one in audited(site, "move-on.done")] == [0, 60]
        assert [one["facts"]["count"] for one in audited(site, "release.done")] == [240]
        assert worker.terminate() == 0


def test_the_same_from_the_command_line(shop: ParkedShop) -> None:
    """O2: `breakers release` and `move-on` show what they would meet and how far they are; the exit status is 0 only
    where all of it has ended."""
    with shop.worker(ADMIN) as worker:
        worker.wait_ready()
        site = Site(worker)
        pause(site, shop)
        shop.stage(TARGET, 50)
        shop.wait_committed(worker)
        settings = {"WEB_PORT": str(worker.web_port), "ADMIN_TOKENS": TOKENS}
        target = shop.topic(TARGET)
        look, nobody = run_all(
            Call(("breakers", "move-on", target, "--tenant", "tenant-1", "--dry-run"), settings),
            Call(("breakers", "release", target), settings),
        )
        assert (look.status, "10 parked for" in look.out) == (0, True)
        assert (nobody.status, "--token" in nobody.err) == (1, True)
        token = ("--token", TOKEN)
        (moved,) = run_all(Call(("breakers", "move-on", target, "--tenant", "tenant-1", *token), settings))
        assert (moved.status, "move-on done, 10 of 10 done" in moved.out) == (0, True), moved
        (released,) = run_all(Call(("breakers", "release", target, "--json", *token), settings))
        assert (released.status, released.document["done"]) == (0, 40)
        shop.wanted.pop((TARGET, b"tenant-1"))
        shop.wait_delivered()


def test_killed_in_the_middle_of_a_move_on(shop: ParkedShop) -> None:
    """P6, Q5: a worker is killed while it moves on what is parked in its partitions; the other takes them over and goes
    on up to where it was to go: every event is dead-lettered, in order, few twice, nothing that came later is."""
    with shop.worker(ADMIN) as first, shop.worker(ADMIN) as second:
        first.wait_ready()
        second.wait_ready()
        pause(Site(first), shop)
        wait_until(
            lambda: "paused by ann" in Site(second).get("/breakers/").text, 20, "the pause to be known"
        )
        shop.stage(TARGET, MANY, tenants=30)
        _wait_parked(shop, MANY)
        shop.wait_committed(first)
        victim, other = _owner(shop, first, second)
        site = Site(other)
        job = order(site, shop, "move-on")
        shop.stage(TARGET, 100, tenants=30)
        _wait_begun(shop)
        victim.signal(signal.SIGSTOP)
        assert record_count(shop.bootstrap, shop.topic(f"{TARGET}.dlq")) < MANY, "it was through already"
        victim.kill()
        found = ended(site, job, 120)
        assert (found["state"], found["held"]) == ("done", {})
        letters = dead(shop)
        for (_, tenant), ids in shop.wanted.items():
            mine = [one for one in dict.fromkeys(letters) if one in set(ids)]
            assert mine == ids[: len(mine)], tenant
        assert len(set(letters)) == MANY
        assert len(letters) < 2 * MANY
        assert Site(other).post(f"/breakers/{shop.topic(TARGET)}/resume").status == 200
        wait_until(lambda: len({id_of(record) for record in shop.on(TARGET)}) == 100, 60, "the rest")
        shop.wait_drained(60)


def _wait_begun(shop: ParkedShop) -> None:
    dlq = shop.topic(f"{TARGET}.dlq")
    wait_until(lambda: record_count(shop.bootstrap, dlq) > 200, 60, "a part of the move-on")


def _wait_parked(shop: ParkedShop, count: int) -> None:
    wait_until(lambda: record_count(shop.bootstrap, shop.topic("parked")) >= count, 60, "parked events")


def _owner(
    shop: ParkedShop, first: WorkerProcess, second: WorkerProcess
) -> tuple[WorkerProcess, WorkerProcess]:
    """The worker that has more parked, and the other."""

    def parked(worker: WorkerProcess) -> int:
        targets = Site(worker).get("/breakers/").data["targets"]
        return sum(one["parked_records"] for one in targets if one["target"] == shop.topic(TARGET))

    workers = sorted((first, second), key=parked)
    return workers[1], workers[0]


def test_what_no_worker_knows_can_be_moved_on_and_not_released(shop: ParkedShop) -> None:
    """P6, C3: a release of what this worker cannot deliver ends with what is still parked, counted, and why; a move-on
    makes dead letters of it that say so. Nothing is lost."""
    with shop.worker(ADMIN) as worker:
        worker.wait_ready()
        site = Site(worker)
        shop.stage("gift.sent", 30)
        shop.wait_committed(worker)
        address = "/breakers/definition:gift.sent/"
        refused = ended(site, site.post(f"{address}release").data["job"]["id"])
        assert (refused["state"], refused["done"], refused["held"]) == ("done", 0, {"still_parked": 30})
        assert "is not known to this worker" in refused["error"]
        moved = ended(site, site.post(f"{address}move-on").data["job"]["id"])
        assert (moved["done"], moved["held"]) == (30, {})
        letters = read_all(shop.bootstrap, shop.topic("staging.dlq"))
        assert {letter.header["dlq-error-class"] for letter in letters} == {b"validation_error"}
        assert {letter.header["dlq-disposition"] for letter in letters} == {b"operator"}
        assert len(letters) == 30
        assert site.get("/breakers/").data["unknown"] == []


def test_a_job_rests_goes_on_and_is_cancelled(shop: ParkedShop) -> None:
    """P6, Q5: a paused job rests, and goes on where it was; it ends when it is noted that nothing is parked any more;
    a cancelled one ends, what it did stays done, and the rest stays parked. Each order is audited, with its count."""
    with shop.worker(ADMIN) as worker:
        worker.wait_ready()
        site = Site(worker)
        pause(site, shop)
        shop.stage(TARGET, _MORE)
        _wait_parked(shop, _MORE)
        shop.wait_committed(worker)
        job = order(site, shop, "move-on")
        assert site.post(f"/jobs/{job}/pause").status == 200
        wait_until(lambda: site.get(f"/jobs/{job}/").data["job"]["state"] == "paused", 20, "a rest")
        wait_until(lambda: len(dead(shop)) + parked_now(site, shop) == _MORE, 20, "a count that is true")
        assert len(dead(shop)) < _MORE
        assert site.post(f"/jobs/{job}/resume").status == 200
        assert ended(site, job)["done"] == _MORE == len(dead(shop))
        assert parked_now(site, shop) == 0
        assert told_last(shop, job) >= noted_last(shop)

        shop.stage(TARGET, 100)
        shop.wait_committed(worker)
        paused = Order(
            job="paused",
            kind=JobKind.MOVE_ON,
            selection={"topic": shop.topic(TARGET), "state": "any"},
            rate=0,
            by="ann",
            reason="",
            at=4_000_000_000.0,
            want=Wanted.PAUSE,
        )
        key, value, _ = paused.record()
        produce(shop.bootstrap, shop.topic("jobs"), [OutRecord(key, value)])
        wait_until(lambda: site.get("/jobs/paused/").status == 200, 20, "the job to be known")
        assert site.post("/jobs/paused/cancel").status == 200
        cancelled = ended(site, "paused")
        assert (cancelled["state"], cancelled["done"]) == ("cancelled", 0)
        assert parked_now(site, shop) == 100
        assert [one["facts"]["count"] for one in audited(site, "move-on.cancelled")] == [0]


def told_last(shop: ParkedShop, job: str) -> int:
    """When the end of the last part of a job was told, ms since 1970."""
    records = read_all(shop.bootstrap, shop.topic("jobs"))
    told = [(record.timestamp, read_told(record.value)) for record in records]
    return max(at for at, one in told if isinstance(one, Part) and one.job == job and one.state.is_final)


def noted_last(shop: ParkedShop) -> int:
    """When it was noted that nothing is parked for the target any more, ms since 1970."""
    return max(record.timestamp for record in read_all(shop.bootstrap, shop.topic("parked.cursors")))


def parked_now(site: Site, shop: ParkedShop) -> int:
    """How many are parked for the target."""
    return int(site.get(f"/breakers/{shop.topic(TARGET)}/").data["parked"]["count"])

"""What an operator does about events that are parked, in a real browser; and when dead letters failed (O1, P6)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from devtools.kafka import Brokers
from tests.kafka_client import wait_until
from tests.parking.parked_shop import ParkedShop
from tests.web.asking import TOKENS, Site
from tests.web.chromium import Browser, chromium
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

WITH_SCRIPTS, WITHOUT = "order.created", "trap.sprung"
DEAD = "payout.sent"
TENANTS = 5


@pytest.fixture(scope="module")
def shop(kafka: Brokers) -> Iterator[tuple[ParkedShop, Site, WorkerProcess]]:
    """A shop where two targets were paused and have 100 events parked each, of five tenants; and whose payouts were
    dead-lettered, half of them later than the others."""
    shop = ParkedShop(kafka.bootstrap, kafka.bootstrap, f"t{os.urandom(4).hex()}")
    env = {"STREAMING_ADMIN_TOKENS": TOKENS, "STREAMING_EVENT_POLICIES": f"{DEAD}.enabled=false"}
    with shop.worker(env) as worker:
        site = Site(worker.wait_ready())
        for target in (WITH_SCRIPTS, WITHOUT):
            assert site.post(f"/breakers/{shop.topic(target)}/pause", {"reason": "repairs"}).status == 200
        shop.stage(DEAD, 30)
        shop.wait_committed(worker)
        for definition, count in ((WITH_SCRIPTS, 100), (WITHOUT, 100), (DEAD, 10)):
            shop.stage(definition, count)
        shop.wait_committed(worker)
        wait_until(lambda: site.get("/").data["dead"] == 40, 30, "the index")
        yield shop, site, worker


def rows(browser: Browser, heading: str) -> dict[str, str]:
    """A table of what is parked, by its heading: number by name."""
    table = browser.driver.find_element("xpath", f"//h2[text()='{heading}']/following-sibling::div[1]/table")
    cells = [
        row.find_elements("css selector", "th, td") for row in table.find_elements("css selector", "tbody tr")
    ]
    return {name.text: number.text for name, number in cells}


def parked(site: Site, topic: str) -> int:
    """How many events the API says are parked for a target."""
    return int(site.get(f"/breakers/{topic}/").data["parked"]["count"])


def put_right(browser: Browser, shop: ParkedShop, site: Site, target: str) -> None:
    """From the breakers' page: what is parked, a dry run for one tenant, move that on, release the others."""
    topic = shop.topic(target)
    browser.open("/breakers/")
    row = browser.find(f'tr[id="{topic}"]')
    assert "paused" in row.text
    row.find_element("partial link text", "100").click()
    browser.shot("parked")
    assert browser.path == f"/breakers/{topic}/"
    assert f"Parked for {topic}: 100" in browser.text
    assert "paused by ann" in browser.said("dl.facts")
    assert "ago" in browser.said("dl.facts time")
    assert rows(browser, "Tenants") == {f"tenant-{number}": "20" for number in range(TENANTS)}
    assert rows(browser, "Definitions") == {target: "100"}

    browser.find("input[name=tenant]").send_keys("tenant-3")
    browser.click("form[method=get] button")
    browser.shot("dry-run")
    assert browser.path.startswith(f"/breakers/{topic}/?tenant=tenant-3")
    assert f"Parked for {topic}: 20" in browser.text
    assert rows(browser, "Tenants") == {"tenant-3": "20"}
    assert browser.count("form[action$=move-on], form[action$=release]") == 0
    browser.link("log in").click()
    browser.log_in()

    browser.open(f"/breakers/{topic}/?tenant=tenant-3")
    assert browser.count("form[action$=release]") == 0  # what stands behind others cannot go first
    browser.find("form[action$=move-on] input[name=reason]").send_keys("tenant-3 can wait")
    browser.click("form[action$=move-on] button")
    wait_done(browser, 20)
    browser.shot("moved-on")
    wait_until(lambda: parked(site, topic) == 80, 10, "the cursors to be written")

    browser.open(f"/breakers/{topic}/")
    assert rows(browser, "Tenants") == {f"tenant-{number}": "20" for number in (0, 1, 2, 4)}
    browser.find("form[action$=release] input[name=reason]").send_keys("the others go now")
    browser.click("form[action$=release] button")
    wait_done(browser, 80)
    browser.shot("released")
    wait_until(lambda: parked(site, topic) == 0, 10, "the cursors to be written")
    browser.open(f"/breakers/{topic}/")
    assert f"Parked for {topic}: 0" in browser.text
    browser.open("/audit/?action=move-on.ordered")
    assert "tenant-3 can wait" in browser.text
    assert {record.key for record in shop.on(target)} == {b"tenant-%d" % number for number in (0, 1, 2, 4)}
    assert {record.key for record in shop.on(f"{target}.dlq")} == {b"tenant-3"}


def wait_done(browser: Browser, count: int) -> None:
    """Until the job's page says its end; without scripts by loading it again."""

    def ended() -> bool:
        if not browser.javascript:
            browser.driver.refresh()
        return "done" in browser.said("p[role=status] .pill")

    wait_until(ended, 30, "the job to end")
    assert f"{count} of {count} done" in browser.text


def see_when(browser: Browser, shop: ParkedShop) -> None:
    """From the dead letters of a topic to the dry run: when they failed, as a picture and as a table."""
    browser.open(f"/dlq/{shop.topic(DEAD)}.dlq/")
    browser.link("Redrive or discard these 40").click()
    browser.shot("histogram")
    assert "Dry run: 40 dead letters" in browser.text
    picture = "svg[aria-labelledby=times]"
    bars = browser.all(f"{picture} rect")
    heights = [bar.size["height"] for bar in bars]
    assert len(heights) == 24
    assert (max(heights), heights[0] > 0, heights[-1] > 0) == (60, True, True)
    browser.click("main details summary")
    cells = browser.all("table[aria-labelledby=times] tbody td.num")
    assert sum(int(cell.text) for cell in cells) == 40
    assert len(cells) == sum(height > 0 for height in heights)


@pytest.mark.parametrize(("javascript", "target"), [(True, WITH_SCRIPTS), (False, WITHOUT)])
def test_an_operator_puts_right_what_is_parked(
    shop: tuple[ParkedShop, Site, WorkerProcess], javascript: bool, target: str
) -> None:
    """O1, O3, P6: the page of a target says what is parked, for whom, since when and why; a dry run for one tenant;
    its events are moved on, the others released; the audit says why. The dry run of dead letters says when they
    failed. With scripts and without."""
    world, site, worker = shop
    name = "parked" if javascript else "parked-no-script"
    with chromium(f"http://127.0.0.1:{worker.web_port}", name, javascript=javascript) as browser:
        see_when(browser, world)
        put_right(browser, world, site, target)
        assert browser.complaints() == []

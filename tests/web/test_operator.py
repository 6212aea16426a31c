"""An operator's night: from the first look to the audit line, in a real browser (O1, O3, Q3, Q5)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest

from devtools.kafka import Brokers
from tests.kafka_client import create_topic, produce, read_all, wait_until
from tests.web.asking import HTML, TOKENS, Site
from tests.web.chromium import Browser, chromium
from tests.web.disaster import FIXABLE, GROUPS, HOSTILE_ID, HOSTILE_PAYLOADS, LETTERS, hostile, records
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka


class Night(NamedTuple):
    """A worker, after everything was dead-lettered and what caused one group was mended."""

    worker: WorkerProcess
    site: Site
    bootstrap: str
    namespace: str
    paused_at: float

    @property
    def base(self) -> str:
        """Where its pages are."""
        return f"http://127.0.0.1:{self.worker.web_port}"

    def topic(self, name: str) -> str:
        """The dead-letter topic of a target."""
        return f"{self.namespace}.{name}.dlq"

    def open(self, name: str, **conditions: str) -> int:
        """How many open dead letters of a topic the API counts."""
        query = "&".join(f"{key}={value}" for key, value in conditions.items())
        groups = self.site.get(f"/dlq/{self.topic(name)}/?{query}").data["groups"]
        return sum(group["count"] for group in groups)


@pytest.fixture(scope="module")
def night(kafka: Brokers) -> Iterator[Night]:
    """The disaster, seeded through a real worker; a second worker knows how to deliver the fixable group."""
    namespace = f"t{os.urandom(4).hex()}"
    create_topic(kafka.bootstrap, f"{namespace}.staging", 6)
    produce(kafka.bootstrap, f"{namespace}.staging", [*records(), *hostile()])
    env = {"STREAMING_ADMIN_TOKENS": TOKENS}
    disabled = env | {"STREAMING_EVENT_POLICIES": "payout.sent.enabled=false"}
    with WorkerProcess(kafka.bootstrap, namespace, catalog="tests.catalogs.shop", env=disabled) as worker:
        site = Site(worker.wait_ready())
        wait_until(
            lambda: site.get("/").data["dead"] == LETTERS + len(HOSTILE_PAYLOADS), 60, "all dead letters"
        )
        assert site.post(f"/breakers/{namespace}.clock.ticked/pause", {"reason": "repairs"}).status == 200
        paused_at = time.time()
        assert worker.terminate() == 0
    with WorkerProcess(kafka.bootstrap, namespace, catalog="tests.catalogs.shop", env=env) as worker:
        site = Site(worker.wait_ready())
        wait_until(lambda: site.get("/").data["dead"] == LETTERS + len(HOSTILE_PAYLOADS), 60, "the index")
        yield Night(worker, site, kafka.bootstrap, namespace, paused_at)


def test_the_disaster_is_what_it_is_meant_to_be(night: Night) -> None:
    """O1: ten thousand dead letters are twelve kinds of failure on five topics, of thirty tenants, as counted by the
    pages."""
    found = night.site.get("/dlq/").data
    assert {topic["topic"] for topic in found["topics"]} == {night.topic(group.topic) for group in GROUPS}
    kinds = [
        group
        for topic in found["topics"]
        for group in night.site.get(f"/dlq/{topic['topic']}/").data["groups"]
        if "<b>evil</b>" not in group["tenants"]
    ]
    assert sorted(group["count"] for group in kinds) == sorted(group.letters for group in GROUPS)
    assert {group["tenant_count"] for group in kinds} == {30}


def test_a_pause_outlasts_the_worker(night: Night) -> None:
    """O3: what an operator has paused is still paused for the worker that was started next, and says who did it and
    when; once resumed it is open again."""
    target = f"{night.namespace}.clock.ticked"

    def now() -> dict[str, Any]:
        targets = {item["target"]: item for item in night.site.get("/breakers/").data["targets"]}
        found: dict[str, Any] = targets[target]
        return found

    def standing() -> tuple[str, str]:
        return now()["state"], now()["paused_by"]

    wait_until(lambda: standing() == ("open", "ann"), 20, "the order to be read")
    assert now()["since"] <= night.paused_at
    assert night.site.metric("stagepost_breaker_state", target=target) == 2
    assert night.site.post(f"/breakers/{target}/resume").status == 200
    assert standing() == ("closed", "")
    assert night.site.metric("stagepost_breaker_state", target=target) == 0


def find_the_group(browser: Browser, night: Night) -> None:
    """From the overview to the kind of failure that most events died of."""
    browser.open("/")
    browser.shot("overview")
    assert "Open dead letters" in browser.text
    browser.link(night.topic("payout.sent")).click()
    browser.shot("topic")
    assert f"{FIXABLE.letters:,}" in browser.said("#groups ~ .scroll")
    browser.link("is disabled by its delivery policy").click()
    assert f"{FIXABLE.letters:,} selected, 1 kind" in browser.text


def read_a_record(browser: Browser) -> None:
    """One record in full."""
    browser.find("section[aria-labelledby=letters] tbody a").click()
    browser.shot("record")
    text = browser.text
    assert '"amount": "12.00"' in text
    assert "dlq-error-class" in text
    assert "kind of failure" in text
    assert "tenant-" in text
    browser.driver.back()


def test_the_operators_way(night: Night) -> None:
    """O1, O3, Q3, Q5: find the group, read a record, dry run, redrive with progress, pause, go on; the count falls, the
    events are delivered, and the audit says who did it."""
    with chromium(night.base, "operator") as browser:
        find_the_group(browser, night)
        read_a_record(browser)
        browser.link("Redrive or discard these").click()
        browser.shot("dry-run")
        assert f"Dry run: {FIXABLE.letters:,} dead letters" in browser.text
        assert night.open("payout.sent") == FIXABLE.letters + 400
        browser.link("log in").click()
        browser.log_in()
        assert browser.path.startswith("/jobs/preview?")
        form = browser.find("form.card")
        form.find_element("name", "rate").clear()
        form.find_element("name", "rate").send_keys("400")
        form.find_element("name", "reason").send_keys("payouts are enabled again")
        form.find_element("css selector", "button").click()
        assert browser.path.startswith("/jobs/")
        wait_until(lambda: "running" in browser.text, 20, "the job to run, without a click")
        browser.click("form[action$=pause] button")
        wait_until(lambda: "paused" in browser.said("p[role=status]"), 20, "the job to pause")
        browser.shot("paused")
        assert "Resume" in browser.text
        before = night.open("payout.sent")
        assert 400 < before <= FIXABLE.letters + 400
        browser.click("form[action$=resume] button")
        wait_until(
            lambda: "done" in browser.said("p[role=status] .pill"), 60, "the job to end, without a click"
        )
        browser.shot("done")
        assert f"{FIXABLE.letters:,} of {FIXABLE.letters:,} done" in browser.text
        browser.link("What ann did").click()
        browser.shot("audit")
        assert "payouts are enabled again" in browser.text
        assert "redrive.ordered" in browser.text
        wait_until(lambda: night.open("payout.sent") == 400, 20, "the count to fall")
        open_now = night.topic("payout.sent")
        wait_until(
            lambda: night.site.metric("stagepost_dead_letters_open", topic=open_now) == 400, 20, "the gauge"
        )
        assert browser.complaints() == []
    delivered = read_all(night.bootstrap, f"{night.namespace}.payout.sent")
    assert {record.header["ce_id"] for record in delivered} == {b"g0-%d" % n for n in range(FIXABLE.letters)}


def test_the_operators_way_without_javascript(night: Night) -> None:
    """O1: the same way with scripts switched off: links, forms, and loading again to see how far it is."""
    with chromium(night.base, "no-script", javascript=False) as browser:
        browser.open(f"/dlq/{night.topic('trap.sprung')}/")
        field = browser.find("input[name=tenant]")
        field.send_keys("tenant-07")
        field.submit()
        wait_until(lambda: "tenant=tenant-07" in browser.path, 10, "the filtered page")
        count = night.open("trap.sprung", tenant="tenant-07")
        assert f"{count} selected" in browser.text
        browser.link("Redrive or discard these").click()
        browser.link("log in").click()
        browser.log_in()
        discard = browser.all("form.card")[1]
        discard.find_element("name", "reason").send_keys("a test order")
        discard.find_element("css selector", "button").click()

        def ended() -> bool:
            browser.driver.refresh()
            return "done" in browser.said("p[role=status] .pill")

        wait_until(ended, 30, "the job to end")
        browser.shot("discarded")
        browser.open(f"/dlq/{night.topic('trap.sprung')}/?tenant=tenant-07")
        assert "Nothing is selected." in browser.text
        browser.open(f"/dlq/{night.topic('trap.sprung')}/?tenant=tenant-07&state=discarded")
        assert f"{count} selected" in browser.text
        browser.open("/audit/?action=discard.ordered")
        assert "a test order" in browser.text


def test_hostile_records_harm_nobody(night: Night) -> None:
    """O1: script tags, terminal escapes, turned text, invalid UTF-8 and a line of 900 KB are shown, and do nothing."""
    topic = night.topic("trap.sprung")
    letters = night.site.get(f"/dlq/{topic}/?tenant=%3Cb%3Eevil%3C/b%3E").data["letters"]
    assert len(letters) == len(HOSTILE_PAYLOADS)
    with chromium(night.base, "hostile") as browser:
        browser.open(f"/dlq/{topic}/?tenant=%3Cb%3Eevil%3C/b%3E")
        assert HOSTILE_ID in browser.text
        browser.shot("list")
        for letter in letters:
            at = f"/dlq/{topic}/{letter['partition']}/{letter['offset']}/"
            browser.open(at)
            assert browser.driver.title != "owned"
            assert "<script>alert(1)</script>" in browser.text
            assert browser.count("main script, main img, main b") == 0
            page = night.site.get(at, HTML)
            assert not set(page.text) & {"\x1b", "\x07", "\u202e", "\u200b", "\x00"}
            assert len(page.text) < 200_000
            raw = night.site.get(f"{at}payload").headers
            assert raw["Content-Disposition"].startswith("attachment")
            assert raw["Content-Type"] == "application/octet-stream"
        browser.shot("record")
        assert browser.complaints() == []


_FIELDS = "input:not([type=hidden]):not([aria-label]), select"
_OUT_OF_REACH = """
    const reached = "a[href], button, summary, input, [tabindex='0']";
    const scrolled = [...document.querySelectorAll("main *")].filter((one) =>
        one.scrollWidth > one.clientWidth + 1 && ["auto", "scroll"].includes(getComputedStyle(one).overflowX));
    const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
    const unreached = scrolled.filter((one) => !one.matches(reached) && !one.querySelector(reached));
    return [...unreached.map((one) => one.outerHTML), ...ids.filter((id, at) => ids.indexOf(id) !== at)];
"""


def test_pages_fit_phones_and_the_dark(night: Night) -> None:
    """O1: no page is wider than a phone, what is wider is scrolled by keyboard too, the keyboard reaches the content
    first, every field has a name, no id is there twice, and dark mode is followed."""
    topic = night.topic("order.paid")
    letter = night.site.get(f"/dlq/{topic}/").data["letters"][0]
    paths = (
        "/",
        "/dlq/",
        f"/dlq/{topic}/",
        "/breakers/",
        "/login",
        "/catalog/",
        "/catalog/order.paid/",
        "/audit/",
        "/jobs/",
        f"/jobs/preview?topic={topic}",
        f"/dlq/{topic}/{letter['partition']}/{letter['offset']}/",
        f"/breakers/{night.namespace}.order.paid/",
    )
    with chromium(night.base, "phone", dark=True) as browser:
        browser.become_a_phone()
        for number, path in enumerate(paths):
            browser.open(path)
            assert browser.driver.execute_script(_OUT_OF_REACH) == [], path
            fits = partial(
                browser.driver.execute_script, "return document.documentElement.scrollWidth == 360"
            )
            wait_until(fits, 10, f"{path} to be as wide as the phone")
            background = browser.find("body").value_of_css_property("background-color")
            assert background == "rgba(13, 17, 23, 1)"
            if number < 4:
                browser.shot(path.strip("/").partition("/")[0] or "overview")
            unnamed = browser.driver.find_elements("css selector", _FIELDS)
            assert all(field.get_property("labels") for field in unnamed), path
        browser.driver.switch_to.active_element.send_keys("\ue004")  # tabulator
        assert browser.driver.switch_to.active_element.text == "Skip to content"

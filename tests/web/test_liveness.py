"""What scripts add: parts of a page follow the worker, and leave to its reader what he has in hand (O1)."""

from __future__ import annotations

import pytest

from tests.kafka_client import wait_until
from tests.web.asking import Site
from tests.web.chromium import chromium
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

_HOLD = """
    window.table = document.querySelector(".scroll");
    window.button = document.querySelector('form[action="' + arguments[0] + '"] button');
    table.scrollLeft = 150;
    button.focus({preventScroll: true});
"""
_HELD = """
    return [table.isConnected, table.scrollLeft, document.activeElement === button,
            button.form.getAttribute("action")];
"""


def test_a_page_that_follows_the_worker_takes_nothing_out_of_hand(site: Site, worker: WorkerProcess) -> None:
    """O1: on a phone, with a table scrolled to the side and a button in focus, another target is paused: it comes
    to the head of the list, while the table stays where it was scrolled to, and the button in focus the same one."""
    targets = [found["target"] for found in site.get("/breakers/").data["targets"]]
    own, other = f"/breakers/{targets[0]}/pause", targets[-1]
    with chromium(f"http://127.0.0.1:{worker.web_port}", "live") as browser:
        browser.become_a_phone()
        browser.open("/login?next=/breakers/")
        browser.log_in()
        browser.driver.execute_script(_HOLD, own)
        assert site.post(f"/breakers/{other}/pause", {"reason": "repairs"}).status == 200
        try:
            wait_until(
                lambda: other in browser.said("tbody tr:first-child th"), 20, "the target to come first"
            )
            assert browser.driver.execute_script(_HELD) == [True, 150, True, own]
        finally:
            assert site.post(f"/breakers/{other}/resume").status == 200
        wait_until(lambda: "paused" not in browser.said("tbody"), 20, "the pause to end")
        assert browser.driver.execute_script(_HELD) == [True, 150, True, own]
        assert browser.complaints() == []


def test_what_needs_attention_is_announced_once(site: Site, worker: WorkerProcess) -> None:
    """O1: what is wrong comes into a live region that stays the same one, or no screen reader announces it; how long it
    has been so changes all the time, and is not announced."""
    target = site.get("/breakers/").data["targets"][0]["target"]
    text = f"{target} is paused by ann"
    with chromium(f"http://127.0.0.1:{worker.web_port}", "announced") as browser:
        browser.open("/")
        browser.driver.execute_script("window.region = document.querySelector('[aria-live=polite]')")
        before = browser.said("footer time")
        assert site.post(f"/breakers/{target}/pause").status == 200
        try:
            wait_until(lambda: text in browser.said("[aria-live=polite]"), 20, "the pause to be shown")
            region = "return region.isConnected && region.textContent.includes(arguments[0])"
            assert browser.driver.execute_script(region, text)
            item = next(li for li in browser.all(".attention li") if text in li.text)
            assert item.find_element("css selector", "strong").text == text
            assert "for " in item.find_element("css selector", "[aria-live=off]").text
            assert browser.said("footer time") > before
        finally:
            assert site.post(f"/breakers/{target}/resume").status == 200
        wait_until(lambda: text not in browser.text, 20, "the pause to end")

"""The pages of a running worker: for people and for programs, and closed to whoever must not change anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

import pytest

from devtools.kafka import Brokers
from pipeline.metrics import ALL
from pipeline.web.access import Reason
from tests.kafka_client import produce, wait_until
from tests.web.asking import HTML, JSON, TOKEN, Answered, Site
from tests.worker.shop_records import staged
from tests.worker_harness import WorkerProcess

pytestmark = pytest.mark.kafka

PAGES = (
    "/",
    "/dlq/",
    "/dlq/no.such.dlq/",
    "/jobs/",
    "/jobs/preview",
    "/breakers/",
    "/catalog/",
    "/catalog/order.created/",
    "/audit/",
)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_html_for_people_and_json_for_programs(site: Site, path: str) -> None:
    """O1: the same address gives a page to a browser, and the same data as JSON to who asks for it."""
    page, data = site.get(path, HTML), site.get(path, JSON)
    assert (page.status, data.status) == (200, 200)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert data.headers["Content-Type"] == "application/json; charset=utf-8"
    assert isinstance(data.data, dict)
    assert page.text.count("<h1") == 1
    assert '<main id="main"' in page.text


@pytest.mark.parametrize(
    "path", [*PAGES, "/health/live", "/metrics", "/openapi.json", "/assets/stagepost.js", "/no"]
)
def test_every_response_forbids_what_a_page_does_not_need(site: Site, path: str) -> None:
    """O3: no response may be framed, sniffed, kept, or run a script of anybody else's, an error neither."""
    headers = site.get(path, HTML).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "stagepost"


@pytest.mark.parametrize("path", PAGES)
def test_pages_bring_everything_with_them(site: Site, path: str) -> None:
    """O1: no page loads anything from elsewhere, and none has script or style in it."""
    text = site.get(path, HTML).text
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert not re.search(r"<style|style=|<script(?! src=\"/assets/)|\son\w+=", text)


@pytest.mark.parametrize(
    "path", ["/table/", "/router/", "/router/topics", "/graph/", "/performance/", "/static/"]
)
def test_faust_shows_nothing_of_its_own(site: Site, path: str) -> None:
    """O1: Faust's pages are off, which would show tables and topology to everybody."""
    assert site.get(path).status == 404
    assert "agents" not in site.get("/").data


def test_an_address_without_its_slash_leads_to_the_page(site: Site) -> None:
    """O1: who forgets the last slash is sent on, and keeps the query."""
    found = site.get("/audit?limit=3")
    assert (found.status, found.headers["Location"]) == (308, "/audit/?limit=3")


def test_metrics_are_those_of_the_list(site: Site) -> None:
    """O4: what is exported is named in one place, with its kind, its help and its labels, and none names a tenant."""
    wait_until(lambda: "stagepost_lag_records{" in site.get("/metrics").text, 10, "the first fetch")
    text = site.get("/metrics").text
    known = {metric.name: metric for metric in ALL}
    for name, kind in re.findall(r"^# TYPE (stagepost_\w+) (\w+)$", text, re.MULTILINE):
        assert known[name].kind == kind
        assert f"# HELP {name} {known[name].help}\n" in text
    assert {"stagepost_ready", "stagepost_lag_records"} <= set(
        re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)
    )
    assert not any("tenant" in label for metric in ALL for label in metric.labels)
    assert site.metric("stagepost_ready") == 1
    reasons = re.findall(r'^stagepost_web_refused_total{reason="(\w+)"}', text, re.MULTILINE)
    assert sorted(reasons) == sorted(Reason)


def test_a_target_is_paused_resumed_and_reset(site: Site, worker: WorkerProcess) -> None:
    """O3, B1: with a token a target can be paused and resumed; each change is in the audit with the token's name."""
    topic = f"{site.get('/catalog/').data['definitions'][0]['topic']}"
    paused = site.post(f"/breakers/{topic}/pause", {"reason": "deploy"})
    assert paused.status == 200
    assert (paused.data["target"]["state"], paused.data["target"]["paused_by"]) == ("open", "ann")
    assert any(topic in item["text"] for item in site.get("/").data["attention"])
    csrf = site.log_in()
    answer = site.submit(f"/breakers/{topic}/resume", {"csrf": csrf})
    assert (answer.status, answer.headers["Location"]) == (303, f"/breakers/#{topic}")
    assert site.post(f"/breakers/{topic}/reset").data["target"]["state"] == "closed"
    lines = [line for line in site.get("/audit/?by=ann").data["lines"] if line["subject"] == topic]
    newest = [line["action"] for line in lines[:3]]  # other tests of this worker pause the target, too
    assert newest == ["breaker.reset", "breaker.resume", "breaker.pause"]
    assert lines[2]["facts"] == {"reason": "deploy", "state": "closed"}
    assert site.post("/breakers/no.such.target/pause").status == 404


def test_whatever_must_not_change_anything_does_not(site: Site) -> None:
    """O3: a change without a token, with a wrong one, from another origin, with a stolen session or a forged body is
    refused, counted, and changes nothing."""
    targets = site.get("/breakers/").data["targets"]
    topic = targets[0]["target"]
    path = f"/breakers/{topic}/pause"
    csrf = site.log_in()
    other = site.stranger()
    elsewhere = {"Origin": "http://evil.example"}
    attempts: list[tuple[int, str, Callable[[], Answered]]] = [
        (401, "no_token", lambda: other.post(path, token=None)),
        (401, "wrong_token", lambda: other.post(path, token="wrong")),
        (401, "wrong_token", lambda: other.post(path, headers={"Authorization": "Basic YW5uOmE="})),
        (401, "no_token", lambda: other.submit(path, {"csrf": csrf})),
        (403, "other_origin", lambda: other.post(path, headers=elsewhere)),
        (403, "other_origin", lambda: site.submit(path, {"csrf": csrf}, **elsewhere)),
        (403, "other_origin", lambda: site.submit(path, {"csrf": csrf}, Origin="null")),
        (403, "no_csrf_token", lambda: site.submit(path, {})),
        (403, "no_csrf_token", lambda: site.submit(path, {"csrf": "forged"})),
        (400, "bad_body", lambda: site.post(path, {"reason": "x", "target": "other"})),
        (400, "bad_body", lambda: site.post(path, {"reason": ["x"]})),
        (400, "bad_body", lambda: site.post(path, {"reason": "x" * 501})),
        (400, "bad_body", lambda: site.post(path, raw=b"[]")),
        (400, "bad_body", lambda: site.post(path, raw=b"\xff{")),
        (415, "bad_body", lambda: site.post(path, raw=b"<x/>", headers={"Content-Type": "text/xml"})),
    ]
    for status, reason, attempt in attempts:
        before = site.metric("stagepost_web_refused_total", reason=reason)
        assert attempt().status == status
        assert site.metric("stagepost_web_refused_total", reason=reason) == before + 1
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
        assert site._ask(method, path, None, {"Authorization": f"Bearer {TOKEN}"}).status == 405
    assert [t["state"] for t in site.get("/breakers/").data["targets"]] == [t["state"] for t in targets]
    assert not [line for line in site.get("/audit/").data["lines"] if line["facts"].get("reason") == "x"]


def test_every_change_there_is_needs_a_token(site: Site) -> None:
    """O3: whatever the API can change – taken from its own description – is refused without a token, with a wrong one,
    from another origin and with a body that is forged; nothing is in the audit afterwards."""
    paths = site.get("/openapi.json").data["paths"]
    changes = [path for path, methods in paths.items() if "post" in methods]
    assert {"/jobs/", "/jobs/{job}/cancel", "/breakers/{target}/reset"} <= set(changes)
    before = site.get("/audit/?limit=1000").data["lines"]
    started = len(site.get("/jobs/").data["jobs"])
    for path in changes:
        at = re.sub(r"\{\w+\}", "x", path)
        body = {"kind": "redrive"}
        assert site.post(at, body, token=None).status == 401
        assert site.post(at, body, token="wrong").status == 401
        assert site.post(at, body, headers={"Origin": "http://evil.example"}).status == 403
        assert site.submit(at, {"kind": "redrive"}).status == 401
        assert site.post(at, {"kind": "redrive", "forged": "1"}).status == 400
    assert len(site.get("/jobs/").data["jobs"]) == started
    assert site.get("/audit/?limit=1000").data["lines"] == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"kind": "explode"}, "kind"),
        ({"kind": "redrive", "rate": -1}, "rate"),
        ({"kind": "redrive", "since": "yesterday"}, "since"),
        ({"kind": "redrive", "partition": "1"}, "partition"),
        ({"kind": "redrive", "state": "half"}, "state"),
        ({"kind": "scan"}, "topic"),
    ],
)
def test_a_job_that_makes_no_sense_is_not_started(site: Site, body: dict[str, object], said: str) -> None:
    """O3: an order nobody can carry out is refused with the name of what is wrong, and starts nothing."""
    refused = site.post("/jobs/", body)
    assert (refused.status, said in refused.data["error"]) == (400, True)
    assert site.get("/jobs/").data["jobs"] == []


def test_a_job_that_is_not_there(site: Site) -> None:
    """O1: asking for, or steering, a job that does not exist says so."""
    assert site.get("/jobs/no-such-job/").status == 404
    assert site.post("/jobs/no-such-job/cancel").status == 404


def test_refusals_are_logged_but_not_without_end(site: Site, worker: WorkerProcess) -> None:
    """O3: refusals stand in the log with their reason, one line in ten seconds of each, and no token is in it."""
    for _ in range(30):
        site.post("/breakers/a/reset", token="wrong-token-of-a-stranger")
    wait_until(lambda: "web.refused reason=wrong_token" in worker.log_text(), 10, "the refusal in the log")
    assert worker.log_text().count("web.refused reason=wrong_token") <= 3
    assert "wrong-token-of-a-stranger" not in worker.log_text()
    assert TOKEN not in worker.log_text()


@pytest.mark.parametrize(
    ("referer", "onward"),
    [("/breakers/?x=1", "/breakers/?x=1"), ("", "/"), ("//evil.example/a", "/a")],
)
def test_who_has_no_session_any_more_is_led_to_the_login(site: Site, referer: str, onward: str) -> None:
    """O3: sessions end with the worker: a form sent afterwards is refused with a way to log in and to come back."""
    there = f"http:{referer}" if referer.startswith("//") else f"http://{site.host}{referer}"
    page = site.submit("/breakers/x/pause", {"csrf": "old"}, **({"Referer": there} if referer else {}))
    assert page.status == 401
    found = re.findall(r'href="(/login\?next=[^"]*)"', page.text)
    assert len(found) == 2  # the page's head has one too
    for link in found:
        assert f'name="next" value="{onward}"' in site.get(link, HTML).text


def test_logging_in_keeps_what_was_looked_at(site: Site) -> None:
    """O3: who logs in from a list that was filtered comes back to that list; the login page does not lead to itself."""
    page = site.get("/audit/?by=ann&limit=3", HTML).text
    assert 'href="/login?next=/audit/%3Fby%3Dann%26limit%3D3"' in page
    assert "/login?next" not in site.get("/login?next=/audit/", HTML).text


def test_what_is_selected_comes_back_as_it_was_asked_for(site: Site) -> None:
    """O1, Q5: a tenant whose name has a character that is not seen, such as the joiner of Persian names, is written out
    where it is shown, and is in the form as it is: a job meets what its dry run did."""
    tenant = "می‌خواهم <b>"
    page = site.get(f"/dlq/x.dlq/?tenant={quote(tenant)}", HTML).text
    assert f'<input name="tenant" value="{escape(tenant)}">' in page
    topic = site.get("/breakers/").data["targets"][0]["target"]
    page = site.get(f"/breakers/{topic}/?tenant={quote(tenant)}", HTML).text
    assert f'value="{escape(tenant)}"' in page
    assert "می\\u200cخواهم &lt;b&gt;" in page


def test_a_session_can_be_left(site: Site) -> None:
    """O3: the cookie is for this site's pages only, and stands for nothing after logging out."""
    answer = site.submit("/login", {"token": TOKEN, "next": "https://evil.example/"})
    assert answer.headers["Location"] == "/"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(answer.headers["Set-Cookie"].split("; "))
    kept = dict(site.cookies)
    csrf = site.csrf()
    assert site.submit("/logout", {"csrf": csrf}).status == 303
    site.cookies = kept
    assert site.submit("/breakers/x/reset", {"csrf": csrf}).status == 401


@pytest.mark.parametrize("token", ["", "wrong", "\x00", "é" * 5_000])
def test_a_wrong_token_opens_no_session(site: Site, token: str) -> None:
    """O3: the login form lets nobody in who has no token, and says so."""
    answer = site.submit("/login", {"token": token, "next": "/breakers/"})
    assert answer.status == 303
    assert not site.cookies
    assert 'role="alert"' in site.get(answer.headers["Location"], HTML).text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/audit/?limit=0", 400, "limit"),
        ("/audit/?nothing=1", 400, "nothing"),
        ("/audit/?by=a&by=b", 400, "by"),
        ("/catalog/no.such/", 404, "no.such"),
        ("/assets/../site.py", 404, ""),
        ("/dlq/x.dlq/1/9999999999999999999/", 404, "x.dlq/1/9999999999999999999"),
        ("/dlq/x.dlq/9999999999/1/payload", 404, "x.dlq/9999999999/1"),
    ],
)
def test_what_cannot_be_answered_is_said(site: Site, path: str, status: int, said: str) -> None:
    """O1: a wrong query or address is an error that names what is wrong, as JSON and as a page."""
    found = site.get(path)
    assert (found.status, found.data["status"]) == (status, status)
    assert said in found.data["error"]
    assert site.get(path, HTML).headers["Content-Type"].startswith("text/html")


def test_the_api_is_described(site: Site) -> None:
    """O1: the OpenAPI document names every address that gives JSON, with its data and who may ask."""
    document = site.get("/openapi.json").data
    assert document["openapi"] == "3.1.0"
    assert set(PAGES) - {"/catalog/order.created/", "/dlq/no.such.dlq/"} <= set(document["paths"])
    pause = document["paths"]["/breakers/{target}/pause"]["post"]
    assert pause["security"] == [{"token": []}]
    assert pause["requestBody"]["content"][JSON]["schema"] == {"$ref": "#/components/schemas/Why"}
    refs = set(re.findall(r"#/components/schemas/(\w+)", site.get("/openapi.json").text))
    assert refs <= set(document["components"]["schemas"])


def test_every_end_is_counted_and_skips_are_in_the_audit(
    site: Site, kafka: Brokers, worker: WorkerProcess
) -> None:
    """O4, T6: what is consumed, delivered, dead-lettered and skipped is counted, with how long the way took; a skip is
    in the audit page."""
    namespace = site.get("/catalog/").data["definitions"][0]["topic"].partition(".")[0]
    names = ("consumed", "delivered", "dead_lettered", "skipped")
    before = site.get("/").data["totals"]
    now = datetime.now(UTC).isoformat().encode()
    records = [
        *(staged(f"e{number}", {"time": now}) for number in range(20)),
        staged("bad", value=b"{"),
        staged("skip", {"definition": b"hint.given"}, value=b"{"),
    ]
    produce(kafka.bootstrap, f"{namespace}.staging", records)

    def grown() -> list[float]:
        totals = site.get("/").data["totals"]
        return [totals[name] - before[name] for name in names]

    wait_until(lambda: grown() == [22, 20, 1, 1], 20, "every end to be counted")
    target = f"{namespace}.order.created"
    assert site.metric("stagepost_delivered_total", target=target) == 20
    assert site.metric("stagepost_delivery_seconds_count", target=target) == 20
    assert 0 < site.metric("stagepost_delivery_seconds_sum", target=target) / 20 < 20
    (line,) = site.get("/audit/?action=skipped").data["lines"]
    assert (line["subject"], line["facts"]["error_class"]) == ("skip", "validation_error")
    assert site.metric("stagepost_lag_records", partition="0") >= 0

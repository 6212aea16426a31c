"""Every route that the worker publishes, asked with whatever its schema allows and with what it does not (O1, O3)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from devtools.kafka import Brokers
from tests.hostile.conftest import FUZZ
from tests.web.asking import TOKEN, TOKENS
from tests.worker_harness import WorkerProcess

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def worker(kafka: Brokers) -> Iterator[WorkerProcess]:
    """A worker whose pages ann may change things on."""
    namespace = f"t{os.urandom(4).hex()}"
    env = {"STREAMING_ADMIN_TOKENS": TOKENS}
    with WorkerProcess(kafka.bootstrap, namespace, catalog="tests.catalogs.shop", env=env) as started:
        yield started.wait_ready()


@pytest.mark.kafka
def test_every_published_route(worker: WorkerProcess) -> None:
    """No request makes a page fail, a stranger's or ann's: each answer is one that /openapi.json announces, and the
    worker stays up."""
    api = schemathesis.openapi.from_url(f"http://127.0.0.1:{worker.web_port}/openapi.json")
    stranger = {"Accept": "application/json"}
    askers = (stranger, {**stranger, "Authorization": f"Bearer {TOKEN}"})
    asked = 0
    for found in api.get_all_operations():
        assert isinstance(found, Ok), found.err()
        operation = found.ok()

        @settings(
            max_examples=int(FUZZ) // 20 if FUZZ else 8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case[Any]) -> None:
            for headers in askers:
                case.call_and_validate(headers=headers, timeout=20, checks=CHECKS)

        ask()
        asked += 1
    assert asked >= 10
    assert worker.exit_status is None
    assert "Traceback" not in worker.log_text(), worker.log_tail()

"""What a page says where it cannot ask Kafka just now (O1)."""

from __future__ import annotations

from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from aiokafka.errors import KafkaConnectionError

from pipeline.application import Application
from pipeline.clock import SYSTEM_CLOCK
from pipeline.kafka.security import SecurityRefused
from pipeline.web.gate import Gate
from pipeline.web.site import Site


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            SecurityRefused("STREAMING_SASL_PASSWORD", "b:9092", "wrong"),
            "STREAMING_SASL_PASSWORD: b:9092 cannot",
        ),
        (KafkaConnectionError("no broker"), "Kafka does not answer now: KafkaConnectionError: no broker"),
        (TimeoutError(), "Kafka does not answer now: TimeoutError"),
    ],
)
async def test_what_kafka_refuses_is_told(error: Exception, said: str) -> None:
    """O1, E: a broker that does not answer, or refuses us, is the page's 503 with the reason and the setting at fault,
    and no failure of the page."""
    site = Site(cast("Application", None), (), cast("Gate", None), SYSTEM_CLOCK, {})

    async def handler(_: web.Request) -> web.StreamResponse:
        raise error

    request = make_mocked_request("GET", "/dlq/", headers={"Accept": "application/json"})
    answer = await site._answer(request, handler)
    assert isinstance(answer, web.Response)
    assert answer.status == 503
    assert said in (answer.text or "")

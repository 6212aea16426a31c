"""Traces: from the caller's span through stage() to the target record, and spans of our own (T2, S10)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from devtools.kafka import Brokers
from pipeline import tracing
from pipeline.client import kafka_stager
from pipeline.clock import SYSTEM_CLOCK
from pipeline.errors import RecordTooLarge, StagepostError
from pipeline.meter import Meter
from pipeline.metrics import Metrics
from pipeline.settings import Settings
from pipeline.tracing import DeliverySpans, StageSpans
from tests.core.staged_records import planned, staged
from tests.kafka_client import create_topic, read_all

ROOT = Path(__file__).resolve().parents[2]


class Spans:
    """A tracer whose spans are kept, and what it kept."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = provider.get_tracer("tests")

    def named(self, name: str) -> list[ReadableSpan]:
        """The ended spans of a name."""
        return [span for span in self._kept.get_finished_spans() if span.name == name]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """What stagers that start now record."""
    kept = Spans()
    monkeypatch.setattr(kafka_stager, "stage_spans", lambda: StageSpans(kept.tracer))
    return kept


def settings(bootstrap: str, namespace: str, folder: Path) -> Settings:
    """Of a service of the shop."""
    return Settings(
        brokers=(bootstrap,),
        catalog="tests.catalogs.shop",
        cloudevents_source="//shop/web",
        namespace=namespace,
        outbox_dir=str(folder / "outbox"),
        stage_timeout_s=1,
    )


@pytest.mark.kafka
async def test_the_trace_of_the_caller_travels(
    kafka: Brokers, namespace: str, tmp_path: Path, spans: Spans
) -> None:
    """T2, S10: a call within a span of the caller's is a span below it, and its context is in the staging record; the
    caller's own trace headers come first; without a span nothing is added that says nothing."""
    create_topic(kafka.bootstrap, f"{namespace}.staging", 1)
    own = f"00-{'1' * 32}-{'2' * 16}-01"
    async with kafka_stager.KafkaStager(settings(kafka.bootstrap, namespace, tmp_path)) as stager:
        with spans.tracer.start_as_current_span("request") as request:
            await stager.stage("order.created", {}, id="in-span")
        await stager.stage("order.created", {}, id="given", headers={"traceparent": own})
        prepared = stager.prepare("order.created", {}, id="prepared")
        await stager.relay(prepared.bytes)
    records = {
        record.header["stage-id"]: record.header
        for record in read_all(kafka.bootstrap, f"{namespace}.staging")
    }
    first, second, third = spans.named("stage order.created")
    trace = format(request.get_span_context().trace_id, "032x")
    assert first.parent is not None
    assert first.parent.span_id == request.get_span_context().span_id
    assert first.kind is SpanKind.PRODUCER
    assert first.attributes is not None
    assert first.attributes["messaging.message.id"] == "in-span"
    assert records[b"in-span"]["traceparent"].decode()[:52] == f"00-{trace}-{first.context.span_id:016x}"
    assert records[b"given"]["traceparent"].decode() == own
    assert f"{third.context.trace_id:032x}" in records[b"prepared"]["traceparent"].decode()
    assert second.status.is_ok


async def test_a_call_that_fails_is_a_failed_span(namespace: str, tmp_path: Path, spans: Spans) -> None:
    """S7: the span of a call that raises ends with the error, also of one that its size refuses; none is left open."""
    async with kafka_stager.KafkaStager(settings("127.0.0.1:1", namespace, tmp_path)) as stager:
        with pytest.raises(StagepostError):
            await stager.stage("order.created", {}, policy={"outbox": "never"})
        with pytest.raises(RecordTooLarge):
            await stager.stage("order.created", b'"' + b"x" * 999_000 + b'"', headers=[("x", "y" * 60_000)])
    failed = spans.named("stage order.created")
    assert [span.status.description for span in failed] == ["StagingUnavailable", "RecordTooLarge"]


def test_a_delivered_batch_is_a_span_linked_to_its_events() -> None:
    """O4, T2: what a target acknowledges together is one span, from the oldest stage-time on, linked to the traces of
    its events, at most sixteen; headers that are no trace context harm nothing."""
    kept = Spans()
    records = [
        staged(more=[("traceparent", f"00-{number + 1:032x}-{number + 1:016x}-01".encode())])
        for number in range(20)
    ]
    records[3] = staged(more=[("traceparent", b"\xff"), ("tracestate", None)])
    (column,) = planned(*records).columns.values()
    Meter(Metrics(), SYSTEM_CLOCK, DeliverySpans(kept.tracer)).delivered(column, 0, len(records), records)
    (span,) = kept.named("deliver shop.order.created")
    assert [link.context.trace_id for link in span.links] == [1, 2, 3, *range(5, 18)]
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 20
    assert span.kind is SpanKind.CONSUMER


def test_a_provider_that_comes_later_counts() -> None:
    """O4: where nobody has configured OpenTelemetry no call has a span, and no batch a look at its headers; from the
    moment when somebody has, they do."""
    program = (
        "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider;"
        "from pipeline.tracing import stage_spans, delivery_spans;"
        "stage, deliver = stage_spans(), delivery_spans();"
        "print(stage.start('a', 'a', 'b', 'c'), deliver.delivered('t', None, 1, 0.0, 0.0));"
        "parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(1)));"
        "token = trace.context_api.attach(trace.set_span_in_context(parent));"
        "print(stage.start('a', 'a', 'b', 'c').headers[0][1][:35]); trace.context_api.detach(token);"
        "trace.set_tracer_provider(TracerProvider());"
        "print(stage.start('a', 'a', 'b', 'c').span.is_recording());"
        "deliver.delivered('t', None, 1, 0.0, 0.0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["None None", f"b'00-{1:032x}'", "True"]
    assert "'NoneType' object is not iterable" in done.stderr


def test_without_the_api_nothing_is_missing() -> None:
    """N3: where OpenTelemetry is not installed there are no spans, and nothing asks for it."""
    program = (
        "import sys; sys.modules['opentelemetry.trace'] = None;"
        "from pipeline.tracing import stage_spans, delivery_spans; print(stage_spans(), delivery_spans())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "None None\n"
    assert tracing.stage_spans() is not None
    assert re.search(r"^tracing = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

"""Traces: the W3C trace context that travels with an event, and spans where OpenTelemetry's API is installed.

Owns: which spans there are and what is on them. Must not know: who exports spans, what a record is for.

Without the API nothing here costs anything, and trace headers that a caller gives travel all the same (T2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, Tracer

__all__ = ["HEADERS", "DeliverySpans", "StageSpans", "StagedSpan", "delivery_spans", "stage_spans"]

HEADERS = ("traceparent", "tracestate")
_NAME = "stagepost"
_MOST_LINKS = 16
"""Of the traces in a batch, so many are linked: a batch of hundreds would say no more with all of them."""


class StagedSpan(NamedTuple):
    """The span of one call of stage(), which ends with `end`, and the headers that carry its context."""

    span: Span
    headers: tuple[tuple[str, bytes], ...]

    def end(self, error: BaseException | None = None) -> None:
        """The call has ended, well or with this error."""
        if error is not None:
            from opentelemetry.trace import StatusCode

            self.span.record_exception(error)
            self.span.set_status(StatusCode.ERROR, type(error).__name__)
        self.span.end()


class _Provider:
    """What makes the spans of a tracer: the one that OpenTelemetry was configured with, now or later."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry import trace

        self._globals = vars(trace) if isinstance(tracer, trace.ProxyTracer) else {}

    def is_missing(self) -> bool:
        """Whether nobody has configured OpenTelemetry yet. The API's own way to say so takes a microsecond."""
        return self._globals.get("_TRACER_PROVIDER", self) is None


class StageSpans:
    """Spans of calls of stage(), children of whatever span is current where the call is made."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.context import get_current
        from opentelemetry.trace import INVALID_SPAN, SpanKind, get_current_span, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._kind = SpanKind.PRODUCER
        self._nothing = INVALID_SPAN
        self._current = get_current_span
        self._context = get_current
        self._provider = _Provider(tracer)
        self._in_context = set_span_in_context
        self._propagator = TraceContextTextMapPropagator()

    def start(self, name: str, key: str, event_id: str, topic: str) -> StagedSpan | None:
        """Begin the span of one call; None where nobody records spans and there is no trace to carry on."""
        # Where there is no context at all, which is asked for faster, there is no span.
        if self._provider.is_missing() and (not self._context() or self._current() is self._nothing):
            return None
        span = self._tracer.start_span(name, kind=self._kind)
        if span is self._nothing:
            return None
        if span.is_recording():
            span.set_attributes(
                {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "send",
                    "messaging.destination.name": topic,
                    "messaging.message.id": event_id,
                    "stagepost.definition": key,
                }
            )
        if not span.get_span_context().is_valid:
            return StagedSpan(span, ())
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._in_context(span))
        return StagedSpan(span, tuple((name, carrier[name].encode()) for name in HEADERS if name in carrier))


class DeliverySpans:
    """Spans of deliveries, one for each batch that a target acknowledges, linked to the traces of its events."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._provider = _Provider(tracer)
        self._kind = SpanKind.CONSUMER
        self._propagator = TraceContextTextMapPropagator()

    def delivered(
        self,
        target: str,
        headers: Iterable[Sequence[tuple[str, bytes | None]]],
        count: int,
        began: float,
        now: float,
    ) -> None:
        """`count` events, with these headers, were acknowledged by a target. Times are seconds since 1970."""
        if self._provider.is_missing():
            return
        span = self._tracer.start_span(
            f"deliver {target}", kind=self._kind, links=self._links(headers), start_time=int(began * 1e9)
        )
        if span.is_recording():
            span.set_attributes(
                {
                    "messaging.system": "kafka",
                    "messaging.operation.type": "send",
                    "messaging.destination.name": target,
                    "messaging.batch.message_count": count,
                }
            )
        span.end(end_time=int(now * 1e9))

    def _links(self, records: Iterable[Sequence[tuple[str, bytes | None]]]) -> list[Link]:
        from opentelemetry.trace import Link, get_current_span

        found: dict[int, Link] = {}
        for headers in records:
            carrier = {
                name: value.decode(errors="replace")
                for name, value in headers
                if name in HEADERS and value is not None
            }
            if carrier:
                context = get_current_span(self._propagator.extract(carrier)).get_span_context()
                if context.is_valid:
                    found[context.span_id] = Link(context)
            if len(found) == _MOST_LINKS:
                break
        return list(found.values())


def stage_spans() -> StageSpans | None:
    """Spans for a service; None where OpenTelemetry's API is not installed."""
    tracer = _tracer()
    return None if tracer is None else StageSpans(tracer)


def delivery_spans() -> DeliverySpans | None:
    """Spans for a worker; None where OpenTelemetry's API is not installed."""
    tracer = _tracer()
    return None if tracer is None else DeliverySpans(tracer)


def _tracer() -> Tracer | None:
    try:
        from opentelemetry.trace import get_tracer
    except ModuleNotFoundError:
        return None
    return get_tracer(_NAME)  # one that is configured later counts as well

"""What headers say, in a few words each: for somebody who sees a dead letter for the first time.

Owns: these sentences. Must not know: what is done with a header.
"""

from __future__ import annotations

from pipeline import dlq, staging

__all__ = ["explained"]

_MEANING = {
    staging.VERSION: "version of the staging format",
    staging.DEFINITION: "definition in the catalog",
    staging.ID: "id of the event; never changes",
    staging.TIME: "when it was staged, or when the caller says it happened",
    staging.SOURCE: "CloudEvents source of the service that staged it",
    staging.TENANT: "tenant",
    staging.SUBJECT: "subject",
    staging.POLICY: "delivery policy of this one call",
    staging.CATALOG: "fingerprint of the catalog the stager checked it against",
    dlq.SOURCE_TOPIC: "target it was meant for",
    dlq.ERROR_CLASS: "kind of failure",
    dlq.ERROR_MESSAGE: "why it failed",
    dlq.RETRY_COUNT: "how often delivering it was tried again",
    dlq.FIRST_FAILURE_AT: "when it failed for the first time, over all redrives",
    dlq.PRODUCER_ID: "worker that dead-lettered it",
    dlq.STAGING_PARTITION: "partition of the staging topic it came from",
    dlq.STAGING_OFFSET: "offset there",
    dlq.DISPOSITION: "who can put it right: poison needs a changed record or definition, operator a changed setting",
    dlq.FINGERPRINT: "equal for failures of one kind",
    dlq.REDRIVE_COUNT: "how often it was redriven before",
    dlq.PAYLOAD_OMITTED: "the payload was too large for this topic",
    dlq.PAYLOAD_BYTES: "how large the payload was, in bytes",
    "content-type": "encoding of the payload",
    "traceparent": "trace it belongs to (W3C Trace Context)",
    "tracestate": "trace it belongs to, as its vendors see it",
}
_OTHERS = (
    ("x-lerian-dlq-", "x-lerian-dlq-", "lib-streaming"),
    ("__connect.errors.", "__connect.errors.", "Kafka Connect"),
    ("kafka_dlt-", "kafka_dlt-", "spring-kafka"),
    ("kafka_original-", "kafka_", "spring-kafka"),
    ("kafka_exception-", "kafka_", "spring-kafka"),
    ("kafka_key-exception-", "kafka_", "spring-kafka"),
    ("retry_topic-", "retry_topic-", "spring-kafka"),
)
"""How names begin that other programs write about a failure, and what of that is not the fact's own."""
_FACTS = {
    "topic": "topic it had been read from",
    "source-topic": "topic it was meant for, or had been read from",
    "original-topic": "topic it had been read from",
    "partition": "its partition there",
    "source-partition": "its partition there",
    "original-partition": "its partition there",
    "offset": "its offset there",
    "source-offset": "its offset there",
    "original-offset": "its offset there",
    "original-timestamp": "when it had been written there",
    "original-timestamp-type": "what that time is",
    "original-consumer-group": "consumer group that failed",
    "error-class": "kind of failure",
    "error-message": "why it failed",
    "exception-message": "why it failed",
    "exception.message": "why it failed",
    "exception-fqcn": "class of the exception",
    "exception.class.name": "class of the exception",
    "exception-cause-fqcn": "class of its cause",
    "exception-stacktrace": "where in the program",
    "exception.stacktrace": "where in the program",
    "connector.name": "connector that failed",
    "task.id": "its task",
    "stage": "step of the connector that failed",
    "class.name": "class of that step",
    "retry-count": "how often it was tried again",
    "attempts": "how often it was tried",
    "first-failure-at": "when it failed for the first time",
    "producer-id": "program that dead-lettered it",
}
_SPRING = "spring-kafka"
_NUMBERS = {"original-partition", "original-offset", "original-timestamp", "attempts", "backoff-timestamp"}
_WIDTHS = {4, 8}


def explained(name: str, value: bytes | None = None) -> str:
    """What a header says; empty where that is known to its producer only. A number that is no text is told too."""
    if name in _MEANING:
        return _MEANING[name]
    if name.startswith(("ce_", "ce-")):
        return "CloudEvents attribute it was framed with"
    for begins, prefix, program in _OTHERS:
        if name.startswith(begins):
            fact = name.removeprefix(prefix)
            meaning = f"{_FACTS.get(fact, 'about the failure')}, as {program} wrote it"
            return f"{meaning}{_number(value) if program == _SPRING and fact in _NUMBERS else ''}"
    return ""


def _number(value: bytes | None) -> str:
    """A big-endian number as Java writes it."""
    if value is None or len(value) not in _WIDTHS:
        return ""
    return f": {int.from_bytes(value, 'big', signed=True)}"

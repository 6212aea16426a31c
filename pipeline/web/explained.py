"""What headers say, in a few words each: for somebody who sees a dead letter for the first time.

Owns: these sentences. Must not know: values.
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
_BEGINNINGS = (
    (("ce_", "ce-"), "CloudEvents attribute it was framed with"),
    (("x-lerian-dlq-",), "written by lib-streaming about the failure"),
    (("__connect.errors.",), "written by Kafka Connect about the failure"),
    (("kafka_",), "written by spring-kafka about the failure"),
)


def explained(name: str) -> str:
    """What a header says; empty where that is known to its producer only."""
    if name in _MEANING:
        return _MEANING[name]
    return next((meaning for begins, meaning in _BEGINNINGS if name.startswith(begins)), "")

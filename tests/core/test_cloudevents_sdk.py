"""The official CloudEvents SDK as a judge: it reads what we write, and we read what it writes (T2).

Only `ce_` and binary mode, with an id and a version always there: the SDK reads no `ce-`, and where an id, a
time or a version is missing it makes one up.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from hypothesis import given
from hypothesis import strategies as st

from catalog.limits import text_problem
from pipeline.cloudevents import CloudEvent, read
from pipeline.packing import unpack
from pipeline.record import RawHeader
from tests.core.staged_records import planned, router, staged

_TEXT = st.text(min_size=1, max_size=30).filter(lambda text: text_problem(text, 256) is None)
_TIME = st.datetimes(timezones=st.just(UTC))
ROUTER = router()


def as_kafka(message: KafkaMessage) -> list[RawHeader]:
    """The headers of an SDK's message, as a consumer hands them out."""
    return list(message.headers.items())


@given(_TEXT, _TEXT, _TEXT, _TIME, st.binary(min_size=1))
def test_the_sdk_reads_what_we_write(
    tenant: str, subject: str, event_id: str, time: datetime, data: bytes
) -> None:
    """T2: every attribute, unicode and percent signs included, and the data arrive as they were staged."""
    record = staged(
        {
            "definition": b"report.made",
            "tenant": tenant.encode(),
            "subject": subject.encode(),
            "id": event_id.encode(),
            "time": time.isoformat().encode(),
        },
        value=data,
    )
    (column,) = planned(record, using=ROUTER).columns.values()
    ((key, value, headers),) = map(unpack, column.records)
    assert value is not None
    fields = {name: content for name, content in headers if content is not None}
    event = from_binary_event(KafkaMessage(headers=fields, key=key, value=value))
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": event_id,
        "source": "//shop/web",
        "type": "com.shop.report.made",
        "time": time,
        "subject": subject,
        "datacontenttype": "application/pdf",
        "partitionkey": tenant,
        "tenantid": tenant,
        "schemaversion": "1.0.0",
        "resourcetype": "report",
        "eventtype": "made",
    }
    found = event.get_data()
    assert (found.encode() if isinstance(found, str) else found) == data


@given(_TEXT, _TEXT, _TEXT, _TIME, st.binary(min_size=1))
def test_we_read_what_the_sdk_writes(
    source: str, event_id: str, extra: str, time: datetime, data: bytes
) -> None:
    """T2: both modes of the SDK's Kafka binding."""
    attributes = {
        "id": event_id,
        "source": source,
        "type": "com.example.made",
        "time": time,
        "datacontenttype": "application/octet-stream",
        "extra": extra,
    }
    wanted = CloudEvent(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": source,
            "type": "com.example.made",
            "time": time.isoformat().replace("+00:00", "Z"),
            "datacontenttype": "application/octet-stream",
            "extra": extra,
        },
        data,
    )
    for write in (to_binary_event, to_structured_event):
        message = write(SdkEvent(dict(attributes), data))
        assert read(message.value, as_kafka(message)) == wanted

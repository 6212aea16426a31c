"""Reading CloudEvents off Kafka records: what the Kafka protocol binding and the JSON format say (T2).

The first tests cover what the official conformance suite covers for Kafka (binary mode, and structured mode
with and without a charset); the rest is what it leaves out: everything that must not be read.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.limits import text_problem
from pipeline.cloudevents import CloudEvent, NotACloudEvent, read
from pipeline.record import RawHeader

BINARY: dict[str, bytes | None] = {
    "ce_specversion": b"1.0",
    "ce_id": b"7f3c",
    "ce_type": b"com.example.thing.made",
    "ce_source": b"/plant/4",
    "ce_time": b"2018-04-05T03:56:24Z",
    "content-type": b"application/json",
}
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "7f3c",
    "type": "com.example.thing.made",
    "source": "/plant/4",
    "time": "2018-04-05T03:56:24Z",
    "datacontenttype": "application/json",
}
DATA = b'{"message": "Hello"}'


def binary(
    changes: dict[str, bytes | None] | None = None,
    *,
    without: str = "",
    more: list[RawHeader] | None = None,
    value: bytes | None = DATA,
) -> CloudEvent:
    """Read the record of binary mode above, with changes to its headers."""
    headers: list[RawHeader] = [(n, v) for n, v in (BINARY | (changes or {})).items() if n != without]
    return read(value, [*headers, *(more or [])])


def structured(
    changes: dict[str, object] | None = None,
    *,
    content_type: bytes = b"application/cloudevents+json",
    more: list[RawHeader] | None = None,
) -> CloudEvent:
    """Read a record of structured mode with the same event, with changes to its envelope."""
    envelope = {**ATTRIBUTES, "data": {"message": "Hello"}, **(changes or {})}
    return read(json.dumps(envelope).encode(), [("content-type", content_type), *(more or [])])


def test_binary_mode() -> None:
    """T2: attributes from `ce_` headers, `datacontenttype` from `content-type`, data is the value."""
    event = binary()
    assert event.attributes == ATTRIBUTES
    assert event.data == DATA
    assert (event.id, event.source, event.type) == ("7f3c", "/plant/4", "com.example.thing.made")


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/cloudevents+json",
        b"application/cloudevents+json; charset=utf-8",
        b"Application/CloudEvents+JSON ;charset=UTF-8",
    ],
)
def test_structured_mode(content_type: bytes) -> None:
    """T2: everything from the JSON envelope, whatever the case or parameters of the content type."""
    event = structured(content_type=content_type)
    assert event.attributes == ATTRIBUTES
    assert json.loads(event.data or b"") == {"message": "Hello"}


def test_the_content_type_decides_the_mode() -> None:
    """T2: a structured record may repeat attributes in headers (binding 3.3.3); they do not make it binary."""
    repeated: list[RawHeader] = [("ce_id", b"other"), ("ce_specversion", b"1.0"), ("ce_type", b"t")]
    assert structured(more=repeated).attributes == ATTRIBUTES


def test_the_other_dialect() -> None:
    """T2: readers here accept the seed library's `ce-` names and `ce-datacontenttype` too."""
    renamed: list[RawHeader] = [
        (name.replace("ce_", "ce-").replace("content-type", "ce-datacontenttype"), value)
        for name, value in BINARY.items()
    ]
    assert read(DATA, renamed).attributes == ATTRIBUTES


def test_no_data() -> None:
    """T2: a null value is no data, an empty one is empty data; structured mode without data has none either."""
    assert binary(value=None).data is None
    assert binary(value=b"").data == b""
    assert structured({"data": None}).data is None


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_type", "ce_source"])
def test_nothing_is_made_up(name: str) -> None:
    """T2: a required attribute that is missing, empty or null is an error; no id or version is invented."""
    with pytest.raises(NotACloudEvent, match=name.removeprefix("ce_")):
        binary(without=name)
    with pytest.raises(NotACloudEvent, match=name.removeprefix("ce_")):
        binary({name: b""})
    with pytest.raises(NotACloudEvent, match="null"):
        binary({name: None})


def test_time_is_optional() -> None:
    """T2: an event without a time has none, rather than the time of reading."""
    assert "time" not in binary(without="ce_time").attributes


def test_the_key_adds_nothing() -> None:
    """T2: a `partitionkey` is there only if the producer set it; `read` does not even see the record's key."""
    assert "partitionkey" not in binary().attributes
    assert binary({"ce_partitionkey": b"k"}).attributes["partitionkey"] == "k"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([("ce_id", b"again")], "'id' stands twice"),
        ([("content-type", b"text/plain")], "'content-type' stands twice"),
        ([("ce_datacontenttype", b"text/plain")], "'datacontenttype' stands twice"),
        ([("ce_tenant_id", b"x")], "'tenant_id'"),
        ([("ce_Tenant", b"x")], "'Tenant'"),
        ([("ce_", b"x")], "''"),
        ([("ce_data", b"x")], "'data'"),
        ([("ce_x", b"a\nb")], "control character"),
        ([("ce_x", "\u0090".encode())], "control character"),
        ([("ce_x", "\ufffe".encode())], "noncharacters"),
        ([("ce_x", b"\xff")], "not UTF-8"),
    ],
)
def test_headers_that_are_no_attributes(headers: list[RawHeader], says: str) -> None:
    """T2: repeated attributes, illegal names, control characters and bytes that are not UTF-8 are refused."""
    with pytest.raises(NotACloudEvent, match=says):
        binary(more=headers)


def test_a_long_name_is_read() -> None:
    """T2: names SHOULD NOT exceed 20 characters; one of 21 is unusual, not illegal."""
    assert binary({"ce_abcdefghijklmnopqrstu": b"x"}).attributes["abcdefghijklmnopqrstu"] == "x"


def test_names_are_case_sensitive() -> None:
    """T2: Kafka's header names are; `CE_id` is nobody's attribute and `CE_` makes no event."""
    assert binary({"CE_extra": b"x", "x_ce_id": b"y"}).attributes == ATTRIBUTES
    with pytest.raises(NotACloudEvent, match="specversion"):
        read(DATA, [(name.upper(), value) for name, value in BINARY.items() if name.startswith("ce_")])


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        (b"application/cloudevents-batch+json", "batched mode"),
        (b"application/cloudevents+xml", "a format that is not read"),
        (b"application/cloudevents", "a format that is not read"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_modes_that_are_not_read(content_type: bytes, says: str) -> None:
    """T2: batched mode does not exist on Kafka, and an unknown event format is not mistaken for data."""
    with pytest.raises(NotACloudEvent, match=says):
        binary({"content-type": content_type})


@pytest.mark.parametrize("version", [b"0.3", b"1.0.2", b"2.0"])
def test_other_versions(version: bytes) -> None:
    """T2: only specversion 1.0 is read."""
    with pytest.raises(NotACloudEvent, match="specversion"):
        binary({"ce_specversion": version})


def test_a_plain_record_is_no_event() -> None:
    """T2: neither nothing at all nor somebody's JSON."""
    for headers in ([], [("content-type", b"application/json")]):
        with pytest.raises(NotACloudEvent):
            read(b'{"id": "1"}', headers)


# --- structured mode


@pytest.mark.parametrize("value", [b"", b"[]", b"null", b"{", b"NaN", b'"\xff"'])
def test_an_envelope_that_is_no_object(value: bytes) -> None:
    """T2: structured mode is a JSON object."""
    with pytest.raises(NotACloudEvent, match="JSON"):
        read(value, [("content-type", b"application/cloudevents+json")])


def test_null_is_not_set() -> None:
    """T2: JSON null says that an attribute is not set (JSON format 2.2); on a required one that is an error."""
    assert structured({"subject": None, "data_base64": None}).attributes == ATTRIBUTES
    with pytest.raises(NotACloudEvent, match="'id'"):
        structured({"id": None})


def test_attributes_that_are_not_text() -> None:
    """T2: integers and booleans have their canonical text (2.2); anything else is no attribute."""
    attributes = structured({"count": 7, "yes": True, "no": False}).attributes
    assert (attributes["count"], attributes["yes"], attributes["no"]) == ("7", "true", "false")
    envelopes: tuple[dict[str, object], ...] = ({"x": 1.5}, {"x": []}, {"x": {}})
    for envelope in envelopes:
        with pytest.raises(NotACloudEvent, match="'x'"):
            structured(envelope)


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({"data": "text"}, b'"text"'),
        ({"data": "text", "datacontenttype": "text/json"}, b'"text"'),
        ({"data": "text", "datacontenttype": "application/vnd.x+json; v=1"}, b'"text"'),
        ({"data": "text", "datacontenttype": None}, b'"text"'),
        ({"data": "<a/>", "datacontenttype": "text/xml"}, b"<a/>"),
        ({"data": 5}, b"5"),
        ({"data": False}, b"false"),
        ({"data": None, "data_base64": "AP8="}, b"\x00\xff"),
    ],
)
def test_data_in_an_envelope(changes: dict[str, object], data: bytes) -> None:
    """T2: JSON data is JSON again, text of another type is that text, `data_base64` is bytes (JSON format 3.1)."""
    assert structured(changes).data == data


@pytest.mark.parametrize("encoded", ["AP8", "A P8=", "é", 5, ["AA=="]])
def test_bad_base64(encoded: object) -> None:
    """T2: `data_base64` is base64 text and nothing else."""
    with pytest.raises(NotACloudEvent, match="data_base64"):
        structured({"data": None, "data_base64": encoded})


def test_data_twice() -> None:
    """T2: `data` and `data_base64` exclude each other (JSON format 3.1)."""
    with pytest.raises(NotACloudEvent, match="both"):
        structured({"data_base64": "AA=="})


def test_an_unknown_data_member() -> None:
    """T2: `data_x` is no attribute name, so the envelope is refused, not read without it."""
    with pytest.raises(NotACloudEvent, match="data_x"):
        structured({"data_x": "y"})


_TEXT = st.text(min_size=1).filter(lambda text: text_problem(text, 10_000) is None)
_NAME = st.from_regex(r"[a-z0-9]{1,25}", fullmatch=True).filter(
    lambda name: name not in {"data", "specversion"}
)


@given(st.dictionaries(_NAME, _TEXT), st.none() | st.binary())
def test_any_legal_text_survives_both_modes(extra: dict[str, str], data: bytes | None) -> None:
    """T2: attributes of any legal text, percent signs and blanks too, and data of any bytes, read back the same."""
    attributes = {"datacontenttype": "x/y", **ATTRIBUTES, **extra}
    names = {f"ce_{name}": text.encode() for name, text in attributes.items() if name != "datacontenttype"}
    headers: list[RawHeader] = [("content-type", attributes["datacontenttype"].encode()), *names.items()]
    if not attributes["datacontenttype"].lower().strip().startswith("application/cloudevents"):
        assert read(data, headers) == CloudEvent(attributes, data)
    envelope: dict[str, str] = dict(attributes)
    if data is not None:
        envelope["data_base64"] = base64.b64encode(data).decode()
    found = read(json.dumps(envelope).encode(), [("content-type", b"application/cloudevents+json")])
    assert found == CloudEvent(attributes, data)


@given(
    st.none() | st.binary(),
    st.lists(
        st.tuples(
            st.sampled_from([*BINARY, "ce-id", "ce_\udcff"]) | st.text(max_size=5),
            st.none() | st.sampled_from([b"1.0", b"application/cloudevents+json"]) | st.binary(max_size=9),
        )
    ),
)
def test_any_record_is_an_event_or_refused(value: bytes | None, headers: list[RawHeader]) -> None:
    """T2: reading raises `NotACloudEvent` and nothing else, whatever the record holds."""
    with suppress(NotACloudEvent):
        event = read(value, headers)
        assert event.id
        assert event.attributes["specversion"] == "1.0"

"""A steady stream of staging records, by librdkafka: `python -m benchmarks.ways.stream SERVERS NAMESPACE RATE`.

Writes RATE records a second, in slices of 2 ms, until it is ended. In a process of its own: whoever measures beside it
must not wait for its turns with Python's lock.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.load import catalog, event, staging_headers
from benchmarks.topics import Topics

_SLICE_S = 0.002
_RECORDS = 1_024


def _main(servers: str, namespace: str, rate: float) -> None:
    producer, topic = Topics(servers).producer(linger_ms=5), f"{namespace}.staging"
    fingerprint = catalog(namespace).fingerprint
    records: list[tuple[bytes, str, list[Any]]] = [
        (one.payload, one.tenant, [*staging_headers(one, fingerprint)]) for one in map(event, range(_RECORDS))
    ]
    began, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * rate)
        while sent < due:
            payload, tenant, headers = records[sent % _RECORDS]
            producer.produce(topic, payload, tenant, headers=headers)
            sent += 1
        producer.poll(0)
        time.sleep(_SLICE_S)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], float(sys.argv[3]))

"""What single steps of the hot path cost: `python -m benchmarks.micro`. Needs no broker and sends nothing.

Each line is the best of several repetitions, which is the figure least disturbed by neighbours.
"""

from __future__ import annotations

import functools
import re
import sys
import timeit
from collections.abc import Callable

import aiokafka
from aiokafka.codec import lz4_decode, lz4_encode, zstd_encode
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from benchmarks.contenders import BATCH_BYTES
from benchmarks.load import Staged, frame, frame_in_full, staged_records
from benchmarks.packing import PartitionCache

RECORDS = 1_000
RFC3339 = re.compile(
    rb"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]\d\d:\d\d)"
)
CONTROL_BYTES = re.compile(rb"[\x00-\x1f\x7f]")
CONTROL_TEXT = re.compile("[\x00-\x1f\x7f-\x9f]")
READ_UNCOMMITTED = 0
UNCOMPRESSED, LZ4 = 0, 3  # the attribute bits of a record batch


def best_us(step: Callable[[], object], per: int = 1) -> float:
    """Microseconds per item of `step`, which handles `per` items: the best of seven repetitions."""
    timer = timeit.Timer(step)
    loops, _ = timer.autorange()
    return min(timer.repeat(7, max(1, loops // 2))) / max(1, loops // 2) / per * 1e6


def build(
    records: list[Staged], headers: list[list[tuple[str, bytes]]], compression: int = UNCOMPRESSED
) -> BatchBuilder:
    """A batch of all the records with these headers."""
    builder = BatchBuilder(
        BATCH_BYTES, compression, is_transactional=False, key_serializer=None, value_serializer=None
    )
    for record, own in zip(records, headers, strict=True):
        builder.append(timestamp=None, key=record.tenant, value=record.value, headers=own)
    return builder


def parse(data: bytes) -> int:
    """Read a fetched partition as the fetcher does: check, decompress, one ConsumerRecord a record."""
    partition = aiokafka.TopicPartition("bench", 0)
    memory = MemoryRecords(data)
    return sum(1 for _ in PartitionRecords(partition, memory, [], 0, None, None, True, READ_UNCOMMITTED))


def hot_path(records: list[Staged]) -> dict[str, float]:
    """Microseconds a record of parsing, framing and appending."""
    staged = [list(record.headers) for record in records]
    ten = [frame(record.headers).headers for record in records]
    twelve = [frame_in_full(record.headers).headers for record in records]
    bare: list[list[tuple[str, bytes]]] = [[] for _ in records]
    plain = bytes(build(records, staged)._build())  # noqa: SLF001
    packed = bytes(build(records, staged, LZ4)._build())  # noqa: SLF001
    none = bytes(build(records, bare)._build())  # noqa: SLF001
    steps: dict[str, Callable[[], object]] = {
        "fetcher: parse a record, 8 headers, lz4": lambda: parse(packed),
        "fetcher: parse a record, 8 headers, not compressed": lambda: parse(plain),
        "fetcher: parse a record, no headers, not compressed": lambda: parse(none),
        "`dict(headers)`, 8 headers": lambda: [dict(record.headers) for record in records],
        "frame: `dict(headers)` and 10 CloudEvents headers": lambda: [frame(r.headers) for r in records],
        "`BatchBuilder.append`, 300 B, no headers": lambda: build(records, bare),
        "`BatchBuilder.append`, 300 B, 10 headers": lambda: build(records, ten),
        "`BatchBuilder.append`, 300 B, 12 headers": lambda: build(records, twelve),
    }
    return {name: best_us(step, len(records)) for name, step in steps.items()}


def keys_and_checks() -> dict[str, float]:
    """Microseconds a call of hashing and of checking one header."""
    cache = PartitionCache()
    cache[b"tenant-00042"] = 3
    identifier, text = b"0190f3a1-0000-7000-8000-00000000002a", "0190f3a1-0000-7000-8000-00000000002a"
    moment = b"2025-01-01T00:00:00.123456Z"
    steps: dict[str, Callable[[], object]] = {
        **{f"murmur2, {n} B key": functools.partial(murmur2, b"k" * n) for n in (8, 16, 36)},
        "partition from the cache, 12 B key": lambda: cache[b"tenant-00042"],
        "`b.decode().isprintable()`, 36 B": lambda: identifier.decode().isprintable(),
        "`b.isascii() and b.decode().isprintable()`": lambda: (
            identifier.isascii() and identifier.decode().isprintable()
        ),
        "regex, no control byte in 36 B": lambda: CONTROL_BYTES.search(identifier),
        "regex, no control character in decoded 36 B": lambda: CONTROL_TEXT.search(identifier.decode()),
        "`isprintable()` of a 36 character str": text.isprintable,
        "regex, RFC 3339 time, 27 B": lambda: RFC3339.fullmatch(moment),
    }
    return {name: best_us(step) for name, step in steps.items()}


def codecs(records: list[Staged]) -> dict[str, tuple[float, float]]:
    """Milliseconds a megabyte and the ratio reached, on an uncompressed batch of framed records."""
    data = bytes(build(records, [frame(record.headers).headers for record in records])._build())  # noqa: SLF001
    megabytes = len(data) / 1e6
    encoders: dict[str, Callable[[], bytes]] = {
        "lz4 level 9 (all that aiokafka asks for)": lambda: lz4_encode(data),
        "lz4 level 3": lambda: lz4_encode(data, level=3),
        "lz4 level 1": lambda: lz4_encode(data, level=1),
        "zstd level 3 (aiokafka's)": lambda: zstd_encode(data),
        "zstd level 1": lambda: zstd_encode(data, level=1),
    }
    figures = {
        name: (best_us(step) / 1_000 / megabytes, len(data) / len(step())) for name, step in encoders.items()
    }
    packed = lz4_encode(data)
    figures["lz4 decompression"] = (best_us(lambda: lz4_decode(packed)) / 1_000 / megabytes, 1.0)
    return figures


def main() -> None:
    """Print both tables as Markdown."""
    records = list(staged_records(RECORDS))
    lines = ["| step | µs |", "|---|---|"]
    lines += [f"| {name} | {us:.2f} |" for name, us in {**hot_path(records), **keys_and_checks()}.items()]
    lines += ["", "| codec | ms/MB | ratio |", "|---|---|---|"]
    lines += [f"| {name} | {ms:.2f} | {ratio:.2f} |" for name, (ms, ratio) in codecs(records).items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Staging records as a consumer hands them out, and one way to plan them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from catalog import Catalog
from catalog.policies import parse_policies
from pipeline.cloudevents import Dialect
from pipeline.plan import Limits, Plan, plan
from pipeline.record import RawHeader
from pipeline.routes import Router
from tests.catalogs.shop import DEFINITIONS

NAMESPACE = "shop"
LIMITS = Limits(1_000_000, 1_040_000)


def catalog(policies: str = "") -> Catalog:
    """The catalog of these tests; `policies` as in `STREAMING_EVENT_POLICIES`."""
    return Catalog(DEFINITIONS, namespace=NAMESPACE, policies=parse_policies(policies))


CATALOG = catalog()
SEAL = CATALOG.fingerprint.encode()
COUNTS = dict.fromkeys(CATALOG.topics, 7)


@dataclass(frozen=True)
class Staged:
    """One staging record."""

    headers: Sequence[RawHeader]
    value: bytes | None = b"{}"
    key: bytes | None = b"any"
    offset: int = 0
    timestamp: int = 0


_SOUND: Mapping[str, bytes | None] = {
    "version": b"1",
    "definition": b"order.created",
    "id": b"id-1",
    "time": b"2026-01-02T03:04:05Z",
    "source": b"//shop/web",
}


def staged(
    changes: Mapping[str, bytes | None] | None = None,
    *,
    without: Iterable[str] = (),
    more: Iterable[RawHeader] = (),
    value: bytes | None = b"{}",
    key: bytes | None = b"any",
    offset: int = 0,
) -> Staged:
    """A sound record of `order.created`, with `changes` to its headers by name without `stage-`."""
    fields = {**_SOUND, **(changes or {})}
    left_out = set(without)
    ours = [(f"stage-{name}", content) for name, content in fields.items() if name not in left_out]
    return Staged([*ours, *more], value, key, offset)


def router(dialect: Dialect = "ce_", policies: str = "", type_prefix: str = "com.shop") -> Router:
    """A router over the catalog of these tests."""
    return Router(catalog(policies), dialect=dialect, type_prefix=type_prefix)


def planned(*records: Staged, using: Router | None = None, limits: Limits = LIMITS) -> Plan:
    """The plan for these records, every topic having 7 partitions."""
    return plan(records, using or router(), COUNTS, limits)

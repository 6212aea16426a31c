"""What the catalog says of a definition, made ready for the hot path: one `Route` per definition, built on first use.

Owns: compiling definitions into routes, remembering keys and sources. Must not know: records, partition
counts, Kafka clients.
"""

from __future__ import annotations

from collections.abc import Callable

from catalog import Catalog, DeliveryPolicy, EventDefinition
from catalog.names import dlq_of
from catalog.policies import parse_override
from pipeline import packing
from pipeline.cloudevents import Dialect, constant_headers
from pipeline.partition import Key, KeyCache
from pipeline.record import Header
from pipeline.staging import check_bytes

__all__ = ["Route", "Router"]


_OWN_HEADERS = 3
"""Source, id and time."""


class Route:
    """One definition's way: its target topic, effective policy, constant headers and body check.

    `guarded` is true where a record needs more than a look at its headers: a restricted source, or a policy
    that disables the event.
    """

    __slots__ = (
        "check_body",
        "definition",
        "dlq",
        "guarded",
        "header_count",
        "overridden",
        "packed",
        "policy",
        "sources",
        "system_key",
        "topic",
    )

    def __init__(self, definition: EventDefinition, catalog: Catalog, constant: tuple[Header, ...]) -> None:
        self.definition = definition
        self.topic = catalog.topic(definition.key)
        self.dlq = dlq_of(self.topic)
        self.policy = policy = catalog.policy(definition.key)
        self.overridden: dict[bytes, DeliveryPolicy] = {}
        """Policies by the call's override; bounded, for there are some thousand legal texts and no other is kept."""
        self.packed = packing.headers(constant)
        """The constant headers."""
        self.header_count = len(constant) + _OWN_HEADERS
        """How many headers each event has, but for those of its key and further ones."""
        self.check_body: Callable[[bytes | None], None] = catalog.validator(definition.key).check
        self.sources = (
            None if definition.sources is None else frozenset(s.encode() for s in definition.sources)
        )
        self.guarded = self.sources is not None or not policy.enabled
        self.system_key: Key | None = None


class Router:
    """Routes by definition key, and the keys in use. Bounded: a route per definition, capped memories of the rest."""

    def __init__(self, catalog: Catalog, *, dialect: Dialect, type_prefix: str) -> None:
        self.catalog = catalog
        self.fingerprint = catalog.fingerprint.encode()
        self.packed_names = tuple(packing.header_name(dialect + name) for name in ("id", "time", "subject"))
        """Of the headers that each event has its own values of."""
        self.tenants = KeyCache(self._tenant_key)
        self.subjects = KeyCache(self.key_of_id)
        self.sources = _SourceHeaders(dialect + "source")
        self._dialect: Dialect = dialect
        self._type_prefix = type_prefix
        self._partition_key = dialect + "partitionkey"
        self._tenant_id = dialect + "tenantid"
        self._routes: dict[bytes, Route] = {}

    def route(self, key: bytes) -> Route | None:
        """The route of a definition key as it stands in `stage-definition`, or None for an unknown one."""
        route = self._routes.get(key)
        if route is None:
            definition = self.catalog.get(key.decode(errors="surrogateescape"))
            if definition is not None:
                route = self._routes[key] = self._compile(definition)
        return route

    def policy(self, route: Route, override: bytes | None) -> DeliveryPolicy:
        """The effective policy of one record: the catalog's and this worker's, then the call's own (D4).

        Raises `PolicyError` for an override that cannot be read or does not fit.
        """
        if override is None:
            return route.policy
        policy = route.overridden.get(override)
        if policy is None:
            call = parse_override(override.decode(errors="replace"))
            policy = route.overridden[override] = self.catalog.policy(route.definition.key, call)
        return policy

    def key_of_id(self, data: bytes) -> Key:
        """The partition key of an event without a tenant: its subject, or its id (T3)."""
        return Key(data, ((self._partition_key, data),))

    def _tenant_key(self, data: bytes) -> Key:
        check_bytes("tenant", data)
        return Key(data, ((self._partition_key, data), (self._tenant_id, data)))

    def _compile(self, definition: EventDefinition) -> Route:
        route = Route(
            definition, self.catalog, constant_headers(definition, self._dialect, self._type_prefix)
        )
        if definition.system:
            route.system_key = self.key_of_id(f"system:{definition.event_type}".encode())
        return route


class _SourceHeaders:
    """The source header of each source in use; sources are few, and the memory is capped all the same."""

    def __init__(self, name: str, limit: int = 4_096) -> None:
        self.name = name
        self._limit = limit
        self._known: dict[bytes, bytes] = {}

    def get(self, data: bytes) -> bytes:
        """The packed header of a source, checked on first use. Raises `InvalidField`."""
        found = self._known.get(data)
        if found is None:
            check_bytes("source", data)
            if len(self._known) >= self._limit:
                self._known.clear()
            found = self._known[data] = packing.header(self.name, data)
        return found

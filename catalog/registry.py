"""`Catalog`: the checked, immutable set of definitions that services and workers look things up in.

Owns: lookups, the policy in force for an event (rule D4), the fingerprint. Must not know: where
definitions are read from. All is computed when it is built; a lookup is one dictionary access.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Final

from pydantic import JsonValue

from catalog.checks import Entry, check
from catalog.definitions import EventDefinition
from catalog.errors import CatalogError, UnknownDefinition
from catalog.payloads import PayloadValidator, validator_of
from catalog.policies import DeliveryPolicy, PolicyOverride, merge
from catalog.schemas import without_prose

FINGERPRINT_CHARS: Final = 16
"""Length of `Catalog.fingerprint`, in hexadecimal digits."""

_NO_FILE: Final = "(no file)"
_NO_POLICIES: Final[Mapping[str, PolicyOverride]] = MappingProxyType({})


class Catalog:
    """All definitions of one deployment, in one namespace. Read-only; safe to share between threads.

    `policies` are the overrides of `STREAMING_EVENT_POLICIES`, already read. `files` names the file
    of each definition, in order, for the problems' sake. Raises `CatalogError` with every problem
    where the definitions do not go together (rule D2).
    """

    def __init__(
        self,
        definitions: Iterable[EventDefinition],
        *,
        namespace: str,
        policies: Mapping[str, PolicyOverride] = _NO_POLICIES,
        files: Sequence[str] = (),
    ) -> None:
        given = tuple(definitions)
        names = files or [_NO_FILE] * len(given)
        entries = [Entry(file, item) for file, item in zip(names, given, strict=True)]
        problems = check(entries, namespace, policies)
        if problems:
            raise CatalogError(problems)
        self._by_key = {item.key: item for item in sorted(given, key=lambda item: item.key)}
        self._topics = {key: item.topic_in(namespace) for key, item in self._by_key.items()}
        self._policies = {
            key: merge(item.policy, policies.get(key, PolicyOverride())) for key, item in self._by_key.items()
        }
        self._validators = {key: validator_of(item) for key, item in self._by_key.items()}
        self._namespace = namespace
        self._fingerprint = _fingerprint(self._by_key.values())

    @property
    def namespace(self) -> str:
        """The namespace that target topics are made in."""
        return self._namespace

    @property
    def definitions(self) -> tuple[EventDefinition, ...]:
        """All definitions, sorted by key."""
        return tuple(self._by_key.values())

    @property
    def topics(self) -> tuple[str, ...]:
        """The target topics of all definitions, each once, sorted."""
        return tuple(sorted(set(self._topics.values())))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with anything but prose: descriptions, owners, examples.

        The same in every process, Python version and namespace, and whatever the policies of the
        environment are. A pydantic release may change the JSON Schema of a model, and this with it.
        """
        return self._fingerprint

    def __len__(self) -> int:
        """Return the number of definitions."""
        return len(self._by_key)

    def __iter__(self) -> Iterator[EventDefinition]:
        """Iterate over the definitions, sorted by key."""
        return iter(self._by_key.values())

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a definition of this key."""
        return key in self._by_key

    def get(self, key: str) -> EventDefinition | None:
        """Return the definition of `key`, or None."""
        return self._by_key.get(key)

    def require(self, key: str) -> EventDefinition:
        """Return the definition of `key`, or raise `UnknownDefinition`, which suggests likely ones."""
        return self._by_key[self._known(key)]

    def topic(self, key: str) -> str:
        """Return the target topic of `key` (rule T1), or raise `UnknownDefinition`."""
        return self._topics[self._known(key)]

    def validator(self, key: str) -> PayloadValidator:
        """Return the compiled payload validator of `key`, or raise `UnknownDefinition`."""
        return self._validators[self._known(key)]

    def policy(self, key: str, call: PolicyOverride | None = None) -> DeliveryPolicy:
        """Return the policy in force: definition < environment < `call`, field by field (rule D4).

        Raises `UnknownDefinition`, or `PolicyError` where `call` makes a policy that cannot be.
        """
        base = self._policies[self._known(key)]
        return base if call is None else merge(base, call).check(key)

    def _known(self, key: str) -> str:
        if key not in self._by_key:
            raise UnknownDefinition(key, self._by_key)
        return key


def canonical(definition: EventDefinition) -> dict[str, JsonValue]:
    """Return what the fingerprint covers of a definition: everything but prose."""
    return {
        "key": definition.key,
        "resource_type": definition.resource_type,
        "event_type": definition.event_type,
        "schema_version": definition.schema_version,
        "content_type": definition.content_type,
        "data_schema": definition.data_schema,
        "system": definition.system,
        "sources": None if definition.sources is None else [*sorted(set(definition.sources))],
        "topic": definition.topic,
        "policy": asdict(definition.policy),
        "payload": without_prose(definition.payload_schema),
    }


def _fingerprint(definitions: Iterable[EventDefinition]) -> str:
    content = [canonical(definition) for definition in definitions]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_CHARS]

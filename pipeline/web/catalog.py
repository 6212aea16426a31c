"""The pages `/catalog/`: what events there are, how they are delivered and which layer says so, what became of them.

Owns: showing it. Must not know: rules of the catalog.
"""

from __future__ import annotations

import json

from pydantic import BaseModel, JsonValue

from catalog import EventDefinition, UnknownDefinition
from catalog.export import describe
from catalog.layers import Layer, policy_layers
from catalog.names import dlq_of
from catalog.policies import DeliveryPolicy, parse_policies
from pipeline.application import Application
from pipeline.metrics import DEAD_LETTERED, DELIVERED
from pipeline.web.route import Answer, Call, Problem, Route

__all__ = ["ROUTES"]


class PolicyField(BaseModel):
    """One field of the policy in force, and who set it."""

    name: str
    value: str
    layer: Layer


class Defined(BaseModel):
    """A definition. Counts are of its topics, since this worker started."""

    key: str
    schema_version: str
    description: str
    owner: str
    topic: str
    dlq_topic: str
    policy: list[PolicyField]
    delivered: float
    dead_lettered: float
    parked: int


class CatalogPage(BaseModel):
    """All definitions, by key."""

    fingerprint: str
    definitions: list[Defined]


class DefinitionPage(BaseModel):
    """One definition in full; `manifest` is what `catalog export` says of it."""

    definition: Defined
    manifest: dict[str, JsonValue]

    @property
    def schema_text(self) -> str:
        """Its payload's JSON Schema; empty where anything goes."""
        payload = self.manifest["payload"]
        return "" if payload is None else json.dumps(payload, indent=2, ensure_ascii=False)

    @property
    def example_texts(self) -> list[str]:
        """Its examples as JSON."""
        examples = self.manifest["examples"]
        assert isinstance(examples, list)
        return [json.dumps(example, indent=2, ensure_ascii=False) for example in examples]


async def catalog(call: Call) -> Answer:
    """All definitions."""
    application = call.application
    found = CatalogPage(
        fingerprint=application.catalog.fingerprint,
        definitions=[_defined(application, item) for item in application.catalog],
    )
    return Answer(found, "catalog.html")


async def definition(call: Call) -> Answer:
    """One definition in full."""
    application = call.application
    try:
        item = application.catalog.require(call.path["key"])
    except UnknownDefinition as error:
        raise Problem(404, str(error)) from None
    found = DefinitionPage(
        definition=_defined(application, item), manifest=describe(application.catalog, item)
    )
    return Answer(found, "definition.html")


def _defined(application: Application, item: EventDefinition) -> Defined:
    topic = application.catalog.topic(item.key)
    dlq = dlq_of(topic)
    metrics = application.metrics
    return Defined(
        key=item.key,
        schema_version=item.schema_version,
        description=item.description,
        owner=item.owner,
        topic=topic,
        dlq_topic=dlq,
        policy=_policy(application, item),
        delivered=metrics.total(DELIVERED, topic),
        dead_lettered=metrics.total(DEAD_LETTERED, dlq),
        parked=sum(parked.records for parked in application.parked() if parked.target == topic),
    )


def _policy(application: Application, item: EventDefinition) -> list[PolicyField]:
    in_force: DeliveryPolicy = application.catalog.policy(item.key)
    override = parse_policies(application.settings.event_policies).get(item.key)
    return [
        PolicyField(name=name, value=str(getattr(in_force, name)).lower(), layer=layer)
        for name, layer in policy_layers(item, override).items()
    ]


ROUTES = (
    Route("GET", "/catalog/", catalog, "All definitions.", CatalogPage),
    Route("GET", "/catalog/{key}/", definition, "One definition in full.", DefinitionPage),
)

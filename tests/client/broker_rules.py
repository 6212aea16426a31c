"""What an operator does to a broker: forbid, allow again, delete a topic. Blocks until it is done.

A client of librdkafka forgets what it was asked when it is collected: each is held until its answer is there.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import admin as kafka

from tests.kafka_client import wait_until

__all__ = ["AUTHORISE", "delete_topic", "heeded", "no_rules", "rule"]

AUTHORISE = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Properties of a broker that heeds rules; without any, everybody may do everything."""


def rule(bootstrap: str, topic: str, permission: str, operation: str) -> None:
    """Let everybody `ALLOW` or `DENY` an operation on a topic. What no rule allows is then forbidden there."""
    binding = kafka.AclBinding(  # type: ignore[attr-defined]
        kafka.ResourceType.TOPIC,  # type: ignore[attr-defined]
        topic,
        kafka.ResourcePatternType.LITERAL,  # type: ignore[attr-defined]
        "User:*",
        "*",
        kafka.AclOperation[operation],  # type: ignore[attr-defined]
        kafka.AclPermissionType[permission],  # type: ignore[attr-defined]
    )
    client = kafka.AdminClient({"bootstrap.servers": bootstrap})
    for answer in client.create_acls([binding]).values():
        answer.result(10)
    wait_until(lambda: binding in heeded(client), 20, "the broker heeds the rule")


def no_rules(bootstrap: str) -> None:
    """Remove every rule: everybody may do everything."""
    client = kafka.AdminClient({"bootstrap.servers": bootstrap})
    for answer in client.delete_acls([_everything()]).values():
        answer.result(10)
    wait_until(lambda: not heeded(client), 20, "the broker forgets its rules")


def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic and all that is in it."""
    client = kafka.AdminClient({"bootstrap.servers": bootstrap})
    client.delete_topics([topic])[topic].result(10)


def heeded(client: kafka.AdminClient, principal: str | None = None) -> list[Any]:
    """The rules, of one or of all, that the broker heeds; what the controller has written reaches it a moment later."""
    return list(client.describe_acls(_everything(principal)).result(10))


def _everything(principal: str | None = None) -> Any:
    filters: tuple[Any, ...] = (
        kafka.ResourceType.ANY,  # type: ignore[attr-defined]
        None,
        kafka.ResourcePatternType.ANY,  # type: ignore[attr-defined]
        principal,
        None,
        kafka.AclOperation.ANY,  # type: ignore[attr-defined]
        kafka.AclPermissionType.ANY,  # type: ignore[attr-defined]
    )
    return kafka.AclBindingFilter(*filters)  # type: ignore[attr-defined]

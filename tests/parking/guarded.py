"""A broker that looks at who may write where, and taking that right away.

Owns: the broker's settings, the rules. Must not know: what a worker makes of it.
"""

from __future__ import annotations

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tests.kafka_client import wait_until

__all__ = ["GUARDED", "SICK", "WELL", "deny"]

SICK, WELL = "order.created", "report.made"
"""Two targets of the shop: one whose rights are taken away, one that is well."""
GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


def deny(bootstrap: str, topic: str, *, denied: bool = True) -> None:
    """Take from everybody the right to write to a topic, or give it back."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    at = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:*", "*")
    every = AclBindingFilter(*at, AclOperation.ANY, AclPermissionType.ANY)
    if denied:
        rules = [
            AclBinding(*at, AclOperation.WRITE, AclPermissionType.DENY),
            AclBinding(*at, AclOperation.ALL, AclPermissionType.ALLOW),
        ]
        futures = list(admin.create_acls(rules).values())
    else:
        rules = []
        futures = list(admin.delete_acls([every]).values())
    for future in futures:
        future.result(30)
    # What the controller has written reaches the broker a moment later.
    wait_until(lambda: len(admin.describe_acls(every).result(30)) == len(rules), 30, "the broker heeds it")

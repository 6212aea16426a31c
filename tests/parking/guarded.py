"""A broker that looks at who may write where, and taking that right away.

Owns: the broker's settings, the rules. Must not know: what a worker makes of it.
"""

from __future__ import annotations

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

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
    if denied:
        rules = [
            AclBinding(*at, AclOperation.WRITE, AclPermissionType.DENY),
            AclBinding(*at, AclOperation.ALL, AclPermissionType.ALLOW),
        ]
        futures = list(admin.create_acls(rules).values())
    else:
        every = AclBindingFilter(*at, AclOperation.ANY, AclPermissionType.ANY)
        futures = list(admin.delete_acls([every]).values())
    for future in futures:
        future.result(30)

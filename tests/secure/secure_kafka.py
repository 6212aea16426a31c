"""One real broker with every kind of secure listener, users, and the authorizer on.

Owns: its properties, its users, rules for them. Must not know: what any test is about.

Its plain listener is for the test itself: whoever comes there is a superuser.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import admin as kafka

from devtools.kafka import Cluster
from tests.client.broker_rules import heeded
from tests.kafka_client import wait_until
from tests.secure.certificates import Authority, Pair, base64_of

__all__ = ["Allowed", "SecureKafka", "secure_kafka"]

LISTENERS = {
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "SASL": "SASL_SSL",
    "OPEN": "SASL_PLAINTEXT",
    "EXPIRED": "SSL",
    "ELSEWHERE": "SSL",
}
USERS = ("service", "worker")
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"

Allowed = Mapping[tuple[str, str, str], tuple[str, ...]]
"""Operations, by kind of resource, name and kind of pattern."""


class SecureKafka:
    """The broker. `at(listener)` is where to reach it; `env(...)` the settings of whoever does."""

    def __init__(self, cluster: Cluster, authority: Authority, passwords: Mapping[str, str]) -> None:
        self.authority = authority
        self.passwords = passwords
        self.bootstrap = cluster.bootstrap
        self._cluster = cluster

    def at(self, listener: str) -> str:
        """`host:port` of a listener."""
        return self._cluster.listener(listener)

    def tls(self, prefix: str = "STREAMING_") -> dict[str, str]:
        """Variables that trust the broker's certificates."""
        return {f"{prefix}TLS_ENABLED": "true", f"{prefix}TLS_CA_CERT": base64_of(self.authority.pem)}

    def own(self, pair: Pair, prefix: str = "STREAMING_") -> dict[str, str]:
        """Variables of a certificate of our own."""
        return {
            f"{prefix}TLS_CLIENT_CERT": base64_of(pair.certificate),
            f"{prefix}TLS_CLIENT_KEY": base64_of(pair.key),
        }

    def sasl(self, user: str, mechanism: str, prefix: str = "STREAMING_") -> dict[str, str]:
        """Variables of a user."""
        return {
            f"{prefix}SASL_MECHANISM": mechanism,
            f"{prefix}SASL_USERNAME": user,
            f"{prefix}SASL_PASSWORD": self.passwords[user],
        }

    def allow(self, user: str, rules: Allowed) -> None:
        """Let a user do what the rules say, beside what it may already."""
        client = kafka.AdminClient({"bootstrap.servers": self.bootstrap})
        wanted = _bindings(kafka.AclBinding, user, rules)  # type: ignore[attr-defined]
        for answer in client.create_acls(wanted).values():
            answer.result(10)
        wait_until(
            lambda: all(one in heeded(client, f"User:{user}") for one in wanted),
            20,
            "the broker heeds the rules",
        )

    def forbid(self, user: str, rules: Allowed) -> None:
        """Take rules back."""
        client = kafka.AdminClient({"bootstrap.servers": self.bootstrap})
        for answer in client.delete_acls(_bindings(kafka.AclBindingFilter, user, rules)).values():  # type: ignore[attr-defined]
            answer.result(10)
        gone = _bindings(kafka.AclBinding, user, rules)  # type: ignore[attr-defined]
        wait_until(
            lambda: not any(one in heeded(client, f"User:{user}") for one in gone),
            20,
            "the broker forgets the rules",
        )

    def decided(self, verdict: str, namespace: str) -> set[tuple[str, str, str, str]]:
        """What the authorizer has `Allowed` or `Denied` in a namespace so far, as the broker's log says it: user,
        operation, kind of resource, name; but for superusers. A topic that is only left out of a list of all topics is
        not denied."""
        level = "INFO" if verdict == "Denied" else r"\w+"
        line = rf"{level} kafka.authorizer.logger - Principal = User:(\w+) is {verdict} operation = (\w+) "
        found = re.findall(
            rf"{line}.*? on resource = (\w+):LITERAL:(\S+) ", self._cluster.nodes[0].log_text()
        )
        return {one for one in found if namespace in one[3] and one[0] != "ANONYMOUS"}


def _bindings(kind: Callable[..., Any], user: str, rules: Allowed) -> list[Any]:
    return [
        kind(
            kafka.ResourceType[resource],  # type: ignore[attr-defined]
            name,
            kafka.ResourcePatternType[pattern],  # type: ignore[attr-defined]
            f"User:{user}",
            "*",
            kafka.AclOperation[operation],  # type: ignore[attr-defined]
            kafka.AclPermissionType.ALLOW,  # type: ignore[attr-defined]
        )
        for (resource, name, pattern), operations in rules.items()
        for operation in operations
    ]


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """Start it; its certificates lie in `folder`."""
    authority = Authority("test authority")
    passwords = {user: secrets.token_urlsafe(18) for user in USERS}
    plain = _PLAIN + "".join(f' user_{user}="{word}"' for user, word in passwords.items()) + ";"
    trusted = folder / "trusted.pem"
    trusted.write_bytes(authority.pem)
    servers = {
        "tls": authority.sign("broker"),
        "mutual": authority.sign("broker"),
        "sasl": authority.sign("broker"),
        "expired": authority.sign("broker", expired=True),
        "elsewhere": authority.sign("elsewhere.example", address=None),
    }
    config = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": str(trusted),
        "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=([a-z]+).*$/$1/",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl.plain.sasl.jaas.config": plain,
        "listener.name.sasl.scram-sha-256.sasl.jaas.config": _SCRAM,
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": _SCRAM,
        "listener.name.open.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.open.plain.sasl.jaas.config": plain,
    }
    for listener, pair in servers.items():
        file = folder / f"{listener}.pem"
        file.write_bytes(pair.key + pair.certificate)
        config[f"listener.name.{listener}.ssl.keystore.type"] = "PEM"
        config[f"listener.name.{listener}.ssl.keystore.location"] = str(file)
    with pytest.MonkeyPatch.context() as java:
        java.setenv("JDK_JAVA_OPTIONS", "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=trace")
        cluster = Cluster(listeners=LISTENERS, extra_config=config).start()
    with cluster:
        found = SecureKafka(cluster, authority, passwords)
        _make_scram_users(cluster.bootstrap, passwords)
        yield found


def _make_scram_users(bootstrap: str, passwords: Mapping[str, str]) -> None:
    client = kafka.AdminClient({"bootstrap.servers": bootstrap})
    for mechanism in (kafka.ScramMechanism.SCRAM_SHA_256, kafka.ScramMechanism.SCRAM_SHA_512):  # type: ignore[attr-defined]
        info = kafka.ScramCredentialInfo(mechanism, 4096)  # type: ignore[attr-defined]
        wanted: list[Any] = [
            kafka.UserScramCredentialUpsertion(user, info, word.encode())  # type: ignore[attr-defined]
            for user, word in passwords.items()
        ]
        for answer in client.alter_user_scram_credentials(wanted).values():
            answer.result(10)

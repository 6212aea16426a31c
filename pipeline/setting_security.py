"""The settings of secure connections (E): TLS and SASL, one set for staging's cluster, one for the targets'.

Owns: the variables, what goes together, which set holds for which cluster. Must not know: sockets, certificates.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, SecretStr

__all__ = ["SecuritySet", "SecuritySettings", "joint_problems"]

Mechanism = Literal["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def _pem(what: str) -> AfterValidator:
    """Base64 of PEM text with at least one block of that kind; what was given is never shown."""

    def check(value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        try:
            pem = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not base64: give the PEM file as `base64 -w0 file.pem` prints it") from None
        if text and f"{what}-----".encode() not in pem:
            raise ValueError(f"holds no PEM block of a {what.lower()}")
        return value

    return AfterValidator(check)


Certificates = Annotated[SecretStr, _pem("CERTIFICATE")]
PrivateKey = Annotated[SecretStr, _pem("PRIVATE KEY")]
_EMPTY = SecretStr("")


@dataclass(frozen=True, slots=True)
class SecuritySet:
    """How to reach one cluster. `prefix` begins the names of its variables; nothing secret is in its repr."""

    prefix: str
    tls: bool
    ca_cert: SecretStr
    client_cert: SecretStr
    client_key: SecretStr
    mechanism: Mechanism
    username: str
    password: SecretStr
    allow_plaintext: bool

    @property
    def sasl(self) -> bool:
        """Whether we say who we are by name and password."""
        return self.mechanism != "none"


class SecuritySettings(BaseModel):
    """TLS and SASL. The first set is for `BROKERS`, and for `TARGET_BROKERS` where its own is not given."""

    tls_enabled: bool = Field(False, description="whether brokers are reached by TLS")
    tls_ca_cert: Certificates = Field(
        _EMPTY,
        description="who may have signed the brokers' certificates, base64 of PEM; empty: the system's",
    )
    tls_client_cert: Certificates = Field(
        _EMPTY, description="our own certificate with its chain, base64 of PEM; empty: none"
    )
    tls_client_key: PrivateKey = Field(_EMPTY, description="the key of our certificate, base64 of PEM")
    sasl_mechanism: Mechanism = Field("none", description="how we say who we are")
    sasl_username: str = Field("", description="our name; required with a mechanism")
    sasl_password: SecretStr = Field(_EMPTY, description="our password; required with a mechanism")
    sasl_allow_plaintext: bool = Field(
        False, description="whether SASL without TLS is allowed: others can then read what we send"
    )
    target_tls_enabled: bool | None = Field(None, description="the same for TARGET_BROKERS; empty: as above")
    target_tls_ca_cert: Certificates = Field(
        _EMPTY, description="the same for TARGET_BROKERS; empty: as above"
    )
    target_tls_client_cert: Certificates = Field(
        _EMPTY, description="the same for TARGET_BROKERS; empty: as above"
    )
    target_tls_client_key: PrivateKey = Field(
        _EMPTY, description="the same for TARGET_BROKERS; empty: as above"
    )
    target_sasl_mechanism: Mechanism | None = Field(
        None, description="the same for TARGET_BROKERS; empty: as above"
    )
    target_sasl_username: str = Field("", description="the same for TARGET_BROKERS; empty: as above")
    target_sasl_password: SecretStr = Field(
        _EMPTY, description="the same for TARGET_BROKERS; empty: as above"
    )
    target_sasl_allow_plaintext: bool | None = Field(
        None, description="the same for TARGET_BROKERS; empty: as above"
    )

    @property
    def security(self) -> SecuritySet:
        """How to reach `BROKERS`."""
        return SecuritySet(
            "STREAMING_",
            self.tls_enabled,
            self.tls_ca_cert,
            self.tls_client_cert,
            self.tls_client_key,
            self.sasl_mechanism,
            self.sasl_username,
            self.sasl_password,
            self.sasl_allow_plaintext,
        )

    @property
    def target_security(self) -> SecuritySet:
        """How to reach `TARGET_BROKERS`: its own variables, each where it is given, over the first set.

        A certificate and its key come from one set; so that no password goes to the wrong cluster, a name does not
        come without its password.
        """
        first = self.security
        tls = first.tls if self.target_tls_enabled is None else self.target_tls_enabled
        mechanism = self.target_sasl_mechanism or first.mechanism
        own_cert = _is_given(self.target_tls_client_cert) or _is_given(self.target_tls_client_key) or not tls
        own_name = (
            bool(self.target_sasl_username) or _is_given(self.target_sasl_password) or mechanism == "none"
        )
        return SecuritySet(
            "STREAMING_TARGET_" if self._says_anything_of_targets() else first.prefix,
            tls,
            self.target_tls_ca_cert if _is_given(self.target_tls_ca_cert) or not tls else first.ca_cert,
            self.target_tls_client_cert if own_cert else first.client_cert,
            self.target_tls_client_key if own_cert else first.client_key,
            mechanism,
            self.target_sasl_username if own_name else first.username,
            self.target_sasl_password if own_name else first.password,
            first.allow_plaintext
            if self.target_sasl_allow_plaintext is None
            else self.target_sasl_allow_plaintext,
        )

    def _says_anything_of_targets(self) -> bool:
        return any(
            getattr(self, name) != field.default
            for name, field in SecuritySettings.model_fields.items()
            if name.startswith("target_")
        )


def _is_given(value: SecretStr) -> bool:
    return bool(value.get_secret_value())


def joint_problems(security: SecuritySet) -> Iterator[str]:
    """What does not go together in one set, each problem beginning with its variable."""
    prefix = security.prefix
    cert, key = map(_is_given, (security.client_cert, security.client_key))
    if cert != key:
        missing = "CLIENT_KEY" if cert else "CLIENT_CERT"
        yield f"{prefix}TLS_{missing}: a certificate of our own needs both it and its key"
    if not security.tls:
        for name, value in (("CA_CERT", security.ca_cert), ("CLIENT_CERT", security.client_cert)):
            if _is_given(value):
                yield f"{prefix}TLS_{name}: has no effect unless {prefix}TLS_ENABLED is true"
    if security.sasl:
        for name, given in (
            ("USERNAME", bool(security.username)),
            ("PASSWORD", _is_given(security.password)),
        ):
            if not given:
                yield f"{prefix}SASL_{name}: required with {prefix}SASL_MECHANISM"
        if not security.tls and not security.allow_plaintext:
            yield (
                f"{prefix}SASL_MECHANISM: without TLS everybody on the way can read what we send; set "
                f"{prefix}TLS_ENABLED=true, or {prefix}SASL_ALLOW_PLAINTEXT=true to allow it"
            )
    elif security.username or _is_given(security.password):
        yield f"{prefix}SASL_MECHANISM: required with {prefix}SASL_USERNAME and {prefix}SASL_PASSWORD"

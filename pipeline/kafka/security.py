"""Secure connections: TLS contexts and SASL arguments for Kafka clients, and what a broker's refusal means.

Owns: turning a set of settings into what clients take; which variable is wrong, from the error. Must not know:
what is sent. Nothing secret is in its errors.
"""

from __future__ import annotations

import base64
import logging
import ssl
import tempfile
from pathlib import Path

from aiokafka.errors import KafkaConnectionError

from pipeline.errors import ErrorClass, SettingsError, StagepostError
from pipeline.setting_security import SecuritySet

__all__ = ["SecurityRefused", "arguments", "doubt", "refusal", "tls_context"]


def _shows_no_password(record: logging.LogRecord) -> bool:
    """aiokafka writes every request into its debug log, also the one that has the password in it."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    return not any(type(argument).__name__.startswith("SaslAuthenticate") for argument in arguments)


logging.getLogger("aiokafka.conn").addFilter(_shows_no_password)

_SASL_REFUSALS = {
    "SaslAuthenticationFailed": ("SASL_PASSWORD", "the broker does not accept this name and password"),
    "AuthenticationFailedError": ("SASL_PASSWORD", "the broker does not accept this name and password"),
    "UnsupportedSaslMechanismError": ("SASL_MECHANISM", "the broker does not offer this mechanism"),
    "IllegalSaslStateError": ("SASL_MECHANISM", "the broker expects no SASL here"),
}
_OURS_REFUSED = ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE")
"""Alerts that a broker sends about our certificate."""


class SecurityRefused(StagepostError):
    """A broker and we cannot trust each other as the settings are. `variable` is the one to look at."""

    error_class = ErrorClass.AUTH

    def __init__(self, variable: str, server: str, reason: str) -> None:
        self.variable = variable
        self.server = server
        self.reason = reason
        super().__init__(f"{variable}: {server} cannot be reached securely: {reason}")


def arguments(security: SecuritySet) -> dict[str, object]:
    """Keyword arguments for aiokafka's clients. Raises `SettingsError` where a certificate cannot be used."""
    protocol = ("SASL_" if security.sasl else "") + ("SSL" if security.tls else "PLAINTEXT")
    given: dict[str, object] = {"security_protocol": protocol}
    if security.tls:
        given["ssl_context"] = tls_context(security)
    if security.sasl:
        given["sasl_mechanism"] = security.mechanism
        given["sasl_plain_username"] = security.username
        given["sasl_plain_password"] = security.password.get_secret_value()
    return given


def tls_context(security: SecuritySet) -> ssl.SSLContext:
    """Verifies the broker's certificate and its host name. Raises `SettingsError` naming the variable."""
    ca = _pem(security.ca_cert.get_secret_value())
    try:
        context = ssl.create_default_context(cadata=ca or None)
    except ssl.SSLError as error:
        raise SettingsError(
            [f"{security.prefix}TLS_CA_CERT: cannot be used as certificates ({error.reason})"]
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    cert = _pem(security.client_cert.get_secret_value())
    if cert:
        _load_own(context, cert, _pem(security.client_key.get_secret_value()), security.prefix)
    return context


def _load_own(context: ssl.SSLContext, cert: str, key: str, prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # only its owner may enter; ssl reads files only
        chain = Path(folder) / "own.pem"
        chain.touch(mode=0o600)
        chain.write_text(f"{key}\n{cert}\n")
        try:
            context.load_cert_chain(chain, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "it is encrypted or damaged"
            raise SettingsError(
                [f"{prefix}TLS_CLIENT_KEY: cannot be used with {prefix}TLS_CLIENT_CERT ({reason})"]
            ) from None


def _no_password() -> str:
    """An encrypted key would make OpenSSL ask on the terminal."""
    return ""


def _pem(text: str) -> str:
    return base64.b64decode(text).decode(errors="replace")


def refusal(error: BaseException, security: SecuritySet, server: str) -> SecurityRefused | None:
    """What the settings have to do with a connection that failed; None where it has other reasons."""
    cause: BaseException | None = error
    while cause is not None:
        found = _refusal(cause, security, server)
        if found is not None:
            found.__cause__ = error
            return found
        cause = cause.__cause__ or cause.__context__
    return None


def doubt(error: BaseException, security: SecuritySet) -> str:
    """What to look at where a broker closed the connection without an answer: it may want what we do not do, or be
    about to end."""
    if not isinstance(error, KafkaConnectionError | ConnectionResetError):
        return ""
    how = "with" if security.tls else "without"
    return (
        f" (it closed the connection without an answer: does it expect us {how} TLS, and "
        f"{'with' if security.sasl else 'without'} SASL? See {security.prefix}TLS_ENABLED and "
        f"{security.prefix}SASL_MECHANISM)"
    )


def _refusal(error: BaseException, security: SecuritySet, server: str) -> SecurityRefused | None:
    prefix = security.prefix
    name, reason = _SASL_REFUSALS.get(type(error).__name__, ("", ""))
    if name:
        return SecurityRefused(prefix + name, server, reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        host_is_wrong = error.verify_code in (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
        what = "BROKERS" if host_is_wrong else "TLS_CA_CERT"
        return SecurityRefused(prefix + what, server, f"its certificate: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = str(error.reason or "TLS failed")
        if any(sign in reason for sign in _OURS_REFUSED):
            return SecurityRefused(
                f"{prefix}TLS_CLIENT_CERT", server, f"it refuses our certificate ({reason})"
            )
        return SecurityRefused(f"{prefix}TLS_ENABLED", server, f"it does not speak TLS with us ({reason})")
    return None

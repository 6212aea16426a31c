"""Every error of the pipeline, the eight error classes, and the one place that maps an error to a verdict.

Owns: error types with their facts, `classify` (C1), `verdict_of` (C3), `is_caller_error` (C2).
Must not know: Kafka clients, Faust, settings. It reads an aiokafka error by its protocol code, so that a
service can import this module without paying for the client.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Sequence

from catalog.errors import (
    CatalogError,
    PayloadRefused,
    PolicyError,
    StagepostError,
    UnknownDefinition,
)

__all__ = [
    "CallerError",
    "CatalogError",
    "ErrorClass",
    "EventDisabled",
    "InvalidField",
    "MissingExtra",
    "MissingTopics",
    "PayloadRefused",
    "PolicyError",
    "RecordTooLarge",
    "SettingsError",
    "StagepostError",
    "StagerClosed",
    "StagingRefused",
    "StagingUnavailable",
    "UnknownDefinition",
    "UnknownTarget",
    "Verdict",
    "classify",
    "is_caller_error",
    "verdict_of",
]


class ErrorClass(enum.StrEnum):
    """The eight error classes (C1); the value is what stands in `dlq-error-class` and in metrics."""

    SERIALIZATION = "serialization_error"
    VALIDATION = "validation_error"
    AUTH = "auth_error"
    TOPIC_NOT_FOUND = "topic_not_found"
    BROKER_UNAVAILABLE = "broker_unavailable"
    NETWORK_TIMEOUT = "network_timeout"
    CONTEXT_CANCELED = "context_canceled"
    BROKER_OVERLOADED = "broker_overloaded"


class Verdict(enum.Enum):
    """Whose fault a failure is (C3)."""

    POISON = "poison"
    """This record can never succeed as it is: dead-letter it, go on."""
    SYSTEMIC = "systemic"
    """The target, the broker or the deployment is at fault: keep the record, retry with backoff."""
    NOBODY = "nobody"
    """Somebody cancelled: not a failure, not counted."""


class CallerError(StagepostError):
    """What the caller handed over cannot be staged; calling again with the same arguments fails again."""


class InvalidField(CallerError):
    """A field of the event is missing, too long or malformed. Nothing was sent."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field} {reason}")


class RecordTooLarge(CallerError):
    """The payload or the whole record is over its cap. Nothing was sent."""

    def __init__(self, what: str, size: int, limit: int, setting: str) -> None:
        self.what = what
        self.size = size
        self.limit = limit
        self.setting = setting
        super().__init__(
            f"{what} has {size:,} bytes, the cap is {limit:,} ({setting}): send less or a reference"
        )


class EventDisabled(CallerError):
    """The definition's effective policy says `enabled=false`. Nothing was sent."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(
            f"event {key!r} is disabled by its delivery policy: enable it in the catalog, in "
            "STREAMING_EVENT_POLICIES, or for this call with policy={'enabled': True}"
        )


class StagingRefused(StagepostError):
    """The staging broker refused for good: authorisation or a missing topic. A caller error by C2."""

    def __init__(self, id: str, error_class: ErrorClass, reason: str) -> None:  # noqa: A002 -- the CloudEvents name
        self.id = id
        self.error_class = error_class
        self.reason = reason
        super().__init__(f"event {id} was refused by the staging broker ({error_class}): {reason}")


class StagingUnavailable(StagepostError):
    """The event could not be made durable in time.

    `unknown` is true where the record was already on its way: it may still arrive until the delivery
    deadline. Call again with the same `id=`: it is then the same event, and may appear twice (S7).
    """

    def __init__(self, id: str, error_class: ErrorClass, reason: str, *, unknown: bool) -> None:  # noqa: A002
        self.id = id
        self.error_class = error_class
        self.reason = reason
        self.unknown = unknown
        fate = "it may still arrive" if unknown else "it was not sent"
        super().__init__(f"event {id} is not staged ({error_class}): {reason}; {fate}. Retry with id={id!r}")


class StagerClosed(StagepostError):
    """`stage()` was called on a stager that is closed or was never started."""

    def __init__(self, reason: str = "the stager is closed: open a new one") -> None:
        super().__init__(reason)


class SettingsError(StagepostError):
    """One or more settings are missing or wrong; each problem names its variable."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n  ".join(self.problems)
        super().__init__(
            f"the settings are not usable; change these variables (see .env.reference):\n  {lines}"
        )


class MissingTopics(StagepostError):
    """Topics that must exist do not, or are not as they must be, and may not be created."""

    error_class = ErrorClass.TOPIC_NOT_FOUND

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n  ".join(self.problems)
        super().__init__(f"topics are not as the pipeline needs them:\n  {lines}")


class UnknownTarget(StagepostError):
    """A target was named that no definition of this worker's catalog has."""

    def __init__(self, target: str) -> None:
        self.target = target
        super().__init__(
            f"{target!r} is no target of this worker's catalog: name the topic as `catalog show` does"
        )


class MissingExtra(StagepostError):
    """A part of Stagepost was used whose dependencies are not installed."""

    def __init__(self, extra: str, module: str) -> None:
        self.extra = extra
        self.module = module
        super().__init__(f"{module!r} is not installed: this needs `pip install 'stagepost[{extra}]'`")


# Kafka protocol error codes (https://kafka.apache.org/protocol#protocol_error_codes).
# INVALID_TIMESTAMP (32) is no fault of a record: its time is that of sending, by a clock that is wrong then.
_CLASS_OF_CODE: dict[int, ErrorClass] = {
    **dict.fromkeys((2, 10, 18, 43, 76, 87), ErrorClass.SERIALIZATION),
    **dict.fromkeys((29, 30, 31, 33, 34, 53, 58, 65), ErrorClass.AUTH),
    **dict.fromkeys((3, 17, 100), ErrorClass.TOPIC_NOT_FOUND),
    **dict.fromkeys((7, 20), ErrorClass.NETWORK_TIMEOUT),
    **dict.fromkeys((44, 89), ErrorClass.BROKER_OVERLOADED),
}
# What the client raises by itself has no code.
_CLASS_OF_NAME: dict[str, ErrorClass] = {
    "AuthenticationFailedError": ErrorClass.AUTH,
    "AuthenticationMethodNotSupported": ErrorClass.AUTH,
    "KafkaTimeoutError": ErrorClass.NETWORK_TIMEOUT,
    "RecordTooLargeError": ErrorClass.SERIALIZATION,
}
_POISON = frozenset({ErrorClass.SERIALIZATION, ErrorClass.VALIDATION})
_CALLER_TYPES = (CallerError, StagingRefused, UnknownDefinition, PayloadRefused, PolicyError)


def classify(error: BaseException) -> ErrorClass:
    """The error class (C1) of any exception; what nobody knows is `broker_unavailable`."""
    own = getattr(error, "error_class", None)
    if isinstance(own, ErrorClass):
        return own
    if isinstance(error, asyncio.CancelledError):
        return ErrorClass.CONTEXT_CANCELED
    if isinstance(error, RecordTooLarge | CallerError | UnknownDefinition | PayloadRefused | PolicyError):
        return ErrorClass.VALIDATION
    if isinstance(error, TimeoutError):
        return ErrorClass.NETWORK_TIMEOUT
    if type(error).__module__.startswith("aiokafka"):
        return _class_of_kafka_error(error)
    return ErrorClass.BROKER_UNAVAILABLE


def _class_of_kafka_error(error: BaseException) -> ErrorClass:
    code = getattr(error, "errno", None)
    if isinstance(code, int):
        return _CLASS_OF_CODE.get(code, ErrorClass.BROKER_UNAVAILABLE)
    return _CLASS_OF_NAME.get(type(error).__name__, ErrorClass.BROKER_UNAVAILABLE)


def verdict_of(error_class: ErrorClass) -> Verdict:
    """Poison, systemic, or nobody's fault (C3). The only mapping from an error to what is done about it."""
    if error_class in _POISON:
        return Verdict.POISON
    if error_class is ErrorClass.CONTEXT_CANCELED:
        return Verdict.NOBODY
    return Verdict.SYSTEMIC


def is_caller_error(error: BaseException | None) -> bool:
    """True where calling again with the same arguments cannot succeed (C2), also when wrapped.

    In: any exception; followed are its `__cause__`, else its `__context__` unless that was suppressed, and the
    members of an exception group, of which one is enough. Never raises.
    """
    return _has_caller_error(error, set())


def _has_caller_error(error: BaseException | None, seen: set[int]) -> bool:
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, _CALLER_TYPES):
            return True
        if type(error).__module__.startswith("aiokafka") and verdict_of(classify(error)) is Verdict.POISON:
            return True
        if isinstance(error, BaseExceptionGroup):
            return any(_has_caller_error(member, seen) for member in error.exceptions)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False

"""The eight error classes, and whose fault an error is (C1, C2, C3)."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from aiokafka import errors as kafka

from pipeline import errors
from pipeline.errors import (
    CallerError,
    ErrorClass,
    EventDisabled,
    InvalidField,
    MissingExtra,
    MissingTopics,
    PayloadRefused,
    PolicyError,
    RecordTooLarge,
    SettingsError,
    StagepostError,
    StagerClosed,
    StagingRefused,
    StagingUnavailable,
    UnknownDefinition,
    Verdict,
    classify,
    is_caller_error,
    verdict_of,
)

CALLER_ERRORS: list[StagepostError] = [
    CallerError("no"),
    InvalidField("tenant", "is wrong"),
    RecordTooLarge("the record", 2, 1, "STREAMING_MAX_RECORD_BYTES"),
    EventDisabled("a.b"),
    UnknownDefinition("a.c", ["a.b"]),
    PayloadRefused("a.b", "number: missing"),
    PolicyError("outbox=x", "no such value"),
    StagingRefused("id", ErrorClass.AUTH, "denied"),
]
OTHER_ERRORS: list[BaseException] = [
    StagingUnavailable("id", ErrorClass.NETWORK_TIMEOUT, "late", unknown=True),
    StagerClosed(),
    SettingsError(["STREAMING_BROKERS: required"]),
    MissingTopics(["x"]),
    MissingExtra("worker", "faust"),
    asyncio.CancelledError(),
    ConnectionResetError(),
    kafka.RequestTimedOutError(),
    kafka.TopicAuthorizationFailedError(),
    KeyError("x"),
]


def broker_error(code: int) -> BaseException:
    """What the producer makes of a code it may have no class for."""
    error: BaseException = kafka.for_code(code)("topic-0")
    error.errno = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (kafka.MessageSizeTooLargeError(), ErrorClass.SERIALIZATION),
        (kafka.CorruptRecordException(), ErrorClass.SERIALIZATION),
        (kafka.RecordListTooLargeError(), ErrorClass.SERIALIZATION),
        (kafka.RecordTooLargeError(), ErrorClass.SERIALIZATION),
        (kafka.InvalidTimestampError(), ErrorClass.BROKER_UNAVAILABLE),
        (broker_error(76), ErrorClass.SERIALIZATION),
        (broker_error(87), ErrorClass.SERIALIZATION),
        (InvalidField("id", "is empty"), ErrorClass.VALIDATION),
        (PayloadRefused("a.b", "x"), ErrorClass.VALIDATION),
        (UnknownDefinition("a.b", []), ErrorClass.VALIDATION),
        (PolicyError("x", "y"), ErrorClass.VALIDATION),
        (kafka.TopicAuthorizationFailedError(), ErrorClass.AUTH),
        (kafka.ClusterAuthorizationFailedError(), ErrorClass.AUTH),
        (kafka.SaslAuthenticationFailed(), ErrorClass.AUTH),
        (kafka.UnsupportedSaslMechanismError(), ErrorClass.AUTH),
        (kafka.AuthenticationFailedError(), ErrorClass.AUTH),
        (kafka.UnknownTopicOrPartitionError(), ErrorClass.TOPIC_NOT_FOUND),
        (kafka.InvalidTopicError(), ErrorClass.TOPIC_NOT_FOUND),
        (broker_error(100), ErrorClass.TOPIC_NOT_FOUND),
        (MissingTopics(["x"]), ErrorClass.TOPIC_NOT_FOUND),
        (kafka.NotLeaderForPartitionError(), ErrorClass.BROKER_UNAVAILABLE),
        (kafka.KafkaConnectionError(), ErrorClass.BROKER_UNAVAILABLE),
        (kafka.NodeNotReadyError(), ErrorClass.BROKER_UNAVAILABLE),
        (ConnectionRefusedError(), ErrorClass.BROKER_UNAVAILABLE),
        (RuntimeError("nobody knows"), ErrorClass.BROKER_UNAVAILABLE),
        (kafka.RequestTimedOutError(), ErrorClass.NETWORK_TIMEOUT),
        (kafka.NotEnoughReplicasAfterAppendError(), ErrorClass.NETWORK_TIMEOUT),
        (kafka.KafkaTimeoutError(), ErrorClass.NETWORK_TIMEOUT),
        (TimeoutError(), ErrorClass.NETWORK_TIMEOUT),
        (asyncio.CancelledError(), ErrorClass.CONTEXT_CANCELED),
        (kafka.PolicyViolationError(), ErrorClass.BROKER_OVERLOADED),
        (broker_error(89), ErrorClass.BROKER_OVERLOADED),
        (StagingRefused("id", ErrorClass.AUTH, "x"), ErrorClass.AUTH),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_classes(error: BaseException, expected: ErrorClass) -> None:
    """Each of the eight classes, by broker codes, by client errors and by our own (C1)."""
    assert classify(error) is expected


def test_there_are_eight() -> None:
    """The eight classes and their spelling are part of the contract with dead letters and metrics (C1)."""
    assert [str(item) for item in ErrorClass] == [
        "serialization_error",
        "validation_error",
        "auth_error",
        "topic_not_found",
        "broker_unavailable",
        "network_timeout",
        "context_canceled",
        "broker_overloaded",
    ]


def test_every_error_of_the_client_has_a_class() -> None:
    """Nothing that aiokafka can raise breaks the classification, and hardly anything is poison (C1, C3)."""
    poison = set()
    for _, kind in inspect.getmembers(kafka, inspect.isclass):
        if issubclass(kind, Exception) and verdict_of(classify(kind.__new__(kind))) is Verdict.POISON:
            poison.add(kind.__name__)
    assert poison == {
        "CorruptRecordException",
        "MessageSizeTooLargeError",
        "RecordListTooLargeError",
        "RecordTooLargeError",
        "UnsupportedForMessageFormatError",
    }


@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_verdicts(error_class: ErrorClass) -> None:
    """Serialization and validation are poison, a cancellation is nobody's, the rest is systemic (C3)."""
    expected = {
        ErrorClass.SERIALIZATION: Verdict.POISON,
        ErrorClass.VALIDATION: Verdict.POISON,
        ErrorClass.CONTEXT_CANCELED: Verdict.NOBODY,
    }
    assert verdict_of(error_class) is expected.get(error_class, Verdict.SYSTEMIC)


@pytest.mark.parametrize("error", CALLER_ERRORS, ids=lambda error: type(error).__name__)
def test_caller_errors(error: StagepostError) -> None:
    """A caller error is one however it is wrapped (C2)."""
    by_cause = RuntimeError()
    by_cause.__cause__ = error
    by_context = ValueError()
    by_context.__context__ = by_cause
    for wrapped in (error, by_cause, by_context, ExceptionGroup("tasks", [OSError(), by_context])):
        assert is_caller_error(wrapped)


@pytest.mark.parametrize("error", OTHER_ERRORS, ids=lambda error: type(error).__name__)
def test_other_errors(error: BaseException) -> None:
    """Everything else may succeed when it is called again (C2)."""
    wrapped = RuntimeError()
    wrapped.__cause__ = error
    assert not is_caller_error(error)
    assert not is_caller_error(wrapped)
    assert not is_caller_error(BaseExceptionGroup("tasks", [error, OSError()]))


def test_no_error_and_circles() -> None:
    """None is no caller error; a circle of causes ends (C2)."""
    assert not is_caller_error(None)
    first, second = RuntimeError(), RuntimeError()
    first.__cause__, second.__cause__ = second, first
    assert not is_caller_error(first)


def test_a_broker_that_refuses_for_size_or_content() -> None:
    """What the broker refuses for its size or content is a caller error, also raw (C2)."""
    assert is_caller_error(kafka.MessageSizeTooLargeError())
    assert is_caller_error(broker_error(87))
    assert not is_caller_error(kafka.NotLeaderForPartitionError())


def test_a_suppressed_context_does_not_count() -> None:
    """`raise ... from None` says that what was handled before has nothing to do with it (C2)."""
    error = ConnectionError()
    error.__context__ = PayloadRefused("a.b", "x")
    assert is_caller_error(error)
    error.__suppress_context__ = True
    assert not is_caller_error(error)


def test_every_error_has_the_one_base() -> None:
    """All errors of the project can be caught by one name, and none of our messages is empty."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        if inspect.isclass(kind) and issubclass(kind, BaseException):
            assert issubclass(kind, StagepostError), name
    ours = [error for error in (*CALLER_ERRORS, *OTHER_ERRORS) if isinstance(error, StagepostError)]
    assert all(str(error) for error in ours)
    assert "id='i-1'" in str(StagingUnavailable("i-1", ErrorClass.NETWORK_TIMEOUT, "late", unknown=True))
    assert "stagepost[worker]" in str(MissingExtra("worker", "faust"))

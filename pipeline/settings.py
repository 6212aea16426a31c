"""The settings: read once from `STREAMING_*` variables, validated together, frozen, handed in.

Owns: names, types, defaults and purpose of every variable, and the text of `.env.reference`.
Must not know: who uses them. Nothing else reads `STREAMING_*` variables.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Literal, Self, get_args, get_origin

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.errors import SettingsError
from pipeline.setting_security import SecuritySettings, joint_problems
from pipeline.setting_types import Namespace, Seconds, Servers, Source, Tokens, TypePrefix

__all__ = ["PREFIX", "Settings", "reference"]

PREFIX = "STREAMING_"
_REQUIRED = ("brokers", "catalog", "cloudevents_source")
_ORDERED = (("max_payload_bytes", "max_record_bytes"), ("stage_timeout_s", "record_delivery_timeout_s"))
_FOREIGN = frozenset({"STREAMING_TEST_BROKERS"})


class Settings(SecuritySettings):
    """All settings, frozen. Build one with `Settings.from_env(os.environ)`, or by keyword in tests.

    Raises `SettingsError` naming each wrong variable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    enabled: bool = Field(
        True, description="false: stage() accepts everything and sends nothing; no worker starts"
    )
    brokers: Servers = Field(
        (), description="Kafka bootstrap servers, host:port, comma separated; required when enabled"
    )
    target_brokers: Servers = Field(
        (), description="cluster of the target topics; empty: the same as BROKERS"
    )
    catalog: str = Field(
        "", description="module (catalog.examples.flights) or folder of TOML files; required when enabled"
    )
    cloudevents_source: Source = Field(
        "", description="CloudEvents source of the events staged here, a URI-reference; required when enabled"
    )
    cloudevents_dialect: Literal["ce_", "ce-"] = Field(
        "ce_", description="header prefix on targets: ce_ (the Kafka binding) or ce- (lib-streaming's names)"
    )
    namespace: Namespace = Field("streaming", description="first part of all topic names")
    type_prefix: TypePrefix = Field(
        "", description="first part of the CloudEvents type; empty: the same as NAMESPACE"
    )
    event_policies: str = Field(
        "", description="delivery policy overrides: <definition key>.<field>=<value>, comma separated"
    )
    client_id: str = Field(
        "stagepost",
        min_length=1,
        max_length=200,
        description="Kafka client id, seen in broker logs and quotas",
    )
    batch_linger_ms: float = Field(
        5,
        ge=0,
        le=10_000,
        description="while a request is under way, how long a record waits for companions, in ms",
    )
    batch_max_bytes: int = Field(
        1_048_576, ge=1_024, le=100_000_000, description="record batch size before compression, bytes"
    )
    max_buffered_records: int = Field(
        10_000, ge=1, description="records waiting in one stager before stage() has to wait"
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "lz4", description="record batch compression"
    )
    stage_timeout_s: Seconds = Field(2, description="stage() has decided after this many seconds")
    record_delivery_timeout_s: Seconds = Field(
        30, description="a record not acknowledged after this many seconds is given up by the stager"
    )
    drain_timeout_s: Seconds = Field(
        10, description="at a stop or rebalance, how long work in hand may take to finish"
    )
    close_timeout_s: Seconds = Field(30, description="upper bound of Stager.close()")
    max_payload_bytes: int = Field(1_000_000, ge=1, le=100_000_000, description="largest payload, bytes")
    max_record_bytes: int = Field(
        1_040_000, ge=1_024, le=104_000_000, description="largest record (key, value and headers), bytes"
    )
    cb_failure_ratio: float = Field(
        0.5, gt=0, le=1, description="share of failures in 60 s that opens a breaker"
    )
    cb_min_requests: int = Field(10, ge=1, description="events in 60 s before a breaker may open")
    cb_timeout_s: Seconds = Field(30, description="how long a breaker stays open before it probes")
    target_soft_timeout_s: Seconds = Field(
        2,
        description="an attempt to deliver that takes longer counts as failed, and what waits for it is parked",
    )
    park_max_bytes: int = Field(
        1_073_741_824,
        ge=1,
        description="bytes of events that may be parked from one staging partition; then that partition waits",
    )
    unknown_definition: Literal["park", "dlq"] = Field(
        "park",
        description="an event of a definition or staging version the worker does not know: park it until a worker "
        "comes that does, or dead-letter it",
    )
    outbox_dir: str = Field(
        "",
        description="folder of the service's outbox; required where any policy may use it (not outbox=never)",
    )
    outbox_max_bytes: int = Field(
        1_073_741_824, ge=1_048_576, description="largest outbox of one process, bytes of events"
    )
    data_dir: str = Field(
        "", description="folder of the worker's tables; empty: <NAMESPACE>-data in the working folder"
    )
    topics_autocreate: bool = Field(
        True, description="create missing topics; false: refuse to start and list them"
    )
    topic_partitions: int = Field(
        6, ge=1, le=10_000, description="partitions of created topics; staging keeps its first count"
    )
    topic_replication: int = Field(
        0,
        ge=0,
        le=100,
        description="replication of created topics; 0: three, or as many as there are brokers",
    )
    web_bind: str = Field("127.0.0.1", description="address the worker's pages listen on")
    web_port: int = Field(6066, ge=1, le=65_535, description="port of the worker's pages")
    max_redrives: int = Field(
        3, ge=1, le=1_000_000, description="a dead letter that was redriven this often is not redriven again"
    )
    admin_tokens: Tokens = Field(
        (),
        description="who may change things on the pages: name:sha256 of each token, comma separated; "
        "beyond loopback also who may read, and then required",
        examples=["name:sha256,..."],
    )
    show_payloads: Literal["auto", "true", "false"] = Field(
        "auto", description="whether pages show payloads; auto: only while WEB_BIND is loopback"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems_at_once(cls, values: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        problems: list[str] = []
        wrong: set[str] = set()
        try:
            settings = handler(values)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            problems = [_problem(detail) for detail in details]
            wrong = {str(detail["loc"][0]) for detail in details if detail["loc"]}
            given = values if isinstance(values, Mapping) else {}
            settings = handler({name: value for name, value in given.items() if name not in wrong})
        problems += _joint_problems(settings, wrong)
        if problems:
            raise SettingsError(problems)
        return settings

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Settings from the `STREAMING_*` variables of `env`; an empty variable counts as not set.

        Raises `SettingsError` listing every wrong, missing or unknown variable.
        """
        known = {_variable(name): name for name in cls.model_fields}
        given = {
            name: value for name, value in env.items() if name.startswith(PREFIX) and name not in _FOREIGN
        }
        problems = [_unknown(name, known) for name in given if name not in known]
        values = {
            known[name]: value.strip() for name, value in given.items() if name in known and value.strip()
        }
        try:
            settings = cls.model_validate(values)
        except SettingsError as error:
            problems += error.problems
        if problems:
            raise SettingsError(problems)
        return settings

    @property
    def targets_apart(self) -> bool:
        """Whether targets live on a cluster of their own."""
        return bool(self.target_brokers) and self.target_brokers != self.brokers

    @property
    def effective_target_brokers(self) -> tuple[str, ...]:
        """Bootstrap servers of the cluster the targets live on."""
        return self.target_brokers or self.brokers

    @property
    def effective_type_prefix(self) -> str:
        """What CloudEvents types begin with."""
        return self.type_prefix or self.namespace

    @property
    def web_is_loopback(self) -> bool:
        """Whether only programs of this machine reach the pages."""
        try:
            return ipaddress.ip_address(self.web_bind).is_loopback
        except ValueError:
            return self.web_bind == "localhost"

    @property
    def payloads_are_shown(self) -> bool:
        """Whether pages may show payloads."""
        return self.show_payloads == "true" or (self.show_payloads == "auto" and self.web_is_loopback)

    @property
    def effective_data_dir(self) -> str:
        """The worker's folder."""
        return self.data_dir or f"{self.namespace}-data"


def _joint_problems(settings: Settings, wrong: set[str]) -> Iterator[str]:
    """What fields are together, leaving out those that are wrong by themselves."""
    if settings.enabled and "enabled" not in wrong:
        for name in _REQUIRED:
            if name not in wrong and not getattr(settings, name):
                yield f"{_variable(name)}: required while {PREFIX}ENABLED is true"
    if not any("tls_" in name or "sasl_" in name for name in wrong):
        sets = [settings.security, *([settings.target_security] if settings.targets_apart else [])]
        yield from dict.fromkeys(problem for one in sets for problem in joint_problems(one))
    for low, high in _ORDERED:
        if not wrong & {low, high} and getattr(settings, high) < getattr(settings, low):
            yield f"{_variable(high)}: must not be less than {_variable(low)}"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _unknown(name: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), known.values(), n=1)
    return f"{name}: no such setting" + (f", did you mean {_variable(close[0])}?" if close else "")


def _problem(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    return f"{_variable(str(detail['loc'][0]))}: {message}" if detail["loc"] else message


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def reference() -> str:
    """The text of `.env.reference`: each variable with type, default and purpose."""
    lines = ["# Every setting of Stagepost: purpose, then the variable with its default.", ""]
    own = {name: field for name, field in Settings.model_fields.items() if name in Settings.__annotations__}
    for name, field in (own | Settings.model_fields).items():
        lines += [
            f"# {field.description} ({_kind(field)})",
            f"{_variable(name)}={_shown(field.default)}",
            "",
        ]
    return "\n".join(lines)


def _kind(field: FieldInfo) -> str:
    annotation = field.annotation
    if type(None) in get_args(annotation):  # may be left open
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if annotation is bool:
        return "true|false"
    if field.examples:
        return str(field.examples[0])
    kinds = {int: "integer", float: "number", tuple: "host:port,..."}
    return kinds.get(type(field.default), "text") if field.annotation is not float else "number"


if __name__ == "__main__":
    print(reference(), end="")

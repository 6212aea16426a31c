"""What all commands share: being a Faust command in a group, one answer in two forms, the exit status (O2).

Owns: how a command is registered, what it prints where, how it ends. Must not know: what any command does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import click
from faust.cli import AppCommand, option
from faust.cli.base import cli

from pipeline.application import Application
from pipeline.cli.worker_api import TOKEN_VARIABLE
from pipeline.errors import StagepostError

__all__ = ["WORKER_OPTIONS", "Report", "Subcommand", "add_group", "as_json", "table"]

WORKER_OPTIONS = (
    option("--url", default="", help="Address of a worker; the default is that of WEB_BIND and WEB_PORT."),
    option("--token", default="", help=f"One of the worker's ADMIN_TOKENS; better in {TOKEN_VARIABLE}."),
)
"""Of every command that asks a worker."""


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a command: `document` for programs, `text` for people, `done` for the exit status."""

    document: object
    """Anything that `json.dumps` takes."""
    text: str
    done: bool
    """Whether all that was asked is done, and well; else the exit status is 1."""


class Subcommand(AppCommand):
    """A Faust command that stands in a group, such as `catalog lint`, and answers with a `Report`.

    Runs on an event loop of its own: no worker, and no producer of Faust's, is started for it.
    """

    abstract: ClassVar[bool] = True
    application: ClassVar[Application]
    group: ClassVar[click.Group]

    @classmethod
    def as_click_command(cls) -> click.Command:
        """Put it into its group, where Faust would put it on the top level."""

        @click.pass_context
        def invoke(context: click.Context, /, **arguments: object) -> NoReturn:
            self = cls(context)
            self.kwargs = arguments
            self()

        command = click.command(cls.__name__.replace("_", "-"), help=cls.__doc__)(invoke)
        for add in cls.options or ():
            add(command)
        cls.group.add_command(command)
        return command

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Run, print the answer, end the process; an error of ours ends it with its message and status 1."""
        arguments = dict(self.kwargs)
        for_programs = arguments.pop("as_json") or self.json
        try:
            report: Report = asyncio.run(self.run(**arguments))
        except StagepostError as error:
            raise SystemExit(str(error)) from None
        click.echo(as_json(report.document) if for_programs else report.text, file=self.stdout)
        raise SystemExit(0 if report.done else 1)

    def progress(self, message: str) -> None:
        """Tell a waiting person how far it is; on stderr, for stdout is the answer's."""
        click.echo(message, file=self.stderr)


Handler = Callable[..., Awaitable[Report]]


def add_group(application: Application, name: str, purpose: str) -> Callable[..., None]:
    """Add a group of commands; returns `add(handler, *options)`, which adds a command named like the handler.

    The handler's docstring is the command's help; every command has `--json`.
    """
    group = click.Group(name, help=purpose)
    cli.add_command(group)

    def add(handler: Handler, *options: object) -> None:
        json_option = option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
        application.app.command(*options, json_option, base=Subcommand, group=group, application=application)(
            handler
        )

    return add


def as_json(document: object, indent: int | None = None) -> str:
    """One JSON document, ASCII only, so that no locale can spoil it."""
    return json.dumps(document, indent=indent)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns, two blanks apart; `None` is shown as `-`. A cell stays on one line."""
    cells = [[*headers], *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _cell(value: object) -> str:
    return "-" if value is None else " ".join(str(value).split())

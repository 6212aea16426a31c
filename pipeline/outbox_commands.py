"""`python -m pipeline outbox list|drain|export` (O2): what waits in a service's outbox, for whoever operates it.

Owns: the arguments, what is shown, the exit status. Must not know: Faust; a service's install has none.

`list` and `export` only read, also the slots of living processes. The settings are the service's own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from pipeline.client.kafka_stager import KafkaStager
from pipeline.errors import SettingsError, StagepostError
from pipeline.outbox.errors import OutboxUnavailable
from pipeline.outbox.looking import Found, is_held, rows_in, slots_in
from pipeline.outbox.row import BadRow, Row, decode
from pipeline.settings import Settings

__all__ = ["main"]


class _Slot(NamedTuple):
    name: str
    held: bool
    waiting: int
    set_aside: int


def main(arguments: Sequence[str]) -> int:
    """Run a command; its exit status: 0 only when all that was asked is done."""
    given = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env(os.environ)
        if not settings.outbox_dir:
            raise SettingsError(["STREAMING_OUTBOX_DIR: not set, so there is no outbox to look into"])
        done: bool = given.command(settings, given)
    except (StagepostError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if done else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline outbox", description=__doc__)
    commands = parser.add_subparsers(required=True)
    show = commands.add_parser("list", help="show what waits and what was set aside")
    show.add_argument("--limit", type=int, default=100, help="show at most so many rows (100)")
    show.add_argument("--payloads", action="store_true", help="show the payloads too, base64")
    show.set_defaults(command=_list)
    drain = commands.add_parser("drain", help="ship what dead processes left, and end")
    drain.add_argument("--timeout-s", type=float, default=60.0, help="give up after so long (60)")
    drain.set_defaults(command=_drain)
    export = commands.add_parser("export", help="write every row as a line of JSON, payloads base64")
    export.add_argument("--output", type=Path, help="a file to write; default: stdout")
    export.set_defaults(command=_export)
    for command in (show, drain, export):
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _list(settings: Settings, given: argparse.Namespace) -> bool:
    shown: list[dict[str, object]] = []
    slots = []
    for folder in slots_in(Path(settings.outbox_dir)):
        waiting = set_aside = 0
        for found in rows_in(folder):
            waiting += found.reason is None
            set_aside += found.reason is not None
            if len(shown) < given.limit:
                shown.append(_summary(folder.name, found, payloads=given.payloads))
        slots.append(_Slot(folder.name, is_held(folder), waiting, set_aside))
    if given.json:
        print(json.dumps({"slots": [slot._asdict() for slot in slots], "rows": shown}))
        return True
    for slot in slots:
        holder = "held by a living process" if slot.held else "held by nobody"
        print(f"{slot.name}: {slot.waiting:,} waiting, {slot.set_aside:,} set aside; {holder}")
    for row in shown:
        print("  " + "  ".join(f"{name}={value}" for name, value in row.items() if value is not None))
    left = sum(slot.waiting + slot.set_aside for slot in slots) - len(shown)
    if left:
        print(f"  and {left:,} more: --limit")
    return True


def _summary(slot: str, found: Found, *, payloads: bool) -> dict[str, object]:
    row = _row(found)
    return {
        "slot": slot,
        "sequence": found.sequence,
        "id": row.id if row else None,
        "definition": _definition(row) if row else None,
        "age_s": round(time.time() - found.at, 1),
        "bytes": len(found.data),
        "reason": found.reason,
        **({"payload_base64": _base64(row.value if row else None)} if payloads else {}),
    }


def _drain(settings: Settings, given: argparse.Namespace) -> bool:
    before, aside_before = _counts(settings)
    try:
        asyncio.run(_ship(settings, given.timeout_s))
    except TimeoutError:
        print(f"not all is shipped within {given.timeout_s:g} s", file=sys.stderr)
    after, aside = _counts(settings)
    held = {slot: rows for slot, rows in after.items() if is_held(Path(settings.outbox_dir) / slot)}
    left = sum(rows for slot, rows in after.items() if slot not in held)
    set_aside = aside - aside_before
    shipped = sum(before.values()) - sum(after.values()) - set_aside
    if given.json:
        print(json.dumps({"shipped": shipped, "set_aside": set_aside, "left": left, "held": held}))
    else:
        print(f"shipped {shipped:,}, set aside {set_aside:,}, left {left:,}")
        for slot, rows in held.items():
            print(f"{slot}: {rows:,} rows are shipped by the living process that holds it")
    return left == 0 and set_aside == 0


async def _ship(settings: Settings, timeout_s: float) -> None:
    async with KafkaStager(settings) as stager, asyncio.timeout(timeout_s):
        await stager.drain_outbox()


def _counts(settings: Settings) -> tuple[Counter[str], int]:
    """How many rows wait in each slot that has any, and how many are set aside in all."""
    waiting: Counter[str] = Counter()
    aside = 0
    for folder in slots_in(Path(settings.outbox_dir)):
        for found in rows_in(folder):
            if found.reason is None:
                waiting[folder.name] += 1
            else:
                aside += 1
    return waiting, aside


def _export(settings: Settings, given: argparse.Namespace) -> bool:
    count = 0
    unreadable: list[str] = []
    where = given.output.open("w", encoding="ascii") if given.output else nullcontext(sys.stdout)
    with where as output:
        for line in _lines(settings, unreadable):
            _write(output, line)
            count += 1
    if given.output and given.json:
        print(json.dumps({"rows": count, "unreadable": unreadable}))
    else:
        print(f"exported {count:,} rows", file=sys.stderr)
    for problem in unreadable:
        print(problem, file=sys.stderr)
    return not unreadable


def _write(output: IO[str], line: dict[str, object]) -> None:
    output.write(json.dumps(line) + "\n")


def _lines(settings: Settings, unreadable: list[str]) -> Iterator[dict[str, object]]:
    for folder in slots_in(Path(settings.outbox_dir)):
        try:
            for found in rows_in(folder):
                row = _row(found)
                yield {
                    "slot": folder.name,
                    "sequence": found.sequence,
                    "stored_at": found.at,
                    "reason": found.reason,
                    "id": row.id if row else None,
                    "key_base64": _base64(row.key if row else None),
                    "payload_base64": _base64(row.value if row else None),
                    "headers": [[name, _base64(value)] for name, value in row.headers] if row else None,
                    "row_base64": _base64(found.data),
                }
        except OutboxUnavailable as error:
            unreadable.append(str(error))


def _row(found: Found) -> Row | None:
    try:
        return decode(found.data)
    except BadRow:
        return None


def _definition(row: Row) -> str | None:
    return next(
        (value.decode(errors="replace") for name, value in row.headers if name == "stage-definition"), None
    )


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()

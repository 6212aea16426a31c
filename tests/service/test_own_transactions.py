"""Events that commit or vanish with a service's own transaction, on SQLite and on Django's ORM (S11)."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from examples.sqlite_outbox import SqliteOutbox, connect, place_order
from pipeline import Settings, Shipped, Stager
from pipeline.testing import MemoryStager
from tests.kafka_client import read_all
from tests.service import own_transactions

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]
A_NEWER_ROW = b"\x09 of a version that nobody knows"


def settings_of(bootstrap: str, namespace: str) -> dict[str, str]:
    """The service's variables: no outbox of ours, for no policy may use one."""
    return {
        "STREAMING_BROKERS": bootstrap,
        "STREAMING_CATALOG": own_transactions.NAME,
        "STREAMING_CLOUDEVENTS_SOURCE": "//tests/orders",
        "STREAMING_NAMESPACE": namespace,
    }


def orders_by_customer(bootstrap: str, namespace: str) -> dict[str, list[int]]:
    """The orders on the staging topic, in order."""
    found: dict[str, list[int]] = {}
    for record in read_all(bootstrap, f"{namespace}.staging"):
        assert record.key is not None
        found.setdefault(record.key.decode(), []).append(json.loads(record.value or b"")["order"])
    return found


async def test_sqlite(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """An order that is rolled back takes its event with it; the others are shipped in the order of each customer,
    a row of an unknown version is set aside with its reason, and its neighbours go on."""
    path = tmp_path / "shop.db"
    async with Stager(Settings.from_env(settings_of(kafka.bootstrap, namespace))) as stager:
        with closing(connect(path)) as connection:
            for number in range(300):
                place_order(connection, stager, number, f"customer-{number % 3}")
            with pytest.raises(sqlite3.IntegrityError):
                place_order(connection, stager, 7, "customer-1")  # there is an order 7
            with connection:
                connection.execute("insert into outbox (at, row) values (0, ?)", (A_NEWER_ROW,))
            place_order(connection, stager, 300, "customer-0")
        assert await stager.ship(SqliteOutbox(path)) == Shipped(301, 1)
        assert await stager.ship(SqliteOutbox(path)) == Shipped(0, 0)
    assert orders_by_customer(kafka.bootstrap, namespace) == {
        f"customer-{rest}": [number for number in range(301) if number % 3 == rest] for rest in range(3)
    }
    with closing(connect(path)) as connection:
        ((row, reason),) = connection.execute("select row, reason from outbox")
    assert row == A_NEWER_ROW
    assert "newer" in reason


async def test_the_stager_of_tests_ships_too(tmp_path: Path) -> None:
    """The stager in memory ships what the real one ships, and sets aside what that one does (S8)."""
    path = tmp_path / "shop.db"
    memory = MemoryStager(Settings.from_env(settings_of("127.0.0.1:1", "shop")))
    with closing(connect(path)) as connection:
        place_order(connection, memory, 1, "acme")
        with connection:
            connection.execute("insert into outbox (at, row) values (0, ?)", (A_NEWER_ROW,))
    memory.assert_nothing_staged()
    assert await memory.ship(SqliteOutbox(path)) == Shipped(1, 1)
    memory.assert_staged("order.placed", payload={"order": 1}, tenant="acme")


_ORDERS = """
import django
django.setup()
from django.db import transaction
from examples.django_shop.models import OutboxRow
from examples.django_shop.outbox import place_order
for number in range(20):
    try:
        with transaction.atomic():  # a view's, for example
            place_order(number, f"customer-{number % 2}")
            if number in (3, 8):
                raise ValueError("something else in the request failed")
    except ValueError:
        pass
OutboxRow.objects.create(row=A_NEWER_ROW)
print(OutboxRow.objects.count())
"""


def test_django(kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """The same on Django's ORM, inside the view's own transaction, shipped by a command beside the web server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMING_")}
    env = inherited | settings_of(kafka.bootstrap, namespace)
    env |= {"DJANGO_SETTINGS_MODULE": "examples.django_shop.settings", "DATABASE": str(tmp_path / "shop.db")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-W", "error", *arguments]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "django", "migrate", "--run-syncdb")
    assert run("-c", f"A_NEWER_ROW = {A_NEWER_ROW!r}{_ORDERS}") == "19\n"
    assert run("-m", "django", "ship_outbox", "--once") == "shipped 18, set aside 1\n"
    assert orders_by_customer(kafka.bootstrap, namespace) == {
        "customer-0": [0, 2, 4, 6, 10, 12, 14, 16, 18],
        "customer-1": [1, 5, 7, 9, 11, 13, 15, 17, 19],
    }
    left = run(
        "-c",
        "import django; django.setup(); from examples.django_shop.models import OutboxRow;"
        "print([row.reason for row in OutboxRow.objects.all()])",
    )
    assert "newer" in left

"""What an older version left in its outbox, shipped by this one (S11)."""

from __future__ import annotations

import json
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest

from catalog import OwnTopics
from devtools.kafka import Brokers
from pipeline.client.kafka_stager import KafkaStager
from tests.kafka_client import read_all
from tests.outbox.older_outbox import EVENTS, FOLDER, definitions
from tests.outbox.test_outbox_kafka import settings_of, until

ARCHIVES = sorted(FOLDER.glob("*.tar.gz"))


@pytest.mark.kafka
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name.removesuffix(".tar.gz"))
async def test_an_older_outbox_is_shipped(
    kafka: Brokers, namespace: str, archive: Path, tmp_path: Path
) -> None:
    """S11, S6: each event that the older program stored is staged once, as it was given, and each key in order."""
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    settings = settings_of(kafka.bootstrap, namespace, tmp_path)
    async with KafkaStager(settings, catalog=definitions(namespace)) as stager:
        await until(stager, lambda health: health.state == "healthy")
    found: defaultdict[str, list[object]] = defaultdict(list)
    for record in read_all(kafka.bootstrap, OwnTopics(namespace).staging):
        header = {name: (value or b"").decode() for name, value in record.headers}
        assert (header["stage-source"], header["x-note"]) == ("//older/service", "kept")
        found[(record.key or b"").decode()].append(
            (
                *(
                    header["stage-definition"],
                    header.get("stage-tenant", ""),
                    header.get("stage-subject", ""),
                ),
                *(header["stage-id"], json.loads(record.value or b"")),
            )
        )
    expected: defaultdict[str, list[object]] = defaultdict(list)
    for event in EVENTS:
        expected[event[1] or "system:seen"].append(event)
    assert found == expected


def test_there_is_an_older_outbox() -> None:
    """S11: each version that was released has left one; before the first, the program as it was then."""
    assert ARCHIVES

"""One secure broker for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker_fixtures import skipping
from tests.secure.secure_kafka import SecureKafka, secure_kafka


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker with every kind of secure listener."""
    with skipping(), secure_kafka(tmp_path_factory.mktemp("certificates")) as started:
        yield started

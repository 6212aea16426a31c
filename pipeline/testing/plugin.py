"""The pytest plugin: the fixture `staged`. Importing it loads pytest and the standard library only.

Owns: options, and for how long the memory stager stands in. Must not know: how events are checked or kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import pytest

from pipeline.client.default import use_stager

if TYPE_CHECKING:
    from catalog import Catalog
    from pipeline.settings import Settings
    from pipeline.testing.memory import MemoryStager

__all__ = ["pytest_addoption", "staged"]

_DEFAULTS = {"STREAMING_BROKERS": "memory:9092", "STREAMING_CLOUDEVENTS_SOURCE": "urn:stagepost:test"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--stagepost-catalog` and the setting `stagepost_catalog`."""
    text = "catalog of the fixture `staged`: a module or a folder (default: STREAMING_CATALOG)"
    parser.getgroup("stagepost").addoption("--stagepost-catalog", default="", help=text)
    parser.addini("stagepost_catalog", text, default="")


@pytest.fixture
def staged(pytestconfig: pytest.Config) -> Iterator[MemoryStager]:
    """A `MemoryStager` that all staging of this process goes to during the test.

    Settings come from `STREAMING_*`; what is required and missing gets a value for tests, but for the catalog.
    """
    from pipeline.testing.memory import MemoryStager  # only tests that ask for it pay for it

    settings = _settings(pytestconfig, os.environ)
    catalog = _catalog(settings.catalog, settings.namespace, settings.event_policies)
    stager = MemoryStager(settings, catalog=catalog)
    previous = use_stager(stager)
    yield stager
    use_stager(previous)


def _settings(config: pytest.Config, env: Mapping[str, str]) -> Settings:
    from pipeline.settings import Settings

    chosen = config.getoption("stagepost_catalog") or config.getini("stagepost_catalog")
    catalog = str(chosen or env.get("STREAMING_CATALOG", ""))
    if not catalog:
        raise pytest.UsageError(
            "the fixture `staged` needs a catalog: give --stagepost-catalog, the pytest setting "
            "stagepost_catalog, or STREAMING_CATALOG"
        )
    given = {name: value for name, value in env.items() if value}
    return Settings.from_env(
        {**_DEFAULTS, **given, "STREAMING_CATALOG": catalog, "STREAMING_ENABLED": "true"}
    )


@lru_cache(maxsize=8)
def _catalog(source: str, namespace: str, policies: str) -> Catalog:
    # Reading one takes milliseconds, and it is read-only.
    from catalog import load

    return load(source, namespace=namespace, policies=policies)

"""What events exist and how they are delivered. A user's own catalog is another module or folder.

Names load when they are first used (PEP 562), so that `catalog.errors`, `catalog.policies`,
`catalog.names` and `catalog.limits` cost a service nothing but the standard library (rule N3).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.definitions import EventDefinition
    from catalog.errors import (
        CatalogError,
        PayloadRefused,
        PolicyError,
        Problem,
        StagepostError,
        UnknownDefinition,
    )
    from catalog.loading import load
    from catalog.names import OwnTopics
    from catalog.payloads import PayloadValidator
    from catalog.policies import DeliveryPolicy, PolicyOverride
    from catalog.registry import Catalog

__all__ = [
    "Catalog",
    "CatalogError",
    "DeliveryPolicy",
    "EventDefinition",
    "OwnTopics",
    "PayloadRefused",
    "PayloadValidator",
    "PolicyError",
    "PolicyOverride",
    "Problem",
    "StagepostError",
    "UnknownDefinition",
    "load",
]

__distribution__ = "stagepost"

_HOME = {
    "Catalog": "registry",
    "DeliveryPolicy": "policies",
    "EventDefinition": "definitions",
    "OwnTopics": "names",
    "PayloadValidator": "payloads",
    "PolicyOverride": "policies",
    "load": "loading",
}


if not TYPE_CHECKING:  # a type checker that saw this would let any name pass

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

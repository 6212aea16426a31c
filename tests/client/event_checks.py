"""What the tests of single checks share: a sound call with any argument changed, and its refusal."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st

from pipeline.client.event import Event
from pipeline.errors import StagepostError, is_caller_error
from tests.client.client_events import checker

CHECKER = checker()
LEGAL = st.characters(exclude_categories=["Cs", "Cc", "Cn"]).filter(lambda c: ord(c) & 0xFFFE != 0xFFFE)
"""Characters that a field may hold; unassigned ones are left out for simplicity."""


def check(key: object = "thing.happened", payload: object = None, **arguments: object) -> Event:
    """Check an event that is sound but for what is given."""
    return CHECKER.check(key, payload, **arguments)  # type: ignore[arg-type]


def refusal(key: object = "thing.happened", payload: object = None, **arguments: object) -> Exception:
    """The error for an event; a caller error, also when wrapped."""
    with pytest.raises(StagepostError) as caught:
        check(key, payload, **arguments)
    assert is_caller_error(caught.value), caught.value
    wrapped = RuntimeError("somebody wraps it")
    wrapped.__cause__ = caught.value
    assert is_caller_error(wrapped)
    return caught.value

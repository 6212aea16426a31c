"""The agenda against a dict of times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.agenda import Agenda

_STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.booleans()), max_size=40)


@given(_STEPS)
def test_each_item_is_due_once_at_its_earliest_time(steps: list[tuple[str, int, bool]]) -> None:
    """S7: whatever has a deadline or a pause is looked at then, once, and the next time is known exactly."""
    agenda: Agenda[str] = Agenda()
    model: dict[str, float] = {}
    for item, time, take in steps:
        if take:
            due = agenda.due(time)
            times = [model[name] for name in due]
            assert times == sorted(at for at in model.values() if at <= time)
            model = {name: at for name, at in model.items() if name not in due}
        else:
            agenda.add(item, time)
            model[item] = min(time, model.get(item, time))
        assert agenda.next() == min(model.values(), default=None)

"""Pages as HTML: the templates and what they may call.

Owns: the jinja2 environment. Must not know: where data come from.

Everything a template prints is made harmless and then escaped, whether its author thought of it or not; but for values
of fields, which are escaped only (`exact`).
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

import jinja2
from markupsafe import Markup, escape

from pipeline.web.showing import harmless

__all__ = ["environment"]

_STEPS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def environment() -> jinja2.Environment:
    """The templates. An unknown variable is an error, not an empty text."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "duration": duration,
        "since": since,
        "moment": moment,
        "size": size,
        "percent": percent,
        "exact": exact,
    }
    return made


def _finalize(value: object) -> object:
    return value if isinstance(value, Markup) else harmless(str("" if value is None else value))


def exact(value: object) -> Markup:
    """For the value of a field, which comes back as it is: escaped only, as what is written out would be another one.

    People see it in a field, if at all.
    """
    return escape(str(value))


def number(value: float | None) -> str:
    """With thousands separated; `–` for what is not known."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def duration(seconds: float | None) -> str:
    """In its two largest units, such as `3 h 12 min`; below a second in milliseconds."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    parts: list[str] = []
    left = seconds
    for step, unit in _STEPS:
        if left >= step or parts:
            parts.append(f"{int(left // step)} {unit}")
            left %= step
    return " ".join(parts[:2])


def since(seconds: float) -> str:
    """How long ago; the clocks of two machines may differ by a little."""
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def moment(seconds: float | None) -> str:
    """A time of the calendar, in UTC to the second."""
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def size(count: float | None) -> str:
    """Bytes in the unit that suits them."""
    if count is None:
        return "–"
    value, units = float(count), ["TiB", "GiB", "MiB", "KiB", "B"]
    unit = units.pop()
    while value >= 1024 and units:
        value, unit = value / 1024, units.pop()
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def percent(share: float | None) -> str:
    """A share of one as a percentage."""
    return "–" if share is None else f"{share * 100:.0f} %"

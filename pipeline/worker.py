"""The composition root: reads the environment, builds the worker, registers agents and pages by name.

Owns: nothing but the order of these. The only module that knows the app *and* the agents.
"""

from __future__ import annotations

import os

from pipeline.errors import MissingExtra
from pipeline.neighbours import check_neighbour

check_neighbour("agents")
try:
    import faust  # noqa: F401 -- looked for, to say what to install where it is absent
except ModuleNotFoundError as error:
    raise MissingExtra("worker", str(error.name)) from error

import agents  # noqa: E402 -- only now is it known to be ours
from pipeline.application import build  # noqa: E402
from pipeline.settings import Settings  # noqa: E402

__all__ = ["app", "application"]

application = build(Settings.from_env(os.environ))
for register in agents.AGENTS:
    register(application)
app = application.app

"""The composition root: reads the environment, builds the worker, registers agents, commands and pages by name.

Owns: nothing but the order of these. The only module that knows the app *and* what is registered on it.
"""

from __future__ import annotations

import os
import sys

from pipeline.errors import CatalogError, MissingExtra
from pipeline.neighbours import check_neighbour

check_neighbour("agents")
try:
    import faust  # noqa: F401 -- looked for, to say what to install where it is absent
except ModuleNotFoundError as error:
    raise MissingExtra("worker", str(error.name)) from error

import agents  # noqa: E402 -- only now is it known to be ours
from pipeline import web  # noqa: E402
from pipeline.application import build  # noqa: E402
from pipeline.cli import COMMANDS, lint_refused  # noqa: E402
from pipeline.memory import give_back  # noqa: E402
from pipeline.settings import Settings  # noqa: E402

__all__ = ["app", "application"]

give_back()
settings = Settings.from_env(os.environ)
try:
    application = build(settings)
except CatalogError as error:
    lint_refused(settings.catalog, error, sys.argv)
    raise
for register in (*agents.AGENTS, *COMMANDS, web.register):
    register(application)
app = application.app

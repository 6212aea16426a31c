"""The worker's commands, registered by name on Faust's command line: `faust -A pipeline <group> <command>` (O2)."""

from __future__ import annotations

from pipeline.cli import (
    catalog_commands,
    dlq_commands,
    job_commands,
    ledger_commands,
    status_commands,
    topic_commands,
)
from pipeline.cli.catalog_commands import lint_refused

__all__ = ["COMMANDS", "lint_refused"]

COMMANDS = (
    catalog_commands.register,
    dlq_commands.register,
    job_commands.register,
    ledger_commands.register,
    status_commands.register,
    topic_commands.register,
)

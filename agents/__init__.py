"""The worker's Faust agents, registered by name: an agent that is not in `AGENTS` does not run, one that
cannot be imported stops the start."""

from __future__ import annotations

from agents import route

__all__ = ["AGENTS"]

__distribution__ = "stagepost"

AGENTS = (route.register,)

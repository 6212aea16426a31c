"""The routing agent: staging records in, by the fetch; everything else is the application's.

Owns: the subscription to the staging topic. Must not know: how a batch is delivered.
"""

from __future__ import annotations

from typing import Any

from pipeline.application import Application

__all__ = ["register"]


def register(application: Application) -> None:
    """Put the agent on the application's Faust app."""
    app = application.app
    staging = app.topic(
        application.topics.staging,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
    )

    @app.agent(staging, name="stagepost.route", concurrency=1)
    async def route(fetches: Any) -> None:
        """Hand on what each fetch brought. One agent, so that the batches of a partition stay in order."""
        async for batches in fetches:
            await application.route(batches)

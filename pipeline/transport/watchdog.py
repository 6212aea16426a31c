"""The end of a worker that cannot end: a limit on how long a stop may take.

Owns: the limit, and the exit status it ends with. Must not know: what is being stopped.

A stop has to talk to brokers: to commit, to leave the group, to flush. With a broker that is gone or hung, some of
these calls in Faust and aiokafka return after minutes or never. What is cut off here was not committed and is
delivered by the next owner of the partition.
"""

from __future__ import annotations

import logging
import os
import threading

__all__ = ["STATUS", "end_process_after"]

STATUS = 1
"""Exit status of a process whose stop took too long."""

log = logging.getLogger(__name__)


def end_process_after(limit_s: float) -> None:
    """End this process with `STATUS` unless it ends by itself within `limit_s` seconds. Does not block."""
    timer = threading.Timer(limit_s, _end, (limit_s,))
    timer.daemon = True  # a process that ends in time does not wait for it
    timer.start()


def _end(limit_s: float) -> None:
    log.critical(
        "stop.overdue limit_s=%g -- a broker may be gone or hung: the process is ended, what was not committed will be "
        "delivered again",
        limit_s,
    )
    os._exit(STATUS)

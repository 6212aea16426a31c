"""The parent of one broker process: a script of its own that ends the broker when its starter is gone.

Owns: the life of one child. Must not know: Kafka; nothing but the standard library is loaded.

    python guard.py LOG COMMAND...

It prints the child's process id on a line, sends the child's output to LOG, and ends with the child. It
kills the child when its standard input closes or its parent changes: the starter died, however it died. A
guard is used, and not a death signal on the broker itself, because Linux sends that when the *thread* that
started a child ends, and because an unfinished `fork` handler is not safe in a program with threads. The
guard has one thread, so there the death signal is right: should the guard be killed, the broker dies too.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_S = 1.0


def main(log: str, *command: str) -> int:
    """Run `command` until it ends or this process is orphaned; return its status (128+n for signal n)."""
    parent = os.getppid()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_guard() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with Path(log).open("ab") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_guard,
        )
    print(child.pid, flush=True)
    while child.poll() is None:
        ready, _, _ = select.select([sys.stdin.fileno(), woken], [], [], _PARENT_CHECK_S)
        if woken in ready:
            os.read(woken, 64)
        # The parent is looked at as well: a process it forked may hold the pipe open.
        if sys.stdin.fileno() in ready or os.getppid() != parent:
            child.kill()
            child.wait()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""`python -m tests.simulation FIRST COUNT`: virtual time is put in place, then everything else is imported.

Sets of strings are walked in the order of their hashes, so that a seed means the same only under the same hashes.
"""

from __future__ import annotations

import os
import sys

from tests.simulation.virtual_time import install

if os.environ.get("PYTHONHASHSEED") != "0":
    again = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
    os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})

install()

from tests.simulation.campaign import main  # noqa: E402 -- time first

sys.exit(main())

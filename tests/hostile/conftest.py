"""How many examples hypothesis tries here: few in the plain run, HYPOTHESIS_FUZZ of them under `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FUZZ = os.environ.get("HYPOTHESIS_FUZZ")
if FUZZ:
    settings.register_profile(
        "fuzz",
        max_examples=int(FUZZ),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    settings.load_profile("fuzz")

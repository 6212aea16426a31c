"""What a service uses: checking an event, and the stagers that make it durable. Knows nothing of the worker.

Whoever imports anything of Stagepost comes by here first, so here a foreign `catalog` is told from ours.
"""

from __future__ import annotations

from pipeline.neighbours import check_neighbour

check_neighbour("catalog")

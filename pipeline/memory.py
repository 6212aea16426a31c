"""What the C library is told about memory, so that a worker gives back what a flood took.

Owns: the options of glibc's allocator. Must not know: who allocates. Elsewhere (musl, macOS) nothing is told, nor
needed: those give back by themselves.
"""

from __future__ import annotations

import ctypes

__all__ = ["give_back"]

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 1024 * 1024
_SPARE = 16 * _LARGE


def give_back() -> None:
    """Let freed memory go back to the system; to be called before a process has threads. Does not block.

    By default glibc raises the size above which a block gets pages of its own to that of the largest block freed, up to
    32 MiB. What is fetched, batches and chunks of the index then lie in the heaps between what lives on, and a heap for
    each thread keeps the holes: 100 MB after 300,000 dead letters (benchmarks/LOG.md). But what is given back for each
    batch and taken again costs page faults, a tenth of an event's CPU: blocks under 1 MiB stay, and 16 MiB at the end.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    for option, value in (
        (_M_ARENA_MAX, 1),  # little is allocated outside Python's lock: one heap is enough
        (_M_MMAP_THRESHOLD, _LARGE),
        (_M_TRIM_THRESHOLD, _SPARE),
    ):
        mallopt(option, value)

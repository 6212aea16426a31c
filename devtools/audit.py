"""`python -m devtools.audit`: whether a locked dependency is known to be vulnerable.

Owns: asking pip-audit, and what its answer is worth. Must not know: how the service is asked. Exit status: 0 each was
looked up and none is vulnerable; 1 at least one is; 2 not every one could be looked up, so nothing can be said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["judged", "main"]

CLEAN, VULNERABLE, UNKNOWN = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit the locks given; says of each what was found. Blocks: one question for each dependency."""
    parser = argparse.ArgumentParser(prog="devtools.audit", description="audit locked dependencies")
    parser.add_argument("lock", nargs="+", help="a file of requirements, with versions")
    parser.add_argument("--osv-url", default="https://api.osv.dev/v1/query", help="where the service answers")
    parser.add_argument("--timeout", type=int, default=15, help="seconds for each answer")
    wanted = parser.parse_args(arguments)
    ends = set()
    for lock in wanted.lock:
        status, lines = judged(_report(lock, wanted.osv_url, wanted.timeout))
        print(*(f"{lock}: {line}" for line in lines), sep="\n", file=sys.stderr if status else sys.stdout)
        ends.add(status)
    return VULNERABLE if VULNERABLE in ends else max(ends)


def judged(report: Mapping[str, Any] | str) -> tuple[int, list[str]]:
    """The exit status that a report of pip-audit deserves, and what to say; a text is why there is none."""
    if isinstance(report, str):
        return UNKNOWN, [f"not audited: {report}"]
    found = report["dependencies"]
    vulnerable = [
        f"{one['name']} {one['version']} is vulnerable: {vulnerability['id']}, "
        f"mended in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for one in found
        for vulnerability in one.get("vulns", ())
    ]
    unknown = [f"not audited: {one['name']}: {one['skip_reason']}" for one in found if "skip_reason" in one]
    if vulnerable or unknown:
        return (VULNERABLE if vulnerable else UNKNOWN), vulnerable + unknown
    if not found:
        return UNKNOWN, ["not audited: it names no dependency"]
    return CLEAN, [f"{len(found)} dependencies, none known to be vulnerable"]


def _report(lock: str, url: str, timeout: int) -> dict[str, Any] | str:
    command = [
        *(sys.executable, "-m", "pip_audit", "--requirement", lock, "--no-deps", "--disable-pip"),
        *("--vulnerability-service", "osv", "--osv-url", url, "--timeout", str(timeout)),
        *("--format", "json", "--progress-spinner", "off"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"pip-audit ended with {done.returncode}"
    return answer


if __name__ == "__main__":
    sys.exit(main())

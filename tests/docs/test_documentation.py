"""The documentation is true: its code runs, its links lead somewhere, its figures are those of the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from devtools.kafka import Brokers
from tests.docs.pages import PAGES, blocks, run_page
from tests.packaging.environments import ROOT

_REASONS = {"the package index", "Docker", "another test", "Kubernetes"}
"""Why a block may be left out. What another test runs is named there: README's two commands are all of CI."""
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_RUN = {"sh", "python"}


def is_run(page: Path) -> bool:
    """Whether a page has anything to run."""
    return any(block.language in _RUN and not block.note.startswith("not run") for block in blocks(page))


@pytest.mark.kafka
@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page)], ids=lambda page: page.name)
def test_a_page_runs(page: Path, kafka: Brokers, namespace: str, tmp_path: Path) -> None:
    """Every code block of a page, from top to bottom in an empty folder, does what it says."""
    run_page(page, tmp_path, kafka.bootstrap, namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_says_why(page: Path) -> None:
    """No block is left out silently: each says why, and for few reasons only; every block has a language."""
    for block in blocks(page):
        assert block.language, f"a block without a language: {block.text[:60]!r}"
        if block.note.startswith("not run: "):
            assert block.note.removeprefix("not run: ") in _REASONS
    fences = re.findall(r"^\s*```", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page)), "a block that this test does not see"


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to another page or file is right, with its heading."""
    for link in _LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            headings = _HEADING.findall(target.read_text(encoding="utf-8"))
            assert anchor in {_anchor(heading) for heading in headings}, f"{page.name}: {link}"


def test_every_page_is_in_the_index() -> None:
    """A reader finds every page from the first one."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages == {link for link in _LINK.findall(index) if link.endswith(".md")}


def test_the_site_builds(tmp_path: Path) -> None:
    """The pages and the API reference from the docstrings build without a warning, and every page is in the menu."""
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(mkdocs, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert all(name in reference for name in ("stage_blocking", "StagingUnavailable", "EventDefinition"))


def _anchor(heading: str) -> str:
    text = re.sub(r"[^\w\s-]", "", heading.lower())
    return re.sub(r"\s+", "-", text.strip())

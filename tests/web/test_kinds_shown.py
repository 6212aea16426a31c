"""A list of kinds that ends early says so, wherever it is shown."""

from __future__ import annotations

from pydantic import BaseModel

from pipeline.cli.dlq_reports import preview_text, topic_text
from pipeline.redrive.model import Group
from pipeline.web.dead_letters import TopicPage
from pipeline.web.jobs import PreviewPage
from pipeline.web.rendering import environment

AROUND = {"path": "/", "again": "/", "by": "", "csrf": "", "now": 0.0, "has_tokens": False}
GROUP = Group(
    "t.dlq", "f", "validation_error", "m", "order.created", "1.0.0", "poison", 2, ("a",), 1, 0.0, 0.0
)


def page(template: str, data: BaseModel) -> str:
    """As a browser gets it."""
    made = environment().get_template(template)
    return made.render(data=data, namespace="ns", client_id="c", navigation=[], **AROUND)


def topic(kinds: int) -> TopicPage:
    """A topic with so many kinds, of which the first two are listed."""
    return TopicPage(
        topic="t.dlq",
        conditions={"topic": "t.dlq"},
        count=2 * kinds,
        kinds=kinds,
        groups=[GROUP] * 2,
        letters=[],
        cursor=None,
    )


def preview(kinds: int) -> PreviewPage:
    """The same before a redrive."""
    return PreviewPage(
        conditions={"topic": "t.dlq"},
        count=2 * kinds,
        too_often=0,
        kinds=kinds,
        groups=[GROUP] * 2,
        oldest_at=0.0,
        newest_at=0.0,
        histogram=[],
    )


def test_how_many_kinds_are_shown_of_how_many() -> None:
    """O1, O2: the pages of a topic and of a dry run, their JSON, and the commands that print it say how many kinds of
    how many are listed, and the letters of all kinds are counted; nothing is said where all are listed."""
    words = "2 of 1,234 kinds shown"
    for shown in (page("topic.html", topic(1_234)), page("preview.html", preview(1_234))):
        assert words in shown
        assert "2,468" in shown
    for data, text in ((topic(1_234), topic_text), (preview(1_234), preview_text)):
        document = data.model_dump(mode="json")
        assert (document["count"], document["kinds"], len(document["groups"])) == (2_468, 1_234, 2)
        assert words in text(document)
    all_of_them = (
        page("topic.html", topic(2)),
        page("preview.html", preview(2)),
        topic_text(topic(2).model_dump(mode="json")),
        preview_text(preview(2).model_dump(mode="json")),
    )
    assert not [text for text in all_of_them if "kinds shown" in text]

"""The tables of the index of dead letters, and the statements that fill them.

Owns: the SQL of writing. Must not know: files, when anything is written.

Records come as one JSON array and are parsed by SQLite, so that a chunk of thousands costs Python a few calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "ENDINGS",
    "FORGET",
    "INCOMING",
    "KNOWN_TOPICS",
    "LETTERS",
    "STATES",
    "TABLES",
    "VERSION",
    "Taking",
]

STATES = ("open", "redriven", "discarded")
"""What the numbers in the column `state` stand for."""
VERSION = 3
"""Of these tables; another one in a file means that the file is thrown away."""

TABLES = """
CREATE TABLE read (topic TEXT, partition INTEGER, next INTEGER NOT NULL, PRIMARY KEY (topic, partition))
WITHOUT ROWID;
CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- Failures of one kind on one topic; what they have in common is told by the first of them.
CREATE TABLE failure (
    id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, fingerprint TEXT NOT NULL, class TEXT NOT NULL,
    definition TEXT NOT NULL, source_topic TEXT NOT NULL, message TEXT NOT NULL, schema_version TEXT NOT NULL,
    disposition TEXT NOT NULL, dialect TEXT NOT NULL,
    UNIQUE (fingerprint, topic, class, definition, source_topic)
);
-- Those of one tenant, counted.
CREATE TABLE kind (
    id INTEGER PRIMARY KEY, failure INTEGER NOT NULL, tenant TEXT NOT NULL, open INTEGER NOT NULL DEFAULT 0,
    redriven INTEGER NOT NULL DEFAULT 0, discarded INTEGER NOT NULL DEFAULT 0, UNIQUE (failure, tenant)
);
CREATE TABLE letter (
    topic INTEGER, partition INTEGER, offset INTEGER, failure INTEGER NOT NULL, kind INTEGER NOT NULL,
    state INTEGER NOT NULL,
    failed_at REAL NOT NULL, first_failure_at REAL NOT NULL, redrives INTEGER NOT NULL, size INTEGER NOT NULL,
    source_partition INTEGER NOT NULL, source_offset INTEGER NOT NULL, id TEXT NOT NULL, source TEXT NOT NULL,
    PRIMARY KEY (topic, partition, offset)
) WITHOUT ROWID;
CREATE INDEX by_time ON letter (failed_at, topic, partition, offset, kind, state);
CREATE INDEX by_kind ON letter (kind, state, failed_at, topic, partition, offset);
-- Of which the first and the last are found at once, and a range is counted at the cost of reading it.
CREATE INDEX by_failure ON letter (failure, state, failed_at, topic, partition, offset);
-- The order in which letters are redriven: that in which they were staged.
CREATE INDEX by_source ON letter (topic, source_partition, source_offset, partition, offset, kind, state);
CREATE INDEX by_redrives ON letter (redrives, kind, state, failed_at) WHERE redrives > 0;
-- What became of a letter; it may be known before the letter is.
CREATE TABLE ending (
    topic INTEGER, partition INTEGER, offset INTEGER, state INTEGER NOT NULL, at REAL NOT NULL, by TEXT NOT NULL,
    job TEXT NOT NULL, PRIMARY KEY (topic, partition, offset)
) WITHOUT ROWID;
-- How many of those of a job have been forgotten since.
CREATE TABLE ended (job TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER counted AFTER INSERT ON letter BEGIN
    UPDATE kind SET open = open + (new.state = 0), redriven = redriven + (new.state = 1),
        discarded = discarded + (new.state = 2)
    WHERE id = new.kind;
END;
CREATE TRIGGER recounted AFTER UPDATE OF state ON letter WHEN old.state <> new.state BEGIN
    UPDATE kind SET open = open + (new.state = 0) - (old.state = 0),
        redriven = redriven + (new.state = 1) - (old.state = 1),
        discarded = discarded + (new.state = 2) - (old.state = 2)
    WHERE id = new.kind;
END;
CREATE TRIGGER forgotten AFTER DELETE ON letter BEGIN
    UPDATE kind SET open = open - (old.state = 0), redriven = redriven - (old.state = 1),
        discarded = discarded - (old.state = 2)
    WHERE id = old.kind;
    DELETE FROM kind WHERE id = old.kind AND open + redriven + discarded = 0;
    DELETE FROM failure WHERE id = old.failure AND NOT EXISTS (SELECT 1 FROM kind WHERE failure = old.failure);
END;
CREATE TRIGGER forgotten_ending AFTER DELETE ON ending BEGIN
    INSERT INTO ended VALUES (old.job, 1) ON CONFLICT (job) DO UPDATE SET count = count + 1;
END;
"""
INCOMING = """
CREATE TEMP TABLE incoming (
    topic INTEGER, name TEXT, partition INTEGER, offset INTEGER, class TEXT, message TEXT, fingerprint TEXT,
    definition TEXT, schema_version TEXT, disposition TEXT, tenant TEXT, id TEXT, source TEXT, first_failure_at REAL,
    failed_at REAL, redrives INTEGER, size INTEGER, dialect TEXT, source_topic TEXT, source_partition INTEGER,
    source_offset INTEGER, failure INTEGER
);
CREATE TEMP TABLE incoming_ending (
    topic INTEGER, name TEXT, partition INTEGER, offset INTEGER, state INTEGER, at REAL, by TEXT, job TEXT
);
"""
_FIELDS = (
    *(
        "partition",
        "offset",
        "class",
        "message",
        "fingerprint",
        "definition",
        "schema_version",
        "disposition",
    ),
    *("tenant", "id", "source", "first_failure_at", "failed_at", "redrives", "size", "dialect"),
    *("source_topic", "source_partition", "source_offset"),
)
_ENDING_FIELDS = ("partition", "offset", "state", "at", "by", "job")
_FAILURE = ("topic", "fingerprint", "class", "definition", "source_topic")
_TOLD = ("message", "schema_version", "disposition", "dialect")
_TAKE_IN = f"""
INSERT INTO incoming (name, {", ".join(_FIELDS)})
SELECT json_extract(value, '$.topic'), {", ".join(f"json_extract(value, '$.{name}')" for name in _FIELDS)}
FROM json_each(?)
"""
_TAKE_IN_ENDINGS = """
INSERT INTO incoming_ending (name, partition, offset, state, at, by, job)
SELECT json_extract(value, '$.topic'), json_extract(value, '$.partition'), json_extract(value, '$.offset'),
    CASE json_extract(value, '$.state') WHEN 'redriven' THEN 1 WHEN 'discarded' THEN 2 ELSE 0 END,
    json_extract(value, '$.at'), json_extract(value, '$.by'), json_extract(value, '$.job')
FROM json_each(?)
"""
_NUMBER_TOPICS = "UPDATE {0} SET topic = (SELECT id FROM topic WHERE topic.name = {0}.name)"


class Taking(NamedTuple):
    """How one kind of record is taken in: parsed into a table, checked for what is missing there, stored."""

    table: str
    parse: str
    check: str
    store: Sequence[str]


def _check(table: str, fields: Sequence[str]) -> str:
    missing = " OR ".join(f"{name} IS NULL" for name in ("name", *fields))
    return f"SELECT 1 FROM {table} WHERE {missing} LIMIT 1"


LETTERS = Taking(
    "incoming",
    _TAKE_IN,
    _check("incoming", _FIELDS),
    (
        _NUMBER_TOPICS.format("incoming"),
        f"""INSERT OR IGNORE INTO failure ({", ".join((*_FAILURE, *_TOLD))})
        SELECT {", ".join((*_FAILURE, *_TOLD))} FROM incoming ORDER BY rowid""",
        "UPDATE incoming SET failure = (SELECT id FROM failure f WHERE "
        + " AND ".join(f"f.{name} = incoming.{name}" for name in _FAILURE)
        + ")",
        "INSERT OR IGNORE INTO kind (failure, tenant) SELECT DISTINCT failure, tenant FROM incoming",
        """INSERT OR IGNORE INTO letter
        SELECT i.topic, i.partition, i.offset, i.failure, k.id, coalesce(e.state, 0), i.failed_at,
            i.first_failure_at, i.redrives, i.size, i.source_partition, i.source_offset, i.id, i.source
        FROM incoming i CROSS JOIN kind k ON k.failure = i.failure AND k.tenant = i.tenant
        LEFT JOIN ending e ON e.topic = i.topic AND e.partition = i.partition AND e.offset = i.offset""",
        "DELETE FROM incoming",
    ),
)
ENDINGS = Taking(
    "incoming_ending",
    _TAKE_IN_ENDINGS,
    _check("incoming_ending", _ENDING_FIELDS),
    (
        _NUMBER_TOPICS.format("incoming_ending"),
        """INSERT OR REPLACE INTO ending SELECT topic, partition, offset, state, at, by, job FROM incoming_ending
    ORDER BY rowid""",
        """UPDATE letter SET state = i.state FROM incoming_ending i
    WHERE letter.topic = i.topic AND letter.partition = i.partition AND letter.offset = i.offset""",
        "DELETE FROM incoming_ending",
    ),
)
KNOWN_TOPICS = """
SELECT name FROM topic
WHERE EXISTS (SELECT 1 FROM letter WHERE topic = topic.id) OR EXISTS (SELECT 1 FROM ending WHERE topic = topic.id)
ORDER BY name
"""
FORGET = tuple(
    f"""DELETE FROM {table} WHERE topic = :topic AND partition = :partition AND offset <= (
        SELECT max(offset) FROM (
            SELECT offset FROM {table} WHERE topic = :topic AND partition = :partition AND offset < :first
            ORDER BY offset LIMIT :limit
        )
    )"""
    for table in ("letter", "ending")
)
"""Forgets what lies before an offset. The letter first: an ending that goes before it would not count it as ended."""

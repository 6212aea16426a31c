"""Rows on a real RocksDB: order, durability, limits, full disks, damage."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict, WriteOptions

from pipeline.outbox import store as store_module
from pipeline.outbox.errors import NoRoomForOutbox, OutboxFull, OutboxUnavailable
from pipeline.outbox.files import Changes, batch, options
from pipeline.outbox.store import RocksStore

GIB = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RocksStore]:
    """An empty store."""
    opened = RocksStore(tmp_path / "slot", GIB)
    yield opened
    opened.close()


def test_rows_come_back_in_order(store: RocksStore) -> None:
    """S6: rows are read in the order they were appended, from any point on."""
    first = store.append([b"a", b"b"])
    second = store.append([b"c"])
    assert [*first, *second] == [1, 2, 3]
    assert [row.data for row in store.read(0, 10)] == [b"a", b"b", b"c"]
    assert [row.data for row in store.read(1, 1)] == [b"b"]
    assert (store.rows, store.bytes) == (3, 3)


def test_deleted_rows_are_gone_and_sequences_go_on(tmp_path: Path) -> None:
    """S6: a sequence is never used twice, also after all rows were deleted and the store was opened anew."""
    store = RocksStore(tmp_path / "slot", GIB)
    store.append([b"a", b"b"])
    store.delete(store.read(0, 1))
    store.set_aside(store.read(0, 1)[0], "refused")
    assert (store.rows, store.bytes, store.set_aside_count) == (0, 0, 1)
    store.close()
    store = RocksStore(tmp_path / "slot", GIB)
    assert list(store.aside()) == [(2, "refused", b"b")]
    assert store.append([b"c"]) == range(3, 4)
    store.close()


def test_limit_is_a_typed_error_with_nothing_half_written(tmp_path: Path) -> None:
    """OUTBOX_MAX_BYTES: what does not fit is refused whole, what fits is still taken."""
    store = RocksStore(tmp_path / "slot", 10)
    store.append([b"12345"])
    with pytest.raises(OutboxFull, match="STREAMING_OUTBOX_MAX_BYTES"):
        store.append([b"12345", b"6"])
    assert [row.data for row in store.read(0, 10)] == [b"12345"]
    store.append([b"12345"])
    store.close()


def test_one_process_at_a_time(store: RocksStore, tmp_path: Path) -> None:
    """S9: a second opener is told that the store is in use."""
    with pytest.raises(OutboxUnavailable, match="another process"):
        RocksStore(tmp_path / "slot", GIB)
    assert store.append([b"a"]) == range(1, 2)


_WRITER = """
import sys
from pathlib import Path
from pipeline.outbox.store import RocksStore
store = RocksStore(Path(sys.argv[1]), 1 << 30)
n = 0
while True:
    store.append([str(n).encode()])
    print(n, flush=True)
    n += 1
"""


def test_what_was_appended_survives_kill_9(tmp_path: Path) -> None:
    """S2: append() returns after the fsync; a killed process loses no row it reported."""
    folder = tmp_path / "slot"
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reported = -1
    for line in process.stdout:
        reported = int(line)
        if reported >= 200:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.stdout.close()
    process.wait()
    reported = max([reported, *map(int, rest)])
    store = RocksStore(folder, GIB)
    rows = [int(row.data) for row in store.read(0, 100_000)]
    store.close()
    assert rows[: reported + 1] == list(range(reported + 1))


def test_damage_in_the_middle_is_set_aside_not_skipped(tmp_path: Path) -> None:
    """A write-ahead log damaged in the middle is kept and reported; rows are never dropped silently."""
    folder = tmp_path / "slot"
    store = RocksStore(folder, GIB)
    for number in range(1_000):
        store.append([b"%0200d" % number])
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)  # as a crash would leave it
    store.close()
    (log,) = (copy / "rows").glob("*.log")
    content = bytearray(log.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    log.write_bytes(content)
    opened = RocksStore(copy, GIB)
    assert opened.damage is not None
    assert Path(opened.damage.kept).exists()
    assert opened.append([b"goes on"]) == range(1, 2)
    opened.close()


@pytest.mark.parametrize("where", ["among its rows", "in its index"])
def test_a_damaged_table_does_not_look_like_the_end(where: str, tmp_path: Path) -> None:
    """S2: one bit that flipped in a table file: the files are kept and reported. Among rows RocksDB's iterator ends
    without a word, rows behind would be gone, and their sequences would be given to new ones. In the index it finds a
    wrong "block checksum", which is no lock that somebody holds."""
    store = RocksStore(tmp_path / "slot", GIB)
    for _ in range(12):
        store.append([os.urandom(1_000) for _ in range(1_000)])
    store.close()
    table = min((tmp_path / "slot" / "rows").glob("*.sst"))
    content = bytearray(table.read_bytes())
    content[len(content) // 2 if where == "among its rows" else -100] ^= 1
    table.write_bytes(content)
    opened = RocksStore(tmp_path / "slot", GIB)
    assert opened.damage is not None
    assert (Path(opened.damage.kept) / table.name).read_bytes() == content
    assert opened.rows == 0
    opened.append([b"goes on"])
    assert [row.data for row in opened.read(0, 10)] == [b"goes on"]
    opened.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], stderr=subprocess.DEVNULL
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def append_until(error: type[OutboxUnavailable], store: RocksStore, rows: list[bytes]) -> int:
    """Append these rows again and again; how many were stored before this error came."""
    stored = 0
    with contextlib.suppress(error):
        while stored < 20_000:
            stored += len(store.append(rows))
    assert stored < 20_000, f"no {error.__name__} came"
    return stored


def fill(disk: Path) -> None:
    """Leave no room, in the file `more`."""
    with contextlib.suppress(OSError), (disk / "more").open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()


def test_full_disk_and_back_without_a_restart(small_disk: Path) -> None:
    """A full disk is a typed error at once; nothing stored is lost; staging resumes when there is room again."""
    ballast = small_disk / "ballast"
    store = RocksStore(small_disk / "slot", GIB)
    ballast.write_bytes(bytes(20 << 20))
    stored = append_until(OutboxFull, store, [os.urandom(4_000)] * 50)
    assert stored > 50
    fill(small_disk)
    with pytest.raises(OutboxUnavailable):
        store.append([os.urandom(1 << 20)] * 50)
    ballast.unlink()
    small_disk.joinpath("more").unlink()
    store.append([b"resumed"])
    rows = store.read(0, 10**6)
    store.close()
    assert len(rows) >= stored + 1
    assert rows[-1].data == b"resumed"


def test_closing_on_a_full_disk(small_disk: Path) -> None:
    """S9: what cannot be flushed for want of room keeps nobody from closing, and is there again afterwards."""
    store = RocksStore(small_disk / "slot", GIB)
    store.append([b"stored"])
    fill(small_disk)
    store.close()
    small_disk.joinpath("more").unlink()
    store = RocksStore(small_disk / "slot", GIB)
    assert [row.data for row in store.read(0, 10)] == [b"stored"]
    store.close()


def test_a_first_start_on_a_full_disk(small_disk: Path) -> None:
    """S2: without room for a new store it is said that there is none yet; with rows in it, only what is new is refused.
    However far the making of its files came, it begins once there is room."""
    folder, more = small_disk / "slot", small_disk / "more"
    for left in (0, 4_096, 20_480, 45_056):
        fill(small_disk)
        os.truncate(more, more.stat().st_size - left)
        with contextlib.suppress(NoRoomForOutbox):
            RocksStore(folder, GIB).close()
        more.unlink()
        store = RocksStore(folder, GIB)
        store.append([b"stored"])
        store.close()
        fill(small_disk)
        (folder / "reserve").unlink()
        fill(small_disk)
        store = RocksStore(folder, GIB)
        with pytest.raises(OutboxFull):
            store.append([b"refused"])
        store.close()
        more.unlink()
        store = RocksStore(folder, GIB)
        assert [row.data for row in store.read(0, 10)] == [b"stored"]
        store.close()
        shutil.rmtree(folder)


def test_a_write_that_rocksdb_holds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: while RocksDB stops writes a moment, an append waits; where it does not go on, and a flush that waits for
    room on the disk does not, the append is a typed error and does not hang. Nothing stored is lost."""

    def stops_after_each_flush() -> Options:
        options = plain()
        options.set_level_zero_file_num_compaction_trigger(1)
        options.set_level_zero_slowdown_writes_trigger(1)
        options.set_level_zero_stop_writes_trigger(1)
        return options

    plain = options
    monkeypatch.setattr(store_module, "options", stops_after_each_flush)
    store = RocksStore(tmp_path / "slot", GIB)
    rows = [
        os.urandom(1 << 20)
    ] * 9  # more than a write buffer: each append waits for the flush of the one before
    stored = sum(len(store.append(rows)) for _ in range(5))
    monkeypatch.setattr(store_module, "_STALL_S", 0.0)
    stored += append_until(OutboxUnavailable, store, rows)
    monkeypatch.undo()
    store.append([b"resumed"])
    assert len(store.read(0, 10**6)) == stored + 1
    store.close()


def test_a_restart_on_a_full_disk_drains(small_disk: Path) -> None:
    """Opening, reading and deleting work on a full disk: the reserve is given up for it."""
    store = RocksStore(small_disk / "slot", GIB)
    for _ in range(100):
        store.append([os.urandom(1_000)] * 10)
    store.close()
    fill(small_disk)
    store = RocksStore(small_disk / "slot", GIB)
    assert store.rows == 1_000
    store.delete(store.read(0, 1_000))
    assert store.read(0, 1) == []
    store.close()


def test_a_restart_on_a_full_disk_without_the_reserve_drains(small_disk: Path) -> None:
    """S2: also where the reserve was given up earlier and others have taken its room: what waits is read and shipped,
    what can never be is set aside, what is new is refused. Once there is room, what was shipped stays gone, also where
    there is room only at the end, and staging goes on."""
    folder, more = small_disk / "slot", small_disk / "more"
    store = RocksStore(folder, GIB)
    for _ in range(100):
        store.append([os.urandom(1_000)] * 10)
    store.close()
    for room_comes_before_the_end in (True, False):
        fill(small_disk)
        (folder / "reserve").unlink()
        fill(small_disk)
        store = RocksStore(folder, GIB)
        waiting = store.rows
        with pytest.raises(OutboxFull, match="free some space"):
            store.append([b"new"])
        rows = store.read(0, 300)
        assert len(rows) == 300
        store.delete(rows)
        store.set_aside(store.read(0, 1)[0], "refused")
        assert store.rows == waiting - 301
        assert store.read(0, 1)[0].sequence == rows[-1].sequence + 2
        more.unlink()
        if room_comes_before_the_end:
            store.append([b"new"])
        store.close()
        store = RocksStore(folder, GIB)
        assert store.rows == waiting - 301 + room_comes_before_the_end
        assert len(list(store.aside())) == store.set_aside_count
        store.close()
    assert store.set_aside_count == 2


def test_a_row_that_was_written_and_not_synced_is_refused_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: where the log took a row and its fsync failed, the caller is told that it is not stored: then it is not, and
    does not come behind what is stored later, nor twice where it is stored again."""

    def written_and_not_synced(_: RocksStore, database: Rdict, changes: Changes, how: WriteOptions) -> None:
        how.sync = False
        database.write(batch(changes), how)
        raise OSError("IO error: While fdatasync: Input/output error")

    store = RocksStore(tmp_path / "slot", GIB)
    store.append([b"a"])
    with monkeypatch.context() as broken:
        broken.setattr(RocksStore, "_write_unless_stalled", written_and_not_synced)
        with pytest.raises(OutboxUnavailable, match="fdatasync"):
            store.append([b"b", b"c"])
    assert [row.data for row in store.read(0, 10)] == [b"a"]
    assert store.append([b"b"]) == range(2, 3)
    store.close()
    store = RocksStore(tmp_path / "slot", GIB)
    assert [row.data for row in store.read(0, 10)] == [b"a", b"b"]
    assert store.rows == 2
    store.close()


def test_what_says_nothing_about_the_files_sets_none_aside(tmp_path: Path) -> None:
    """S2: a process that may open no more files cannot open its outbox. That is told, and nothing else: the files are
    as they were, and their rows there once it can."""
    store = RocksStore(tmp_path / "slot", GIB)
    store.append([b"stored"])
    store.close()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = 0
    for more in range(1, 12):
        in_use = sum(1 for _ in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + more, before[1]))
        try:
            RocksStore(tmp_path / "slot", GIB).close()
        except OutboxUnavailable:
            refused += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        store = RocksStore(tmp_path / "slot", GIB)
        assert store.damage is None
        assert [row.data for row in store.read(0, 10)] == [b"stored"]
        store.close()
    assert refused


def test_damage_is_told_until_it_is_gone(tmp_path: Path) -> None:
    """S9: what was set aside whole is told at each start, until somebody has taken it away: its events wait in it."""
    store = RocksStore(tmp_path / "slot", GIB)
    store.append([b"stored"])
    store.close()
    kept = tmp_path / "slot" / "rows.damaged-1"
    (tmp_path / "slot" / "rows").rename(kept)
    store = RocksStore(tmp_path / "slot", GIB)
    assert store.damage is not None
    assert store.damage.kept == str(kept)
    store.close()
    shutil.rmtree(kept)
    store = RocksStore(tmp_path / "slot", GIB)
    assert store.damage is None
    store.close()

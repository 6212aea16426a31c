"""One outbox for all of a process: group commit, keys that wait, slots of several processes."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.outbox import process
from pipeline.outbox.errors import NoRoomForOutbox, OutboxFull, OutboxUnavailable
from pipeline.outbox.process import ProcessOutbox
from pipeline.outbox.row import encode
from pipeline.outbox.sharing import let_go, shared
from pipeline.outbox.slots import Orphans, slot_folders, take_slot
from pipeline.outbox.store import RocksStore
from pipeline.outbox.telling import Listener, Told
from pipeline.packing import pack

GIB = 1 << 30


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[ProcessOutbox]:
    """The outbox of this process, empty."""
    opened = ProcessOutbox(take_slot(tmp_path), GIB)
    yield opened
    await opened.close()


def row(key: bytes, number: int = 0) -> bytes:
    """An encoded row."""
    return encode(f"id-{number}", pack((key, b"value", [("a", b"b")])))


def append(outbox: ProcessOutbox, key: bytes, data: bytes) -> asyncio.Future[int]:
    """A future of what became of the row."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def told(rows: Told[asyncio.Future[int]]) -> None:
        for name, result in rows:
            if isinstance(result, int):
                name.set_result(result)
            else:
                name.set_exception(result)

    outbox.append(key, data, future, Listener(told))
    return future


async def test_concurrent_appends_share_a_commit_and_keep_call_order(outbox: ProcessOutbox) -> None:
    """S2, S6: each future resolves after its row is stored; sequences follow the order of the calls."""
    futures = [append(outbox, b"k%d" % (n % 7), row(b"k%d" % (n % 7), n)) for n in range(500)]
    assert await asyncio.gather(*futures) == list(range(1, 501))
    assert (await outbox.waiting()).rows == 500


async def test_a_key_has_rows_from_the_call_on_until_they_are_deleted(outbox: ProcessOutbox) -> None:
    """S6: a key with a row queues behind it, also while the row is on its way to the disk; others do not."""
    stored = append(outbox, b"k", row(b"k"))
    assert outbox.rows_of(b"k") == 1
    assert outbox.rows_of(b"other") == 0
    await stored
    rows = await outbox.read(0, 10)
    await outbox.delete(rows)
    assert outbox.rows_of(b"k") == 0


async def test_from_threads_with_loops_of_their_own(outbox: ProcessOutbox) -> None:
    """S9: stagers of several event loops share the outbox of their process."""

    async def some(number: int) -> list[int]:
        return [await append(outbox, b"k", row(b"k", number)) for _ in range(20)]

    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda n=n: results.append(asyncio.run(some(n)))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(itertools.chain(*results)) == list(range(1, 81))
    assert all(result == sorted(result) for result in results)


async def test_what_does_not_fit_fails_alone(tmp_path: Path) -> None:
    """OUTBOX_MAX_BYTES: in one group commit the rows that fit are stored and only the others fail."""
    outbox = ProcessOutbox(take_slot(tmp_path), 400)
    small = [append(outbox, b"s", row(b"s")) for _ in range(3)]
    large = append(outbox, b"l", encode("id", pack((b"l", bytes(1_000), []))))
    more = append(outbox, b"s", row(b"s"))
    done = await asyncio.gather(*small, large, more, return_exceptions=True)
    assert [type(result) for result in done] == [int, int, int, OutboxFull, int]
    assert outbox.rows_of(b"l") == 0
    await outbox.close()


async def test_a_key_goes_on_though_nobody_waits_for_the_end_of_its_rows(outbox: ProcessOutbox) -> None:
    """S6: who deletes a row or sets it aside may be cancelled, as `asyncio.run` does with all tasks at its end: the key
    has no row any more all the same, and other stagers of the process send its events straight."""
    for number in range(2):
        await append(outbox, b"k", row(b"k", number))
    first, second = await outbox.read(0, 2)
    for work in (outbox.delete([first]), outbox.set_aside(second, "refused")):
        ending = asyncio.create_task(work)
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.wait([ending])
        assert ending.cancelled()
    assert (await outbox.waiting()).set_aside == 1
    assert outbox.rows_of(b"k") == 0


async def test_a_key_has_its_rows_until_who_ends_them_goes_on(outbox: ProcessOutbox) -> None:
    """S6: a row that was shipped counts for its key until its relay takes it from what is under way, in the same turn
    of the loop: counted off sooner, an event would pass a younger row of the key that is not under way yet."""
    for number in range(2):
        await append(outbox, b"k", row(b"k", number))
    shipped, _ = await outbox.read(0, 2)
    ending = asyncio.create_task(outbox.delete([shipped]))
    await asyncio.sleep(0)
    waiting = outbox.waiting_now(10.0)  # holds the loop until the thread is past the deletion
    assert waiting is not None
    assert waiting.rows == 1
    assert outbox.rows_of(b"k") == 2
    await ending
    assert outbox.rows_of(b"k") == 1


async def test_what_is_read_at_once_is_bounded(
    outbox: ProcessOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: however much waits, and however large it is, a service has little of it in memory: where rows are large fewer
    are read at once, but always one."""
    monkeypatch.setattr(process, "_AT_ONCE_BYTES", 2_500)
    for number, size in enumerate((1_000, 1_000, 1_000, 5_000, 10)):
        await append(outbox, b"k", row(b"k", number) + bytes(size))
    sizes = [[row.sequence for row in await outbox.read(after, 100)] for after in (0, 3, 4)]
    assert sizes == [[1, 2, 3], [4], [5]]
    assert len(await outbox.read(0, 1)) == 1


async def test_an_error_that_nobody_foresaw_ends_nothing(
    outbox: ProcessOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2, S7: whatever a store raises, callers hear of it as `OutboxUnavailable`, and the outbox goes on: a writer that
    had ended would let everybody wait for ever."""

    def unforeseen(*_: object) -> None:
        raise MemoryError("unforeseen")

    with monkeypatch.context() as broken:
        for name in ("append", "read", "delete"):
            broken.setattr(RocksStore, name, unforeseen)
        with pytest.raises(OutboxUnavailable, match="unforeseen"):
            await append(outbox, b"k", row(b"k"))
        with pytest.raises(OutboxUnavailable, match="unforeseen"):
            await outbox.read(0, 1)
        with pytest.raises(OutboxUnavailable, match="unforeseen"):
            await outbox.delete(())
    assert await append(outbox, b"k", row(b"k")) == 1
    assert outbox.rows_of(b"k") == 1


async def test_old_rows_are_counted_before_new_ones_may_overtake(tmp_path: Path) -> None:
    """S6: rows that an earlier process left hold their keys back from the first moment on."""
    earlier = ProcessOutbox(take_slot(tmp_path), GIB)
    await asyncio.gather(*(append(earlier, b"old", row(b"old", n)) for n in range(50)))
    await earlier.close()
    outbox = ProcessOutbox(take_slot(tmp_path), GIB)
    assert outbox.rows_of(b"old") > 0
    assert (await outbox.waiting()).rows == 50
    assert outbox.rows_of(b"old") == 50
    assert outbox.rows_of(b"new") == 0
    await outbox.close()


async def test_closed(outbox: ProcessOutbox) -> None:
    """A closed outbox says so and keeps what it was handed."""
    stored = append(outbox, b"k", row(b"k"))
    await outbox.close()
    assert await stored == 1
    with pytest.raises(OutboxUnavailable, match="closed"):
        append(outbox, b"k", row(b"k"))


def test_slots_are_locked_by_one_process_each(tmp_path: Path) -> None:
    """S9: numbered slots, mode 0700, each locked by one process; a released one is the next to be taken."""
    first, second = take_slot(tmp_path), take_slot(tmp_path)
    assert (first.folder.name, second.folder.name) == ("slot-0000", "slot-0001")
    assert stat.S_IMODE(first.folder.stat().st_mode) == 0o700
    first.release()
    third = take_slot(tmp_path)
    assert third.folder == first.folder
    for slot in (second, third):
        slot.release()


def _die_with_rows(directory: Path) -> None:
    slot = take_slot(directory)
    store = RocksStore(slot.folder, GIB)
    store.append([row(b"orphan")])
    os.kill(os.getpid(), 9)


def test_orphans_are_found_and_living_slots_left_alone(tmp_path: Path) -> None:
    """S9: the slot of a killed process is free with its rows in it; the slot of a living one is not touched."""
    living = take_slot(tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=_die_with_rows, args=(tmp_path,))
    process.start()
    process.join(30)
    orphans = Orphans(tmp_path)
    (orphan,) = orphans.take()
    assert orphan.folder.name == "slot-0001"
    store = RocksStore(orphan.folder, GIB)
    assert store.rows == 1
    store.close()
    orphan.release()
    orphans.emptied(orphan)
    assert list(orphans.take()) == []  # nothing has changed in it since
    living.release()


def test_a_slot_taken_again_is_looked_into_again(tmp_path: Path) -> None:
    """S9: a slot that another process took while it was found empty is looked into once that process is dead, though
    its files have not changed since: rows are appended without a change to their folder."""
    (tmp_path / "slot-0000" / "rows").mkdir(parents=True)
    orphans = Orphans(tmp_path)
    (orphan,) = orphans.take()
    orphan.release()
    other = take_slot(tmp_path)
    orphans.emptied(orphan)
    other.release()
    (again,) = orphans.take()
    again.release()


def test_a_slot_that_cannot_be_looked_into_hides_no_other(tmp_path: Path) -> None:
    """S9: what is wrong with one slot keeps nobody from adopting the next, and ends no search."""
    for number in range(2):
        (tmp_path / f"slot-{number:04d}" / "rows").mkdir(parents=True)
    (tmp_path / "slot-0000" / "lock").mkdir()
    (orphan,) = Orphans(tmp_path).take()
    assert orphan.folder.name == "slot-0001"
    orphan.release()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """E: an OUTBOX_DIR that cannot be used is an error that names the setting."""
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(OutboxUnavailable, match="STREAMING_OUTBOX_DIR"):
        take_slot(file)


def test_no_room_for_a_slot_is_told_apart(tmp_path: Path) -> None:
    """S2: where the disk is too full even for the folders of a slot, it is said that there is no outbox yet."""
    command = ["mount", "-t", "tmpfs", "-o", "nr_inodes=2", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.call(command, stderr=subprocess.DEVNULL):
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(NoRoomForOutbox, match="free some space"):
            take_slot(tmp_path / "outbox")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _fork_and_write(folder: Path) -> None:
    """Fork while rows are being stored; parent and child then store more than RocksDB keeps without its threads."""

    async def some(name: bytes) -> list[int]:
        outbox = ProcessOutbox(take_slot(folder), GIB)
        done = [await append(outbox, name, bytes(1 << 20)) for _ in range(20)]
        if name == b"parent":
            under_way = [append(outbox, name, row(name, n)) for n in range(50)]
            child = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(some(b"child")))
            child.start()
            done += await asyncio.gather(*under_way)
            done += [await append(outbox, name, bytes(1 << 20)) for _ in range(20)]
            await asyncio.to_thread(child.join, 20)
            assert child.exitcode == 0, child.exitcode
        await outbox.close()
        return done

    assert asyncio.run(some(b"parent")) == list(range(1, 91))


def test_an_outbox_survives_a_fork_in_parent_and_child(tmp_path: Path) -> None:
    """S9: after fork() the child has its own slot, whatever the parent has open. RocksDB's threads do not exist in
    a child: without help its writes hang once its buffers are full, and its end aborts."""
    process = multiprocessing.get_context("spawn").Process(target=_fork_and_write, args=(tmp_path,))
    process.start()
    process.join(40)
    try:
        assert process.exitcode == 0
    finally:
        process.kill()
    stores = [RocksStore(tmp_path / f"slot-{number:04d}", GIB) for number in range(2)]
    assert [store.rows for store in stores] == [90, 20]
    for store in stores:
        store.close()


async def test_a_slot_that_cannot_be_opened_is_not_kept(tmp_path: Path) -> None:
    """S9: a process whose slot cannot be opened lets go of it: it takes the same one when it tries again, and others
    may adopt what lies there."""
    store = RocksStore(tmp_path / "slot-0000", GIB)  # RocksDB lets nobody else open it
    for _ in range(3):
        with pytest.raises(OutboxUnavailable, match="another process has it open"):
            shared(tmp_path, GIB)
    store.close()
    outbox = shared(tmp_path, GIB)
    assert [folder.name for folder in slot_folders(tmp_path)] == ["slot-0000"]
    await let_go(outbox)

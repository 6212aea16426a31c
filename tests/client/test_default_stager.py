"""The stager behind `from pipeline import stage`, as services run it: loops, threads, forks, the end (S9, N3)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import ClientSession, web

import pipeline
from devtools.kafka import Brokers
from pipeline.client import default
from pipeline.testing import MemoryStager
from tests.client.client_events import settings
from tests.kafka_client import read_all

PROGRAM_TIMEOUT_S = 60
COMPLAINTS = (
    "Traceback",
    "Warning",
    "Exception ignored",
    "never retrieved",
    "never awaited",
    "was destroyed",
)


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # What another test has used is not there, and what this one uses ends with it.
    ours = default._Defaults()
    monkeypatch.setattr(default, "_defaults", ours)
    yield
    if ours.blocking is not None:
        ours.blocking.stop()


@pytest.fixture
def service(
    kafka: Brokers, namespace: str, program_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, _fresh: None
) -> dict[str, str]:
    """The environment of a service, in this process and for programs."""
    ours = {"STREAMING_BROKERS": kafka.bootstrap, "STREAMING_NAMESPACE": namespace}
    env = {**program_env, **ours}
    for name, value in env.items():
        if name.startswith("STREAMING_"):
            monkeypatch.setenv(name, value)
    return env


def run(program: str, env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; it must succeed and complain of nothing."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *options, "-c", program],
        env=env,
        capture_output=True,
        text=True,
        timeout=PROGRAM_TIMEOUT_S,
        check=False,
    )
    complaints = [sign for sign in COMPLAINTS if sign in done.stderr]
    assert (done.returncode, complaints) == (0, []), done.stderr
    return done


def staged_ids(env: dict[str, str]) -> Counter[str]:
    """How often each event is on the staging topic."""
    records = read_all(env["STREAMING_BROKERS"], f"{env['STREAMING_NAMESPACE']}.staging")
    return Counter(record.header["stage-id"].decode() for record in records)


@pytest.mark.kafka
async def test_a_web_service(service: dict[str, str]) -> None:
    """Handlers of a web framework stage at once, from coroutines and from its thread pool; all are durable (S1, S9)."""

    async def handle(request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if request.match_info["kind"] == "task":
            staged = await pipeline.stage("thing.happened", {"n": 1}, id=name)
        else:
            staged = await asyncio.to_thread(pipeline.stage_blocking, "thing.happened", {"n": 1}, id=name)
        return web.json_response(staged._asdict())

    async def healthy(_: web.Request) -> web.Response:
        return web.json_response((await pipeline.health())._asdict())

    app = web.Application()
    app.add_routes([web.get("/stage/{kind}/{id}", handle), web.get("/health", healthy)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with ClientSession(f"http://{host}:{port}") as client:

        async def get(path: str) -> dict[str, object]:
            async with client.get(path) as response:
                assert response.status == 200, await response.text()
                answer: dict[str, object] = await response.json()
                return answer

        paths = [f"/stage/{kind}/{kind}-{n}" for n in range(40) for kind in ("task", "thread")]
        answers = await asyncio.gather(*map(get, paths))
        assert (await get("/health"))["state"] == "healthy"
    await runner.cleanup()
    assert [answer["id"] for answer in answers] == [path.rpartition("/")[2] for path in paths]
    assert staged_ids(service) == {path.rpartition("/")[2]: 1 for path in paths}


@pytest.mark.kafka
def test_threads_and_a_loop_after_another(service: dict[str, str]) -> None:
    """Sixteen threads share one stager; each event loop has its own, closed and forgotten with it (S9)."""
    with ThreadPoolExecutor(16) as pool:
        work = [
            pool.submit(pipeline.stage_blocking, "thing.happened", n, id=f"thread-{n}") for n in range(160)
        ]
        assert [item.result(30).id for item in work] == [f"thread-{n}" for n in range(160)]
    known = set(default._defaults.by_loop)
    for number in range(3):
        asyncio.run(_stage_twice(number))
    assert set(default._defaults.by_loop) == known
    assert not default._defaults.starting
    assert staged_ids(service) == {
        **{f"thread-{n}": 1 for n in range(160)},
        **{f"loop-{n}-{turn}": 1 for n in range(3) for turn in range(2)},
    }


async def _stage_twice(number: int) -> None:
    await asyncio.gather(
        *(pipeline.stage("thing.happened", 1, id=f"loop-{number}-{turn}") for turn in range(2))
    )
    assert asyncio.get_running_loop() in default._defaults.by_loop


LOOPS = """
import asyncio, gc, os, threading, pipeline
async def once(n):
    await asyncio.gather(*(pipeline.stage("thing.happened", n, id=f"{n}-{i}") for i in range(2)))
def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count()
pipeline.stage_blocking("thing.happened", 0, id="blocking")
asyncio.run(once(0))
before = held()
for n in range(1, 100):
    asyncio.run(once(n))
after = held()
assert after == before, (before, after)
"""


@pytest.mark.kafka
def test_a_hundred_event_loops(service: dict[str, str]) -> None:
    """An event loop per test, as in many suites, leaks no socket or thread and warns of nothing (S9)."""
    run(LOOPS, service)
    assert staged_ids(service) == {"blocking": 1, **{f"{n}-{i}": 1 for n in range(100) for i in range(2)}}


FORK = """
import asyncio, gc, multiprocessing, os, sys, pipeline
def child(name):
    gc.collect()  # what the child drops of the parent's must not touch the parent's sockets
    pipeline.stage_blocking("thing.happened", 1, id=f"{name}-thread")
    asyncio.run(pipeline.stage("thing.happened", 1, id=f"{name}-task"))
def fork(name):
    pid = os.fork()
    if pid == 0:
        child(name)
        sys.exit(0)
    return pid
def check(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
def start(name):
    worker = multiprocessing.get_context("fork").Process(target=child, args=(name,))
    worker.start()
    return worker
def end(worker):
    worker.join()
    assert worker.exitcode == 0
async def inside():
    await pipeline.stage("thing.happened", 1, id="loop-before")
    worker = start("child-of-loop")
    await pipeline.stage("thing.happened", 1, id="loop-meanwhile")
    await asyncio.to_thread(end, worker)
    await pipeline.stage("thing.happened", 1, id="loop-after")
check(fork("early"))
pipeline.stage_blocking("thing.happened", 1, id="before")
pid = fork("late")
pipeline.stage_blocking("thing.happened", 1, id="meanwhile")
check(pid)
workers = [start(f"worker-{n}") for n in range(2)]
for worker in workers:
    end(worker)
pipeline.stage_blocking("thing.happened", 1, id="after")
asyncio.run(inside())
"""


@pytest.mark.kafka
def test_fork(service: dict[str, str]) -> None:
    """Forked before the first use, after it, and inside a loop: child and parent both stage, in full (S9)."""
    # Python 3.12 and later warn of any fork in a process with threads.
    run(FORK, service, "-W", "ignore:This process:DeprecationWarning")
    names = ["early", "late", "worker-0", "worker-1", "child-of-loop"]
    expected = [f"{name}-{way}" for name in names for way in ("thread", "task")]
    expected += ["before", "meanwhile", "after", "loop-before", "loop-meanwhile", "loop-after"]
    assert staged_ids(service) == dict.fromkeys(expected, 1)


ENDS = {
    "after a call": """
async def main():
    await pipeline.stage('thing.happened', 1, id='x')
    print(time.time())
asyncio.run(main())
""",
    "after a thread's call": """
pipeline.stage_blocking('thing.happened', 1, id='x')
print(time.time())
""",
    "after a refused first call": """
try:
    asyncio.run(pipeline.stage("thing.hapened", 1))
except pipeline.StagepostError:
    pipeline.stage_blocking("thing.happened", 1, id="x")
print(time.time())
""",
    "with a daemon thread in a call": """
import threading
def forever():
    try:
        while True:
            pipeline.stage_blocking("thing.happened", 1, id="x")
    except pipeline.StagepostError:  # closed under it
        pass
threading.Thread(target=forever, daemon=True).start()
pipeline.stage_blocking("thing.happened", 1, id="x")
print(time.time())
""",
    "with tasks nobody awaits": """
async def main():
    await pipeline.stage("thing.happened", 1, id="x")
    for _ in range(3):
        tasks.append(asyncio.create_task(pipeline.stage("thing.happened", 1, id="x")))
    await asyncio.sleep(0)
    print(time.time())
tasks = []
asyncio.run(main())
""",
    "by sys.exit in a loop": """
async def main():
    await pipeline.stage("thing.happened", 1, id="x")
    print(time.time())
    sys.exit(0)
asyncio.run(main())
""",
}


@pytest.mark.kafka
@pytest.mark.parametrize("end", ENDS)
def test_the_end_is_prompt_and_clean(service: dict[str, str], end: str) -> None:
    """However a program ends, it ends at once, leaves nothing open and warns of nothing (S9)."""
    done = run(f"import asyncio, sys, time, pipeline\n{ENDS[end]}", service)
    assert time.time() - float(done.stdout) < 3
    assert staged_ids(service)["x"] >= 1


def test_a_stager_of_ones_own() -> None:
    """`use_stager` puts a stager in place of the default for tasks and threads, and gives back the one before (S8)."""
    memory, other = MemoryStager(settings()), MemoryStager(settings())
    assert pipeline.use_stager(memory) is None
    try:
        pipeline.stage_blocking("thing.happened", 1)
        asyncio.run(pipeline.stage("thing.happened", 2))
        assert asyncio.run(pipeline.health()).state == "healthy"
        assert pipeline.use_stager(other) is memory
    finally:
        pipeline.use_stager(None)
    memory.assert_staged_count("thing.happened", 2)
    other.assert_nothing_staged()


def test_disabled(program_env: dict[str, str]) -> None:
    """ENABLED=false: everything is accepted, nothing is loaded for it and nothing needed (S8, E)."""
    program = """
import asyncio, sys, pipeline
assert pipeline.stage_blocking("anything", object(), id="x") == ("x", "noop", None, None, None, None)
assert asyncio.run(pipeline.stage("anything", 1)).via == "noop"
assert asyncio.run(pipeline.health()).state == "healthy"
assert "aiokafka" not in sys.modules
"""
    env = {name: value for name, value in program_env.items() if not name.startswith("STREAMING_")}
    run(program, {**env, "STREAMING_ENABLED": "false"})

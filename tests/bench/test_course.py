"""A course over real processes: what is started, counted, left out and ended."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from support.grpc_upstream import PREDICT, GrpcAnswer, GrpcUpstream, ServingClient
from support.waiting import until

from bench import payloads, processes, samples
from bench.course import Cores, Course
from bench.loads import Load
from bench.peers import Launch, Peer, Site
from bench.processes import Absent, Running
from bench.progress import Progress
from bench.samples import DIRECT

CORE = min(os.sched_getaffinity(0))
KIND = "streams"  # its upstream needs no nginx
FIGURES = "figures: requests=10 microseconds=1000000 failed=0 status=0 p50=5 p99=9"
BURN = "[None for _ in iter(int, 1)]"
Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program of Python's on a core; ended with the test."""
    with ExitStack() as stack:

        def one(*arguments: str) -> Running:
            log = tmp_path / f"{len(list(tmp_path.iterdir()))}.log"
            running = Running.start((sys.executable, *arguments), CORE, log)
            stack.callback(running.stop)
            return running

        yield one


def upstream(start: Start, pieces: int) -> int:
    """Start the upstream that streams, at a tick of 1 ms; returns its port."""
    (port,) = processes.free_ports(1)
    running = start("-m", "bench.sse_upstream", str(port), str(pieces), "1")
    running.wait(lambda: processes.listens(port), 30)
    return port


def streamed(port: int, folder: Path, pieces: int) -> samples.Sample:
    """Run the load of streams, 4 at a time, for half a second."""
    body = folder / "body"
    body.write_bytes(payloads.chat(250, stream=True))
    command = [sys.executable, "-m", "bench.sse_load", f"127.0.0.1:{port}", str(body), "key"]
    command += ["4", str(pieces), "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return samples.read(done.stdout)


def test_streams_are_counted_piece_by_piece(start: Start, tmp_path: Path) -> None:
    found = streamed(upstream(start, 5), tmp_path, 5)
    assert found.count > 20
    assert found.failed == 0
    assert found.p50 > 0


def test_a_stream_with_too_few_pieces_has_failed(start: Start, tmp_path: Path) -> None:
    found = streamed(upstream(start, 5), tmp_path, 6)
    assert found.failed > 4


def test_answers_that_are_no_streams_have_failed(start: Start, tmp_path: Path) -> None:
    (port,) = processes.free_ports(1)
    server = start("-m", "http.server", "--bind", "127.0.0.1", str(port))  # 501 to every POST
    server.wait(lambda: processes.listens(port), 30)
    found = streamed(port, tmp_path, 5)
    assert found.count == 0
    assert found.failed >= 4


def test_the_bare_grpc_proxy_forwards_messages_and_statuses(start: Start) -> None:
    server = GrpcUpstream()
    (port,) = processes.free_ports(1)
    proxy = start("-m", "bench.grpc_proxy", str(port), server.address)
    proxy.wait(lambda: processes.listens(port), 30)
    client = ServingClient(f"127.0.0.1:{port}", (("x-who", "me"),))
    try:
        import grpc

        server.answer(GrpcAnswer(b"yes"), GrpcAnswer(code=grpc.StatusCode.NOT_FOUND, details="no"))
        assert client.call(PREDICT, b"question") == b"yes"
        assert server.only().value("x-who") == "me"
        assert client.fails(PREDICT, b"question").code() is grpc.StatusCode.NOT_FOUND
    finally:
        client.close()
        server.stop()


def test_the_time_on_a_core_counts_children_and_threads(start: Start) -> None:
    assert processes.descendants(1, {2: 1, 3: 2, 4: 9, 9: 8}) == {1, 2, 3}
    burn = "import threading as t\ndef f():\n while True: pass\nt.Thread(target=f).start()"
    run = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    running = start("-c", run)
    root = running.process.pid
    until(lambda: len(processes.tree(root)) == 2, "the child")
    child = (processes.tree(root) - {root}).pop()
    until(lambda: len(os.listdir(f"/proc/{child}/task")) == 2, "the child's thread")
    own = processes.cpu_microseconds({child})
    until(lambda: processes.cpu_microseconds({child}) > own + 50_000, "time on the core")
    assert os.sched_getaffinity(child) == {CORE}
    assert processes.resident_megabytes({root, child}) > 5
    running.stop()
    until(lambda: not os.path.exists(f"/proc/{child}"), "the child's end")


def test_what_ends_at_its_start_says_so(start: Start) -> None:
    running = start("-c", "raise SystemExit('the port is taken')")
    with pytest.raises(Absent, match="ended at its start: the port is taken"):
        running.wait(lambda: False, 30)


def course(tmp_path: Path, load: Load, peers: list[Peer], lacking: dict[str, str]) -> Course:
    with (tmp_path / "progress").open("w") as out:
        made = Course(Cores(CORE, CORE), tmp_path / "logs", 2, 1.0, Progress(0, out=out))
        made.run([load], peers, lacking)
    return made


def load_of(code: str) -> Load:
    """Return a load that is a few words of Python."""
    return Load(
        name="made up",
        title="Made up",
        about="",
        kind=KIND,
        body=payloads.chat(250, stream=True),
        command=lambda port, file, seconds: (sys.executable, "-c", code),
        unit="piece",
        columns=("rate",),
        shown="rate",
        good=b"[DONE]",
    )


def relay(site: Site) -> Launch:
    """Return a peer that answers as the upstream does, being one."""
    return Launch((sys.executable, "-m", "bench.sse_upstream", str(site.port), "3", "1"))


def peer(name: str, launch: Callable[[Site], Launch]) -> Peer:
    return Peer(name, frozenset({KIND}), launch)


def test_a_course_measures_who_serves_and_says_why_of_who_does_not(tmp_path: Path) -> None:
    peers = [
        peer("works", relay),
        peer("no program", lambda site: Launch((str(site.folder / "nothing"),))),
        peer("crashes", lambda site: Launch((sys.executable, "-c", "raise SystemExit('no GPU')"))),
        peer("not installed", relay),
    ]
    load = load_of(f"print({FIGURES!r})")
    results = course(tmp_path, load, peers, {"not installed": "can't be installed here"}).results

    rounds = results.rounds[load.name]
    assert [one and one.count for one in rounds["works"]] == [10, 10]
    assert [one and one.cpu for one in rounds[DIRECT]] == [None, None]
    assert all(one and one.rss and one.cpu is not None for one in rounds["works"])
    assert "No such file" in results.missing(load, "no program")
    assert "no GPU" in results.missing(load, "crashes")
    assert results.missing(load, "not installed") == "can't be installed here"


def test_who_answers_wrongly_is_not_measured(tmp_path: Path) -> None:
    def page(site: Site) -> Launch:
        return Launch((sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(site.port)))

    load = load_of(f"print({FIGURES!r})")
    results = course(tmp_path, load, [peer("a page", page)], {}).results
    assert results.missing(load, "a page").startswith("answered 501")
    assert results.rounds[load.name]["a page"] == [None, None]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('wrk: no route')", "the load wrote no figures, but: wrk: no route"),
        (f"print({FIGURES.replace('=10', '=0')!r})", "answered nothing in 1 s of this load"),
    ],
)
def test_a_load_that_comes_to_nothing_is_a_reason(tmp_path: Path, code: str, why: str) -> None:
    load = load_of(code)
    results = course(tmp_path, load, [peer("works", relay)], {}).results
    assert results.missing(load, "works") == why


def test_who_still_works_after_its_load_is_started_afresh(tmp_path: Path) -> None:
    def busy_once(site: Site) -> Launch:
        """Burns its core after the first load; once started again, it is the plain relay."""
        mark = tmp_path / "started"
        command = relay(site).command
        if not mark.exists():
            mark.touch()
            burn = f"import os, sys, threading; threading.Thread(target=lambda: {BURN}).start()"
            main = "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__')"
            command = (sys.executable, "-c", f"{burn}; {main}", *command[2:])
        return Launch(command)

    load = load_of(f"print({FIGURES!r})")
    results = course(tmp_path, load, [peer("works", busy_once)], {}).results
    assert not results.absent
    assert (tmp_path / "progress").read_text().count("started afresh") == 1


def test_without_nginx_its_loads_say_so_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    load = load_of(f"print({FIGURES!r})")
    results = course(tmp_path, load, [peer("works", relay)], {}).results
    assert not results.absent

    chats = replace(load, name="chats", kind="chat")
    chatting = replace(peer("works", relay), kinds=frozenset({"chat"}))
    results = course(tmp_path, chats, [chatting], {}).results
    for name in (DIRECT, "works"):
        assert "no upstream: nginx can't be started" in results.missing(chats, name)

"""A local cluster's processes, with a stub in place of the node: real processes, no sockets."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geostore.api.local_cluster import LocalCluster, StopReport
from geostore.api.local_process import LocalProcess, _birth_by_ps, birth_of, start_detached
from geostore.config import parse_target
from geostore.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    NotFoundError,
    StoreFormatError,
    UnavailableError,
)

STUB = '''
"""Says that it serves and waits for SIGTERM. A file NAME.does beside the data says otherwise."""
import json, os, pathlib, signal, sys

options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
data = pathlib.Path(options["--data"])
does = data.with_suffix(".does")
does = does.read_text() if does.exists() else ""
with data.with_suffix(".arguments").open("a") as file:
    file.write(json.dumps([sys.argv[1:], os.getsid(0) == os.getpid()]) + "\\n")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("log of", options["--name"], file=sys.stderr, flush=True)
if does == "crash":
    sys.exit("cannot listen: port in use")
if does == "strange":
    print("hello", flush=True)
data.mkdir(exist_ok=True)
if does not in ("silent", "strange"):
    print("serving", options["--listen"], flush=True)
if does == "stubborn":
    while True:
        signal.sigwait([signal.SIGTERM])
signal.sigwait([signal.SIGTERM])
'''

Make = Callable[..., LocalCluster]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes the cluster of `tmp_path / "c"` anew, as another process would; ends it at last."""
    stub = tmp_path / "stub.py"
    stub.write_text(STUB)
    directory = tmp_path / "c"

    def make(**keywords: object) -> LocalCluster:
        return LocalCluster(directory, command=[sys.executable, "-S", str(stub)], **keywords)

    yield make
    state = directory / "cluster.json"
    if state.exists() and state.read_bytes().startswith(b'{\n "format": 1'):
        make(stop_timeout_s=0.0).down()


def node_does(cluster: LocalCluster, name: str, what: str) -> None:
    cluster.directory.mkdir(exist_ok=True)
    (cluster.directory / f"{name}.does").write_text(what)


def pids(cluster: LocalCluster) -> list[int | None]:
    return [node.pid for node in cluster.status()]


def runs_of(cluster: LocalCluster, name: str) -> list[list[str]]:
    """The arguments of each run of a node."""
    text = (cluster.directory / f"{name}.arguments").read_text()
    runs = [json.loads(line) for line in text.splitlines()]
    assert all(is_leader for _, is_leader in runs), "each node leads a session of its own"
    return [arguments for arguments, _ in runs]


def kill(cluster: LocalCluster, name: str) -> None:
    """Ends a node hard, as a crash would, and waits until it is gone."""
    pid = next(node.pid for node in cluster.status() if node.name == name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# ---------------------------------------------------------------- up


def test_up_starts_every_node_and_down_leaves_no_process(make: Make) -> None:
    told: list[str] = []
    cluster = make()
    target = cluster.up(nodes=3, replicas=2, progress=told.append)
    hosts = parse_target(target).hosts
    assert len({host.port for host in hosts}) == 3
    assert all(host.is_loopback for host in hosts)
    nodes = make().status()
    assert [(node.name, node.state) for node in nodes] == [("n1", "up"), ("n2", "up"), ("n3", "up")]
    assert [node.address for node in nodes] == [str(host) for host in hosts]
    assert all(node.uptime_s is not None and node.uptime_s >= 0 for node in nodes)
    assert nodes[0].directory == str(cluster.directory / "n1")
    assert told[0] == f"n1 serves at {hosts[0]}"
    assert sorted(told) == [f"n{i} serves at {host}" for i, host in enumerate(hosts, start=1)]
    first, second = runs_of(cluster, "n1")[0], runs_of(cluster, "n2")[0]
    assert first == [
        "--data", str(cluster.directory / "n1"), "--listen", str(hosts[0]), "--name", "n1",
        "--replicas", "2",
    ]  # fmt: skip
    assert second[-2:] == ["--join", str(hosts[0])]
    assert (cluster.directory / "n2.log").read_text() == "log of n2\n"
    before = [LocalProcess(pid, birth_of(pid) or "") for pid in pids(cluster) if pid]
    assert make().down() == StopReport(stopped=("n1", "n2", "n3"))
    assert not any(process.is_alive() for process in before)
    assert [(node.state, node.pid, node.uptime_s) for node in cluster.status()] == [
        ("down", None, None)
    ] * 3
    assert make().down() == StopReport()


def test_up_again_starts_nothing(make: Make) -> None:
    target = make().up(nodes=2)
    before = pids(make())
    told: list[str] = []
    assert make().up(progress=told.append) == target
    assert told == [f"the cluster in {make().directory} is up already"]
    assert pids(make()) == before


def test_up_starts_the_dead_ones_at_their_ports(make: Make) -> None:
    cluster = make()
    target = cluster.up(nodes=3)
    before = pids(cluster)
    kill(cluster, "n2")
    assert [node.state for node in cluster.status()] == ["up", "down", "up"]
    assert make().up(nodes=3) == target
    after = pids(cluster)
    assert [after[0], after[2]] == [before[0], before[2]]
    assert after[1] not in (None, before[1])
    assert runs_of(cluster, "n2")[0] == runs_of(cluster, "n2")[1]


def test_a_cluster_that_was_down_comes_back_as_it_was_or_at_other_ports(make: Make) -> None:
    cluster = make()
    target = cluster.up(nodes=2, replicas=2)
    with pytest.raises(ConflictError, match="take it down before it can go to port 1024"):
        cluster.up(port=1024)
    cluster.down()
    assert cluster.up() == target
    assert runs_of(cluster, "n1")[1] == runs_of(cluster, "n1")[0]
    cluster.down()
    assert cluster.up(port=2000) == "geostore://127.0.0.1:2000,127.0.0.1:2001"


@pytest.mark.parametrize("asked", [{"nodes": 3}, {"nodes": 2, "replicas": 2}])
def test_other_numbers_than_before_are_refused(make: Make, asked: dict[str, int]) -> None:
    make().up(nodes=2)
    with pytest.raises(ConflictError, match="has 2 nodes and 1 replicas, not"):
        make().up(**asked)
    make().down()
    with pytest.raises(ConflictError, match="use another directory"):
        make().up(**asked)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"nodes": 0}, "nodes 0: expected a whole number of 1..64"),
        ({"nodes": 65}, "1..64"),
        ({"replicas": 0}, "replicas 0"),
        ({"port": 0}, "port 0"),
        ({"nodes": 3, "port": 65534}, r"expected 1\.\.65533"),
    ],
)
def test_impossible_numbers(make: Make, asked: dict[str, int], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        make().up(**asked)
    with pytest.raises(NotFoundError, match="no cluster in"):
        make().status()


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("crash", "ended before it served.*n2.log: its log ends:\nlog of n2\ncannot listen"),
        ("strange", "said 'hello', expected 'serving HOST:PORT'"),
        ("silent", "did not serve within 0.5 s.*log of n2"),
    ],
)
def test_a_node_that_fails_takes_the_others_down_and_shows_its_log(
    make: Make, does: str, says: str
) -> None:
    cluster = make(start_timeout_s=0.5 if does == "silent" else 60.0)
    node_does(cluster, "n2", does)
    running: list[int] = []

    def n1_serves(_text: str) -> None:
        running.extend(pid for pid in pids(cluster) if pid)

    with pytest.raises(UnavailableError, match=rf"(?s)node n2 at 127\.0\.0\.1:\d+ {says}"):
        cluster.up(nodes=2, progress=n1_serves)
    assert running
    assert pids(cluster) == [None, None]
    assert all(birth_of(pid) is None for pid in running)
    node_does(cluster, "n2", "")
    cluster.up(nodes=2)
    assert None not in pids(cluster)


def test_a_cluster_never_founded_is_forgotten(make: Make) -> None:
    cluster = make()
    node_does(cluster, "n1", "crash")
    with pytest.raises(UnavailableError, match="node n1"):
        cluster.up(nodes=3)
    with pytest.raises(NotFoundError):
        cluster.status()
    assert not (cluster.directory / "n2.arguments").exists()
    node_does(cluster, "n1", "")
    cluster.up(nodes=2)


def test_nodes_that_ran_before_a_failed_up_go_on(make: Make) -> None:
    cluster = make()
    cluster.up(nodes=3)
    before = pids(cluster)
    kill(cluster, "n2")
    node_does(cluster, "n2", "crash")
    with pytest.raises(UnavailableError, match="node n2"):
        cluster.up()
    assert pids(cluster) == [before[0], None, before[2]]


def test_ctrl_c_leaves_no_process(make: Make) -> None:
    calls = 0
    running: list[int | None] = []

    def interrupt(_seconds: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            running.extend(pids(cluster))
            raise KeyboardInterrupt

    cluster = make(wait=interrupt)
    node_does(cluster, "n1", "silent")
    with pytest.raises(KeyboardInterrupt):
        cluster.up(nodes=1)
    assert isinstance(running[0], int)
    assert birth_of(running[0]) is None


def test_a_second_ctrl_c_while_stopping_kills(make: Make) -> None:
    running: list[int | None] = []
    calls = 0

    def wait(_seconds: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt

    def interrupt(_text: str) -> None:
        running.extend(pids(cluster))
        raise KeyboardInterrupt

    cluster = make()
    node_does(cluster, "n1", "stubborn")
    cluster._wait = lambda seconds: wait(seconds) if running else None
    with pytest.raises(KeyboardInterrupt):
        cluster.up(nodes=1, progress=interrupt)
    assert isinstance(running[0], int)
    assert birth_of(running[0]) is None


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "c", command=[str(tmp_path / "absent")])
    with pytest.raises(FileNotFoundError):
        cluster.up(nodes=1)
    assert cluster.down() == StopReport()


# ---------------------------------------------------------------- down


def test_down_kills_what_ignores_sigterm_and_says_which(make: Make) -> None:
    cluster = make()
    node_does(cluster, "n2", "stubborn")
    cluster.up(nodes=3)
    running = [pid for pid in pids(cluster) if pid]
    told: list[str] = []
    report = make(stop_timeout_s=0.5).down(told.append)
    assert report == StopReport(stopped=("n1", "n3"), killed=("n2",))
    assert told == ["n2 did not end within 0.5 s and is killed"]
    assert all(birth_of(pid) is None for pid in running)


def test_down_where_there_is_nothing_makes_nothing(make: Make) -> None:
    assert make().down() == StopReport()
    assert not make().directory.exists()


def test_a_pid_that_now_belongs_to_another_is_never_signalled(make: Make) -> None:
    cluster = make()
    cluster.up(nodes=1)
    (pid,) = pids(cluster)
    file = cluster.directory / "cluster.json"
    state = json.loads(file.read_text())
    real = json.dumps(state, indent=1)
    state["nodes"][0]["birth"] = "another time"
    file.write_text(json.dumps(state, indent=1))
    assert cluster.status()[0].state == "down"
    assert cluster.down() == StopReport()
    assert pid is not None
    assert birth_of(pid) is not None, "the stranger lives"
    file.write_text(real)
    assert cluster.down() == StopReport(stopped=("n1",))


# ---------------------------------------------------------------- files


def test_two_at_once_are_refused(make: Make) -> None:
    cluster = make()
    cluster.up(nodes=1)
    with (cluster.directory / "cluster.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for call in (make().up, make().down):
            with pytest.raises(ConflictError, match="being started or stopped by another"):
                call()
        assert make().status()[0].state == "up"
    # No node has inherited the lock.
    assert make().down() == StopReport(stopped=("n1",))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", CorruptDataError),
        ("[]", CorruptDataError),
        ('{"format": 1, "replicas": 1, "nodes": []}', CorruptDataError),
        ('{"format": 1, "replicas": 1, "nodes": [{"name": "../x"}]}', CorruptDataError),
        ('{"format": 2}', StoreFormatError),
    ],
)
def test_a_state_that_is_none_is_named(make: Make, text: str, error: type[Exception]) -> None:
    cluster = make()
    cluster.directory.mkdir()
    (cluster.directory / "cluster.json").write_text(text)
    for call in (cluster.up, cluster.status, cluster.down):
        with pytest.raises(error, match="cluster.json"):
            call()


# ---------------------------------------------------------------- processes


def test_a_process_is_its_pid_and_its_birth(tmp_path: Path) -> None:
    seen: list[LocalProcess] = []
    process = start_detached(
        [sys.executable, "-S", "-c", "import sys; print('out'); sys.stdin.read(); print('end')"],
        stdout=tmp_path / "out",
        stderr=tmp_path / "err",
        started=seen.append,
    )
    assert seen == [process]
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its stdin was empty: it ended
    assert birth_of(process.pid) == process.birth, "known until it is waited for"
    assert not process.is_alive()
    assert birth_of(process.pid) is None
    assert not process.signal(signal.SIGKILL)
    assert (tmp_path / "out").read_text() == "out\nend\n"


def test_ps_tells_births_where_there_is_no_proc() -> None:
    if not Path("/bin/ps").exists():
        pytest.skip("no /bin/ps here")
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        birth = _birth_by_ps(child.pid)
        assert birth == _birth_by_ps(child.pid)
        assert len(str(birth).split()) == 5
        child.kill()
    assert _birth_by_ps(child.pid) is None


def test_up_works_outside_the_main_thread(make: Make) -> None:
    targets: list[str] = []
    thread = threading.Thread(target=lambda: targets.append(make().up(nodes=1)))
    thread.start()
    thread.join()
    assert len(targets) == 1

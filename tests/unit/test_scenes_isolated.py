"""Native libraries in child processes: answers, and every way in which a child can fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from geostore.errors import InternalError, UnreadableSourceError
from geostore.scenes.archive import local_path
from geostore.scenes.isolated import MEMORY_BYTES_MAX, IsolatedFile
from geostore.scenes.isolated_starter import starter

CHILD = "tests.misbehaving_children"
CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "scene.hdf"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., IsolatedFile]]:
    files: list[IsolatedFile] = []

    def make(module: str = CHILD, **options: Any) -> IsolatedFile:
        options = {"library": "HDF4", "name": "scene.hdf", "path": lambda: str(path), **options}
        files.append(IsolatedFile(module, **options))
        return files[-1]

    yield make
    children = [pid for file in files for pid in file.children]
    for file in files:
        if file._users:
            file.close()
    assert not [pid for pid in children if is_running(pid)]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_and_raw_bytes(opened: Callable[..., IsolatedFile]) -> None:
    file = opened()
    for _ in range(3):
        answer = file.ask({"do": "read"}, payload_bytes_max=len(CONTENT))
        assert answer.value["size"] == len(CONTENT)
        assert answer.payload == CONTENT
    assert file.children == (answer.value["pid"],), "one thread needs one child"


def test_no_child_before_the_first_request(opened: Callable[..., IsolatedFile]) -> None:
    assert opened().children == ()


def test_an_unlinked_temporary_file(opened: Callable[..., IsolatedFile]) -> None:
    with tempfile.TemporaryFile() as unpacked:
        unpacked.write(CONTENT)
        unpacked.flush()
        file = opened(path=lambda: local_path(unpacked))
        assert file.ask({"do": "read"}, payload_bytes_max=1 << 20).payload == CONTENT


def test_a_file_that_is_moved_while_it_is_open(
    opened: Callable[..., IsolatedFile], path: Path
) -> None:
    file = opened()
    file.ask({"do": "pid"})
    path.unlink()
    assert file.ask({"do": "read"}, payload_bytes_max=1 << 20).payload == CONTENT


def test_a_path_that_is_not_there(opened: Callable[..., IsolatedFile]) -> None:
    file = opened(path=lambda: "/no/such/file")
    with pytest.raises(UnreadableSourceError, match=r"scene\.hdf: No such file"):
        file.ask({"do": "read"})


def test_the_childs_own_error(opened: Callable[..., IsolatedFile]) -> None:
    file = opened()
    with pytest.raises(UnreadableSourceError, match=r"^scene\.hdf: no grid in it$"):
        file.ask({"do": "raise"})
    assert file.children == (), "after an error the library's state is not to be trusted"
    assert file.ask({"do": "pid"}).value["pid"] > 0


def test_a_library_that_is_not_there(opened: Callable[..., IsolatedFile]) -> None:
    file = opened("tests.child_without_library")
    with pytest.raises(UnreadableSourceError, match=r"cannot load the library.*libdf\.so"):
        file.ask({"do": "read"})


def test_a_module_that_is_not_there(opened: Callable[..., IsolatedFile]) -> None:
    file = opened("tests.no_such_child")
    with pytest.raises(UnreadableSourceError, match=r"that loads it ended \(exit status 1\)"):
        file.ask({"do": "read"})


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS"])
def test_a_crash_names_the_file_and_the_signal(
    opened: Callable[..., IsolatedFile], name: str
) -> None:
    file = opened()
    with pytest.raises(
        UnreadableSourceError, match=rf"^scene\.hdf: the HDF4 library crashed on it \({name}\)$"
    ):
        file.ask({"do": "die", "signal": name})
    assert file.ask({"do": "read"}, payload_bytes_max=1 << 20).payload == CONTENT


def test_an_exit(opened: Callable[..., IsolatedFile]) -> None:
    with pytest.raises(UnreadableSourceError, match=r"crashed on it \(exit status 7\)"):
        opened().ask({"do": "exit"})


def test_silence(opened: Callable[..., IsolatedFile]) -> None:
    file = opened()
    file.ask({"do": "pid"})
    file._request_s_max = 0.5
    (child,) = file.children
    with pytest.raises(UnreadableSourceError, match=r"gave no answer within 0.5 s"):
        file.ask({"do": "hang"})
    assert not is_running(child)


@pytest.mark.parametrize("what", ["garbage", "bad json", "list"])
def test_nonsense(opened: Callable[..., IsolatedFile], what: str) -> None:
    with pytest.raises(UnreadableSourceError, match=r"gave an answer that is none"):
        opened().ask({"do": what})


def test_half_an_answer(opened: Callable[..., IsolatedFile]) -> None:
    with pytest.raises(UnreadableSourceError, match=r"crashed on it"):
        opened().ask({"do": "half"}, payload_bytes_max=100)


def test_more_than_was_asked_for(opened: Callable[..., IsolatedFile]) -> None:
    file = opened()
    with pytest.raises(UnreadableSourceError, match=r"more than was asked for"):
        file.ask({"do": "flood", "size": 1001}, payload_bytes_max=1000)
    assert len(file.ask({"do": "flood", "size": 1000}, payload_bytes_max=1000).payload) == 1000


def test_an_endless_answer(opened: Callable[..., IsolatedFile]) -> None:
    with pytest.raises(UnreadableSourceError, match=r"gave an answer that is none"):
        opened().ask({"do": "endless"}, payload_bytes_max=1000)


@pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded on Linux only")
def test_memory_is_bounded(opened: Callable[..., IsolatedFile]) -> None:
    file = opened(memory_bytes_max=64 << 20)
    assert file.ask({"do": "takes memory", "size": 8 << 20}).value["bytes"] == 8 << 20
    with pytest.raises(UnreadableSourceError, match=r"more memory than a file may have"):
        file.ask({"do": "takes memory", "size": 256 << 20})


def test_children_write_no_files_and_import_nothing_from_here(
    opened: Callable[..., IsolatedFile], tmp_path: Path
) -> None:
    file = opened()
    assert file.ask({"do": "look"}).value["cwd on path"] is False
    with pytest.raises(UnreadableSourceError, match=r"too large"):
        file.ask({"do": "writes a file", "path": str(tmp_path / "written")})


def test_threads_share_a_bounded_number_of_children(opened: Callable[..., IsolatedFile]) -> None:
    file = opened(children_max=2)

    def read(_: int) -> int:
        answer = file.ask({"do": "read"}, payload_bytes_max=1 << 20)
        assert answer.payload == CONTENT
        return int(answer.value["pid"])

    with ThreadPoolExecutor(6) as threads:
        pids = set(threads.map(read, range(60)))
    assert set(file.children) == pids
    assert 1 <= len(pids) <= 2


def test_at_rest_there_is_no_child(opened: Callable[..., IsolatedFile], path: Path) -> None:
    asked: list[str] = []

    def where() -> str:
        asked.append(str(path))
        return str(path)

    file = opened(path=where)
    first = file.ask({"do": "pid"}).value["pid"]
    file.rest()
    assert file.children == ()
    assert not is_running(first)
    assert file.ask({"do": "read"}, payload_bytes_max=1 << 20).payload == CONTENT
    assert len(asked) == 2
    file.rest()
    file.rest()


def test_close_ends_all_children_and_tells_once(opened: Callable[..., IsolatedFile]) -> None:
    closed: list[int] = []
    file = opened(on_close=lambda: closed.append(1))
    file.ask({"do": "pid"})
    (child,) = file.children
    file.retain()
    file.close()
    assert is_running(child)
    file.close()
    assert not is_running(child)
    assert closed == [1]
    with pytest.raises(InternalError, match="read after close"):
        file.ask({"do": "pid"})


def test_closing_while_another_thread_reads(opened: Callable[..., IsolatedFile]) -> None:
    file = opened(children_max=1)
    file.ask({"do": "pid"})
    file._request_s_max = 0.5
    (child,) = file.children
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        with pytest.raises(UnreadableSourceError, match="no answer"):
            file.ask({"do": "hang"})

    thread = threading.Thread(target=ask)
    thread.start()
    asked.wait()
    while not file._busy and thread.is_alive():
        pass
    file.close()
    thread.join()
    assert not is_running(child)


def test_the_process_that_forks_may_be_killed(opened: Callable[..., IsolatedFile]) -> None:
    first = opened()
    child = first.ask({"do": "pid"}).value["pid"]
    ours = starter(CHILD, MEMORY_BYTES_MAX)
    os.kill(ours._pid, signal.SIGKILL)
    assert first.ask({"do": "pid"}).value["pid"] == child, "its children live on"
    second = opened()
    assert second.ask({"do": "read"}, payload_bytes_max=1 << 20).payload == CONTENT
    with pytest.raises(UnreadableSourceError, match="crashed on it$"):
        first.ask({"do": "die", "signal": "SIGSEGV"})


def test_children_of_one_module_come_from_one_process(
    opened: Callable[..., IsolatedFile],
) -> None:
    before = starter(CHILD, MEMORY_BYTES_MAX)
    first, second = opened(), opened()
    pids = {file.ask({"do": "pid"}).value["pid"] for file in (first, second)}
    process = before._pid
    assert len(pids) == 2
    assert starter(CHILD, MEMORY_BYTES_MAX) is before
    opened().ask({"do": "pid"})
    assert before._pid == process


def test_a_forked_process_has_children_of_its_own(opened: Callable[..., IsolatedFile]) -> None:
    file = opened()
    ours = file.ask({"do": "pid"}).value["pid"]
    result, told = os.pipe()
    pid = os.fork()
    if pid == 0:  # nothing of pytest may run on here
        status = 1
        try:
            theirs = file.ask({"do": "pid"}).value["pid"]
            file.close()
            os.write(told, str(theirs).encode())
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    os.close(told)
    theirs = int(os.read(result, 100))
    os.close(result)
    assert status == 0
    assert theirs != ours
    assert file.ask({"do": "pid"}).value["pid"] == ours


def test_children_end_when_their_parent_is_killed(path: Path) -> None:
    code = (
        "from geostore.scenes.isolated import IsolatedFile\n"
        f"file = IsolatedFile({CHILD!r}, library='HDF4', name='x', path=lambda: {str(path)!r})\n"
        "print(file.ask({'do': 'pid'}).value['pid'], flush=True)\n"
        "input()\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        descriptor = os.pidfd_open(child) if sys.platform == "linux" else None
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    if descriptor is None:
        pytest.skip("no pidfd here to wait for another's child")
    import select

    assert select.select([descriptor], [], [], 30.0)[0], "it lives on without its parent"
    os.close(descriptor)

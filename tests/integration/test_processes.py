"""One writer and any number of reader processes of one embedded store."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import runpy
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geostore.backends import EmbeddedBackend, open_embedded
from geostore.errors import NotFoundError, ReadOnlyError, StoreLockedError
from geostore.query import Query

SCRIPT = Path(__file__).parents[1] / "small_store.py"
small = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
A = small.make_definition("a")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with open_embedded(tmp_path / "store") as backend:
        backend.create_dataset(A)
        small.put_scene(backend, A, "s1", "v1", small.CELLS[:3])
    return tmp_path / "store"


def count_in_reader(backend: EmbeddedBackend) -> tuple[int, int, int]:
    """Runs in a worker process: its id, tiles seen, and bytes of one block read."""
    tile = small.make_tile(A, "s1", "v1", small.CELLS[0])
    (block,) = backend.read_blocks(tile.meta.key, [0])
    assert block is not None
    return os.getpid(), backend.count(Query()), len(block)


def run_script(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    prelude = (
        "import sys, runpy; from types import SimpleNamespace\n"
        "small = SimpleNamespace(**runpy.run_path(sys.argv[1]))\n"
        "from geostore.backends import open_embedded; from geostore.query import Query\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code, SCRIPT, *map(str, arguments)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_reader_process_follows_the_writer(store: Path) -> None:
    code = (
        "with open_embedded(sys.argv[2], mode='r') as backend:\n"
        "    for line in sys.stdin:\n"
        "        print(backend.count(Query()), flush=True)\n"
    )
    prelude = "import sys\nfrom geostore.backends import open_embedded\n"
    prelude += "from geostore.query import Query\n"
    with (
        open_embedded(store, lock_now=True) as writer,
        subprocess.Popen(
            [sys.executable, "-c", prelude + code, SCRIPT, store],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as reader,
    ):  # fmt: skip

        def ask() -> int:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
            return int(reader.stdout.readline())

        assert ask() == 3
        writer.begin_scene(A, "s2", "v1", small.CELLS)
        writer.put_tiles([small.make_tile(A, "s2", "v1", cell) for cell in small.CELLS[:2]])
        assert ask() == 3, "what is staged is seen by nobody"
        writer.commit_scene(A.id, "s2", "v1", small.CELLS[:2], bytes_total=1)
        assert ask() == 5, "what is committed is seen at once"
        small.put_scene(writer, A, "s1", "v2", small.CELLS[:1], replace=True)
        assert ask() == 3
        assert reader.stdin is not None
        reader.stdin.close()
    assert reader.returncode == 0


def test_a_second_writer_is_told_who_writes(store: Path) -> None:
    with open_embedded(store, lock_now=True) as writer:
        refused = run_script("open_embedded(sys.argv[2], lock_now=True)", store)
        assert refused.returncode == 1
        assert f"StoreLockedError: store {store} is being written by process" in refused.stderr
        assert str(os.getpid()) in refused.stderr
        with open_embedded(store) as second:  # opening is no writing
            assert second.count(Query()) == 3
            with pytest.raises(StoreLockedError, match=r"this process .* opened the store twice"):
                second.delete_dataset("a")
        assert writer.count(Query()) == 3
    with open_embedded(store, lock_now=True):  # released on close
        pass


def test_the_lock_is_taken_by_the_first_write_only(store: Path) -> None:
    with open_embedded(store) as first, open_embedded(store) as second:
        assert not first.status().is_writer
        first.begin_scene(A, "s2", "v1", small.CELLS)
        assert first.status().is_writer
        with pytest.raises(StoreLockedError):
            second.begin_scene(A, "s3", "v1", small.CELLS)
        first.close()
        second.begin_scene(A, "s3", "v1", small.CELLS)
        assert second.scene_record(A.id, "s2") is None, "settled by the next writer"


def test_the_lock_ends_with_its_process(store: Path) -> None:
    done = run_script("import os; open_embedded(sys.argv[2], lock_now=True); os._exit(3)", store)
    assert done.returncode == 3
    with open_embedded(store, lock_now=True) as backend:
        assert backend.verify().is_clean


def test_a_pickled_backend_opens_to_read(store: Path) -> None:
    with open_embedded(store, lock_now=True) as backend:
        with pickle.loads(pickle.dumps(backend)) as copy:
            assert copy.count(Query()) == 3
            with pytest.raises(ReadOnlyError, match="was opened to read"):
                copy.create_dataset(small.make_definition("b"))
        assert backend.status().is_writer, "the copy's end leaves the original alone"


def test_a_spawned_worker_reads_beside_the_writer(store: Path) -> None:
    code = (
        "import pickle\n"
        "backend = pickle.loads(bytes.fromhex(sys.argv[2]))\n"
        "key = small.make_tile(small.A, 's1', 'v1', small.CELLS[0]).meta.key\n"
        "print(backend.count(Query()), len(backend.read_blocks(key, [0])[0]) > 0)\n"
    )
    with open_embedded(store, lock_now=True) as backend:
        done = run_script(code, pickle.dumps(backend).hex())
    assert (done.returncode, done.stdout) == (0, "3 True\n"), done.stderr


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_read_with_the_handle_they_inherit(store: Path) -> None:
    with open_embedded(store, lock_now=True) as backend:
        assert backend.count(Query()) == 3
        backend.read_blocks(small.make_tile(A, "s1", "v1", small.CELLS[1]).meta.key, [0])
        context = multiprocessing.get_context("fork")
        results: Any = context.SimpleQueue()
        workers = [
            context.Process(target=lambda: results.put(count_in_reader(backend))) for _ in range(3)
        ]
        for worker in workers:
            worker.start()
        found = [results.get() for _ in workers]
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        assert len({pid for pid, *_ in found}) == 3
        assert {tiles for _, tiles, _ in found} == {3}
        # The children's ends have neither freed nor kept the lock, nor hurt the parent.
        assert backend.status().is_writer
        with open_embedded(store) as other, pytest.raises(StoreLockedError):
            other.create_dataset(small.make_definition("b"))
        small.put_scene(backend, A, "s2", "v1", small.CELLS[:1])
        assert backend.count(Query()) == 4


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_that_outlives_its_writer_does_not_hold_the_lock(store: Path) -> None:
    backend = open_embedded(store, lock_now=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent lets go
        os._exit(0)
    os.close(reading)
    backend.close()
    with open_embedded(store, lock_now=True) as second:
        assert second.status().is_writer
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_cannot_write(store: Path) -> None:
    with open_embedded(store, lock_now=True) as backend:
        child = os.fork()
        if child == 0:
            try:
                backend.create_dataset(small.make_definition("b"))
            except ReadOnlyError:
                os._exit(0)
            except BaseException:  # noqa: BLE001  # any other end is a failure
                os._exit(2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [d.name for d in backend.datasets()] == ["a"]


def test_readers_never_see_half_a_scene_while_it_is_replaced(store: Path) -> None:
    versions = {"v1": 3, "v2": 2, "v3": 5, "v4": 1}
    wrong: list[object] = []
    done = threading.Event()

    def watch() -> None:
        with open_embedded(store, mode="r") as reader:
            while not done.is_set():
                shown = small.seen(reader).get("a/s1", {})
                if len(shown) != 1 or any(versions[v] != len(c) for v, c in shown.items()):
                    wrong.append(shown)
                for version, cells in shown.items():
                    for cell in cells:
                        key = small.make_tile(A, "s1", version, cell).meta.key
                        try:
                            reader.read_blocks(key, [0, 1])
                        except NotFoundError as error:
                            if "query" not in str(error) and "not published" not in str(error):
                                wrong.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with open_embedded(store) as writer:
        for _ in range(3):
            for version, cells in versions.items():
                small.put_scene(
                    writer, A, "s1", version, small.CELLS[:cells], replace=True, batch=1
                )
    done.set()
    watcher.join()
    assert wrong == []


def test_workers_of_a_spawning_pool_get_the_backend_as_an_argument(store: Path) -> None:
    # What a loader does: the handle travels with each task.
    with (
        open_embedded(store, lock_now=True) as backend,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        assert pool.submit(EmbeddedBackend.count, backend, Query()).result(timeout=60) == 3

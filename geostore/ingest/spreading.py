"""An ingest spread over a Dask cluster: each source a task, on any worker that sees it.

Workers write to the store by themselves; nothing but paths and results passes through the
scheduler. A task that is run twice, since its worker died, finds the scene as it was left:
attempts are given up or shared, and what is stored is `unchanged`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any

from geostore.errors import InvalidInputError, UnavailableError
from geostore.scenes import FoundSource
from geostore.types import IngestProgress, SceneResult

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Task", "check_executor", "run_spread"]

CONNECT_SECONDS = 30
AHEAD_MAX = 10_000
"""Tasks that the scheduler holds at once."""

Task = Callable[[FoundSource], list[SceneResult]]
"""Ingests one source, on a worker."""


def check_executor(text: str) -> str | None:
    """The address of a scheduler, "" for a local Dask cluster, None for threads.

    Raises:
        InvalidInputError: none of these.
    """
    if text == "threads":
        return None
    kind, separator, address = text.partition("://")
    if kind != "dask" or (separator and not _is_address(address)):
        raise InvalidInputError(
            f"executor {text!r}: expected threads, dask (a cluster on this machine) or"
            " dask://HOST:PORT (a scheduler's address)"
        )
    return f"tcp://{address}" if separator else ""


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536


def _connect(stack: ExitStack, address: str, workers: int | None) -> Client:
    distributed: Any
    try:
        distributed = import_module("distributed")
    except ImportError as error:
        raise InvalidInputError(
            "executor dask: needs the package distributed: pip install 'geostore[dask]'"
        ) from error
    if not address:
        local = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        )
        address = stack.enter_context(local).scheduler_address
    try:
        client: Client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS))
    except (OSError, TimeoutError) as error:
        raise UnavailableError(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS} s: {error}"
        ) from error
    return client


def run_spread(
    sources: Sequence[FoundSource],
    task: Task,
    *,
    address: str,
    workers: int | None,
    progress: Callable[[IngestProgress], None] | None,
) -> Iterator[SceneResult]:
    """Yields every source's results, in the sources' order.

    Args:
        task: picklable; run on the workers.
        address: of a scheduler; "" starts a cluster on this machine, and ends it.
        workers: of that cluster.

    Raises:
        UnavailableError: no scheduler answers.
        Exception: what a task raised that is no scene's own fault.
    """
    with ExitStack() as stack:
        client = _connect(stack, address, workers)
        tiles = stored_bytes = scenes = 0
        for start in range(0, len(sources), AHEAD_MAX):
            part = sources[start : start + AHEAD_MAX]
            futures = [client.submit(task, one, pure=False) for one in part]
            stack.callback(client.cancel, futures)
            for number, (source, future) in enumerate(zip(part, futures, strict=True), start):
                for result in future.result():
                    scenes += 1
                    tiles += result.tiles
                    stored_bytes += result.bytes
                    if progress is not None:
                        progress(
                            IngestProgress(
                                path=str(source.path),
                                scene=result.scene or "",
                                dataset=result.dataset or "",
                                cells_done=result.tiles,
                                cells_total=result.tiles,
                                tiles=result.tiles,
                                bytes=result.bytes,
                                scenes_done=scenes,
                                sources_done=number,
                                sources_total=len(sources),
                                stored_tiles=tiles,
                                stored_bytes=stored_bytes,
                            )
                        )
                    yield result

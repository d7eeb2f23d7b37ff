"""Scenes written to a cluster: attempts at their homes, tiles at their first replicas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from geostore.backends.cluster_attempts import Attempt, Attempts
from geostore.backends.cluster_nodes import ClusterNodes, home_of
from geostore.errors import ConflictError, UnavailableError
from geostore.node.disk import StepHook, no_step
from geostore.ring import slot_of
from geostore.rpc.streams import PUT_BYTES_MAX
from geostore.types import CallContext, DatasetDefinition, SceneRecord

if TYPE_CHECKING:
    from geostore.rpc.client import NodeClient
    from geostore.types import EncodedTile, TileKey

__all__ = ["ClusterScenes"]

READ_TIMEOUT_S = 20.0
SCENE_TIMEOUT_S = 120.0
PUT_TIMEOUT_S = 120.0
KEEP_TIMEOUT_S = 5.0

PUTS_AT_ONCE_MAX = 8

_Answer = TypeVar("_Answer")


class ClusterScenes:
    """The scene methods of `geostore.backends.protocol.Backend`, under shorter names.

    `step` is a seam for tests: called between the calls that change something in the cluster.
    """

    def __init__(
        self,
        nodes: ClusterNodes,
        slot_of: Callable[[TileKey], int],
        step: StepHook = no_step,
    ) -> None:
        self.step = step
        self._nodes = nodes
        self._slot_of = slot_of
        self._attempts = Attempts(self._keep)

    def close(self) -> None:
        """Leaves attempts to the end of their leases."""
        self._attempts.close()

    def begin(
        self,
        definition: DatasetDefinition,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        replace: bool = False,
        path: str = "",
        reader: str = "",
    ) -> SceneRecord | None:
        holder = self._attempts.holder(definition.id, scene)
        self.step("begin")
        try:
            begun = self._at_scene(
                definition.id,
                scene,
                lambda client, call: client.begin_scene(
                    call,
                    definition,
                    scene,
                    version,
                    cells,
                    replace=replace,
                    path=path,
                    reader=reader,
                    holder=holder,
                ),
            )
        except UnavailableError:
            raise  # it may have begun there, for this holder
        except BaseException:
            self._attempts.release(definition.id, scene)
            raise
        self.step("begun")
        if begun is None or begun[0].staging_version != version:
            self._attempts.release(definition.id, scene)
            return None
        record, number, lease_s = begun
        self._attempts.add(
            Attempt(
                dataset_id=definition.id,
                scene=scene,
                version=version,
                number=number,
                holder=holder,
                lease_s=lease_s,
            )
        )
        return record

    def put(self, tiles: Sequence[EncodedTile]) -> list[str]:
        """To the first replicas, at once; see `Backend.put_tiles`."""
        ring = self._nodes.ring(CallContext.within(READ_TIMEOUT_S))
        groups: dict[tuple[str, Attempt], list[int]] = {}
        for index, tile in enumerate(tiles):
            key = tile.meta.key
            attempt = self._attempts.find(key.dataset_id, key.scene, key.version)
            if attempt is None:
                raise ConflictError(
                    f"scene {key.scene!r}: no attempt at version {key.version!r} is under way"
                    " here: begin it first"
                )
            node = ring.first_of(self._slot_of(key))
            groups.setdefault((node.id, attempt), []).append(index)
        parts = [
            (attempt, part)
            for (_, attempt), indices in groups.items()
            for part in _cut(indices, [len(tile.payload) for tile in tiles])
        ]

        def put_part(work: tuple[Attempt, list[int]]) -> list[str]:
            attempt, indices = work
            return self._put([tiles[index] for index in indices], attempt)

        checksums: dict[int, str] = {}
        with ThreadPoolExecutor(max(1, min(PUTS_AT_ONCE_MAX, len(parts)))) as pool:
            for (_, indices), stored in zip(parts, pool.map(put_part, parts), strict=True):
                checksums.update(zip(indices, stored, strict=True))
        return [checksums[index] for index in range(len(tiles))]

    def _put(self, tiles: Sequence[EncodedTile], attempt: Attempt) -> list[str]:
        slot = self._slot_of(tiles[0].meta.key)
        self.step("put")
        stored = self._nodes.ask(
            f"{len(tiles)} tiles of scene {attempt.scene!r}",
            lambda ring: (ring.first_of(slot),),
            PUT_TIMEOUT_S,
            lambda client, call: client.put_tiles(call, tiles, attempt.number),
        )
        self.step("put.done")
        return stored

    def commit(
        self,
        dataset_id: str,
        scene: str,
        version: str,
        cells: Sequence[str],
        *,
        bytes_total: int,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        number = self._attempt_number(dataset_id, scene, version)
        self.step("commit")
        self._at_scene(
            dataset_id,
            scene,
            lambda client, call: client.commit_scene(
                call,
                dataset_id,
                scene,
                version,
                cells,
                attempt=number,
                bytes_total=bytes_total,
                properties=None if properties is None else dict(properties),
            ),
        )
        self.step("committed")
        self._attempts.drop(dataset_id, scene)

    def _attempt_number(self, dataset_id: str, scene: str, version: str) -> int:
        attempt = self._attempts.find(dataset_id, scene, version)
        if attempt is not None:
            return attempt.number
        record = self.record(dataset_id, scene)
        return 0 if record is None else record.attempt

    def abort(self, dataset_id: str, scene: str, version: str) -> None:
        attempt = self._attempts.find(dataset_id, scene, version)
        number = 0 if attempt is None else attempt.number
        # Also where the answer to its beginning was lost: the home may know this holder.
        holder = self._attempts.known_holder(dataset_id, scene)
        self.step("abort")
        try:
            self._at_scene(
                dataset_id,
                scene,
                lambda client, call: client.abort_scene(
                    call, dataset_id, scene, version, attempt=number, holder=holder
                ),
            )
        finally:
            # Also where the home cannot be told: it gives up what nobody renews.
            if attempt is not None:
                self._attempts.drop(dataset_id, scene)
            self._attempts.release(dataset_id, scene)
        self.step("aborted")

    def record(self, dataset_id: str, scene: str) -> SceneRecord | None:
        slot = slot_of(f"scene/{dataset_id}/{scene}")
        return self._nodes.ask(
            f"the record of scene {scene!r}",
            lambda ring: ring.replicas_of(slot),
            READ_TIMEOUT_S,
            lambda client, call: client.get_scene_record(call, dataset_id, scene),
        )

    def _at_scene(
        self,
        dataset_id: str,
        scene: str,
        act: Callable[[NodeClient, CallContext], _Answer],
        *,
        timeout_s: float = SCENE_TIMEOUT_S,
    ) -> _Answer:
        home = home_of(f"scene/{dataset_id}/{scene}")
        return self._nodes.ask(f"scene {scene!r}, at its home", home, timeout_s, act)

    def _keep(self, attempt: Attempt) -> float:
        home = home_of(f"scene/{attempt.dataset_id}/{attempt.scene}")
        return self._nodes.ask(
            f"lease of scene {attempt.scene!r}",
            home,
            KEEP_TIMEOUT_S,
            lambda client, call: client.keep_scene(
                call,
                attempt.dataset_id,
                attempt.scene,
                attempt.version,
                attempt=attempt.number,
                holder=attempt.holder,
            ),
        )


def _cut(indices: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    part: list[int] = []
    room = PUT_BYTES_MAX
    for index in indices:
        if part and sizes[index] > room:
            yield part
            part, room = [], PUT_BYTES_MAX
        part.append(index)
        room -= sizes[index]
    yield part

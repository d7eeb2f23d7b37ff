"""Tiles read from a cluster: one at a time from a replica that has it, or many in streams.

Many tiles are asked of each node in one call, which a thread drains a little ahead of the
caller. Tiles come in the order asked, whatever node is quicker. What a stream does not give,
since its node is lost or a tile there is damaged, is asked of other replicas.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from geostore.backends.cluster_nodes import ClusterNodes
from geostore.errors import CorruptDataError, NotFoundError, UnavailableError
from geostore.types import BLOCK_DTYPE, CallContext, TileBlocks

if TYPE_CHECKING:
    from geostore.ring import RingNode
    from geostore.rpc.block_streams import StoredBlock
    from geostore.rpc.client import BlockStream, NodeClient
    from geostore.types import TileDetails, TileKey

__all__ = ["ClusterTiles"]

READ_TIMEOUT_S = 20.0
BLOCKS_TIMEOUT_S = 60.0
STREAM_TIMEOUT_S = 300.0
"""A stream whose caller takes longer goes on in another one."""
WINDOW_TILES_FIRST = 8
WINDOW_TILES_MAX = 256
"""Tiles that are planned together. The first are few, so that they come soon."""
TILES_AHEAD = 16
"""Tiles that are held at once for a caller, over all nodes; at least one a node."""
DETAILS_MAX = 256
"""Tiles whose details are asked for in one call."""

TOLERATED = (CorruptDataError, NotFoundError)
"""Another replica may do better."""

Wanted = tuple["TileKey", Sequence[int]]
_Answer = TypeVar("_Answer")


class ClusterTiles:
    """The reading methods of `geostore.backends.protocol.Backend`. Thread-safe."""

    def __init__(self, nodes: ClusterNodes, slot_of: Callable[[TileKey], int]) -> None:
        self._nodes = nodes
        self._slot_of = slot_of

    # ------------------------------------------------------------ one tile

    def read_blocks(self, key: TileKey, indices: Sequence[int]) -> list[memoryview | None]:
        return list(self.read_one(key, indices).data)

    def read_one(self, key: TileKey, indices: Sequence[int]) -> TileBlocks:
        """Blocks of one tile, from the first of its replicas that gives them."""

        def act(client: NodeClient, call: CallContext) -> TileBlocks:
            with closing(client.read_blocks(call, [(key, indices)])) as blocks:
                return _tile(key, indices, list(blocks))

        return self._at_replicas(key, BLOCKS_TIMEOUT_S, act)

    def details(self, key: TileKey) -> TileDetails:
        return self._at_replicas(
            key, READ_TIMEOUT_S, lambda client, call: client.tile_details(call, [key])[0]
        )

    def _at_replicas(
        self, key: TileKey, timeout_s: float, act: Callable[[NodeClient, CallContext], _Answer]
    ) -> _Answer:
        slot = self._slot_of(key)
        return self._nodes.ask(
            f"tile {key.geocode} of scene {key.scene!r}",
            lambda ring: ring.replicas_of(slot),
            timeout_s,
            act,
            tolerated=TOLERATED,
        )

    # ------------------------------------------------------------ many tiles

    def details_of(self, keys: Sequence[TileKey]) -> list[TileDetails]:
        """One a key, in order: a call a node where all is well, else a call a tile."""
        found: dict[TileKey, TileDetails] = {}
        by_node: dict[RingNode, list[TileKey]] = {}
        for key in dict.fromkeys(keys):
            by_node.setdefault(self._replicas(key)[0], []).append(key)
        for node, own in by_node.items():
            for start in range(0, len(own), DETAILS_MAX):
                part = own[start : start + DETAILS_MAX]
                call = CallContext.within(READ_TIMEOUT_S)
                try:
                    answers = self._nodes.client(node.address).tile_details(call, part)
                except (UnavailableError, *TOLERATED):
                    answers = [self.details(key) for key in part]
                found.update(zip(part, answers, strict=True))
        return [found[key] for key in keys]

    def _replicas(self, key: TileKey) -> Sequence[RingNode]:
        ring = self._nodes.ring(CallContext.within(READ_TIMEOUT_S))
        return ring.replicas_of(self._slot_of(key))

    def read(self, wanted: Iterable[Wanted]) -> Generator[TileBlocks, None, None]:
        """See `Backend.read_tiles`."""
        left = iter(wanted)
        lost: set[RingNode] = set()
        tiles_max = WINDOW_TILES_FIRST
        while window := list(islice(left, tiles_max)):
            if len(window) == 1:
                yield self.read_one(*window[0])
            else:
                with closing(_Window(self, window, lost)) as reading:
                    yield from reading.tiles()
            tiles_max = min(WINDOW_TILES_MAX, 4 * tiles_max)

    def replica(self, key: TileKey, lost: set[RingNode]) -> RingNode | None:
        """The first replica that is not lost."""
        return next((node for node in self._replicas(key) if node not in lost), None)

    def stream(self, node: RingNode, wanted: Sequence[Wanted]) -> BlockStream:
        """All blocks of `wanted`, from one node in one call."""
        call = CallContext.within(STREAM_TIMEOUT_S)
        return self._nodes.client(node.address).read_blocks(call, wanted)


class _Window:
    """Some tiles on their way, by one stream a node."""

    def __init__(self, source: ClusterTiles, wanted: Sequence[Wanted], lost: set[RingNode]) -> None:
        self._source = source
        self._wanted = wanted
        self._lost = lost
        """Nodes that did not answer; the whole reading's, so that they are asked once."""
        self._streams: list[_Stream] = []
        self._by_tile: dict[int, _Stream] = {}
        """The stream that a tile comes by; a tile that has none is asked for by itself."""

    def close(self) -> None:
        """Ends all streams."""
        for stream in self._streams:
            stream.close()

    def tiles(self) -> Iterator[TileBlocks]:
        self._start(range(len(self._wanted)))
        for number, (key, indices) in enumerate(self._wanted):
            tile: TileBlocks | None = None
            while tile is None:
                stream = self._by_tile.get(number)
                if stream is None:
                    tile = self._source.read_one(key, indices)
                    break
                tile = stream.take()
                if tile is None:
                    self._go_round(stream, number)
            yield tile

    def _start(self, numbers: Iterable[int]) -> None:
        by_node: dict[RingNode, list[int]] = {}
        for number in numbers:
            node = self._source.replica(self._wanted[number][0], self._lost)
            if node is not None:
                by_node.setdefault(node, []).append(number)
        ahead = max(1, TILES_AHEAD // max(1, len(by_node)))
        for node, own in by_node.items():
            wanted = [self._wanted[number] for number in own]
            stream = _Stream(node, own, wanted, self._source.stream, ahead)
            self._streams.append(stream)
            self._by_tile.update(dict.fromkeys(own, stream))

    def _go_round(self, stream: _Stream, number: int) -> None:
        """Has what a failed stream still owes, from tile `number` on, come another way.

        Each time the stream gave a tile, or this one is asked for by itself, or its node is
        not asked again: so it ends.
        """
        failure = stream.failure
        rest = [other for other in stream.numbers if other >= number]
        for other in rest:
            del self._by_tile[other]
        if isinstance(failure, TOLERATED):
            rest = rest[1:]
        elif not isinstance(failure, UnavailableError):
            raise failure
        elif not stream.taken:
            self._lost.add(stream.node)
        self._start(rest)


class _Stream:
    """One call to one node, drained by a thread that is `ahead` tiles before its taker."""

    def __init__(
        self,
        node: RingNode,
        numbers: Sequence[int],
        wanted: Sequence[Wanted],
        open_stream: Callable[[RingNode, Sequence[Wanted]], BlockStream],
        ahead: int,
    ) -> None:
        self.node = node
        self.numbers = numbers
        self.taken = 0
        self.failure: BaseException = AssertionError("it did not fail")
        self._wanted = wanted
        self._open = open_stream
        self._ahead = ahead
        self._ready: deque[TileBlocks] = deque()
        self._changed = threading.Condition()
        self._is_over = False
        self._blocks: BlockStream | None = None
        threading.Thread(target=self._run, name="geostore-tiles", daemon=True).start()

    def take(self) -> TileBlocks | None:
        """The next tile; None: none will come, see `failure`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._is_over)
            if not self._ready:
                return None
            self.taken += 1
            self._changed.notify_all()
            return self._ready.popleft()

    def close(self) -> None:
        """Ends the call and the thread."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            blocks = self._blocks
        if blocks is not None:
            blocks.close()

    def _run(self) -> None:
        try:
            blocks = self._open(self.node, self._wanted)
            with self._changed:
                self._blocks = blocks
                is_over = self._is_over
            if is_over:  # closed while it was opened
                blocks.close()
                return
            for key, indices in self._wanted:
                tile = _tile(key, indices, list(islice(blocks, len(indices))))
                if not self._hand_over(tile):
                    return
            next(blocks, None)  # so that the call ends by itself
        except BaseException as error:  # noqa: BLE001 - raised where the tile is taken
            self.failure = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _hand_over(self, tile: TileBlocks) -> bool:
        """False: nobody wants any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or len(self._ready) < self._ahead)
            if self._is_over:
                return False
            self._ready.append(tile)
            self._changed.notify_all()
            return True


def _tile(key: TileKey, indices: Sequence[int], blocks: Sequence[StoredBlock]) -> TileBlocks:
    """Raises UnavailableError: fewer blocks came than were asked for."""
    if len(blocks) != len(indices):
        raise UnavailableError(
            f"tile {key.geocode} of scene {key.scene!r}: {len(blocks)} blocks came of the"
            f" {len(indices)} asked for"
        )
    table = np.array(
        [(0, len(one.data or b""), one.fill, one.checksum) for one in blocks], dtype=BLOCK_DTYPE
    )
    return TileBlocks(
        key=key,
        indices=tuple(indices),
        data=tuple(None if one.data is None else memoryview(one.data) for one in blocks),
        table=table,
    )

"""A node whose answers have no end, as a process: `endless_node.py DIRECTORY`.

All of it is real but its catalog's answer, which is one batch again and again. It prints its
address; then, for each line of standard input, how many batches were made so far. It ends with
its input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geostore.config import HostPort
from geostore.node import Node
from geostore.node.member import Member
from geostore.ring import RingNode, found_ring
from geostore.rpc.transport import Channels
from geostore.server import NodeServer
from geostore.server.ring_file import RingFile
from geostore.server.ring_peers import RingPeers
from geostore.server.services import CALL_CLASSES, Door, add_services, request_id_of
from geostore.types import CallContext, RowBatch
from tests.fake_leaves import definition_of
from tests.synthetic_tiles import make_batch, many_entries

BATCH_ROWS = 4096


def serve(directory: Path) -> None:
    door = Door()
    server = NodeServer(
        listen=HostPort("127.0.0.1", 0),
        services=[lambda server: add_services(server, door)],
        classes=CALL_CLASSES,
        request_id_of=request_id_of,
    )
    server.start()
    server.serve()
    node = Node(directory, lock_now=True, is_member=True)
    own = RingNode(RingFile(node).node_id, "n1", str(server.address))
    peers = RingPeers(Channels())
    member = Member(
        node,
        own_id=own.id,
        ring=found_ring(own, cluster_id="c", replicas=1),
        peers=peers,
        save_ring=lambda _: None,
    )
    peers.set_own(member)
    member.create_dataset(CallContext.within(20), definition_of(length=5, placement=5))
    batch = make_batch(list(many_entries(BATCH_ROWS)))
    made = 0

    def endless(*_: Any, **__: Any) -> Iterator[RowBatch]:
        nonlocal made
        while True:
            made += 1
            yield batch.take(slice(0, BATCH_ROWS))

    node.catalog.query = endless  # type: ignore[method-assign]
    door.open(member, lambda: None)
    print(server.address, flush=True)
    for _ in sys.stdin:
        print(made, flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
    os._exit(0)  # whoever still streams is not waited for

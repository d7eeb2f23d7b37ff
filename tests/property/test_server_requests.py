"""Any bytes may be sent to a node: it answers with a status that says whose fault it was.

Each seed is one call of a random method: a message whose fields hold what no client of ours
sends (paths, absurd numbers, JSON of other shapes, thousands of values), or such a message with
bytes changed. A failure names its seed. GEOSTORE_FUZZ_SEEDS has more of them than CI.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from geostore.rpc.errors import ERROR_METADATA_KEY, MESSAGE_CHARACTERS_MAX
from geostore.rpc.v1 import node_pb2, ring_pb2, store_pb2

SEEDS = int(os.environ.get("GEOSTORE_FUZZ_SEEDS", "600"))
PATIENCE_S = 60.0
GROWN_BYTES_MAX = 300 << 20
CLEAN = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
}
METHODS = [
    method
    for file, service in (
        (store_pb2, "StoreService"),
        (node_pb2, "NodeService"),
        (ring_pb2, "RingService"),
    )
    for method in file.DESCRIPTOR.services_by_name[service].methods
]
NUMBERS = (0, 1, 2, 4096, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1, -1)
TEXTS = (
    "", "a", "id-a", "s1", "v1", "dq8x0", "../../etc/passwd", "/etc/passwd", "..", "a\0b", "\n",
    "x" * 100_000, "\u202e\U0001f600", "scene/id-a/s1", "copy/scene/id-a/s1", "127.0.0.1:1", "me",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, -1, 0, 1.5, 10**30, "x", "../x", "\ud800", [], {}, [[[]]], True, float("nan"),
    float("inf"), ["a"] * 1000,
)  # fmt: skip
QUERIES: tuple[dict[str, Any], ...] = (
    {},
    {"datasets": ["a"], "sort": "-time", "limit": 2},
    {"region": {"bbox": [-180, -90, 180, 90]}, "time": [0, None], "cloud": [None, 50]},
    {"region": {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9]]]}}},
    {"geocode": "dq8", "recursive": False, "bands": ["B1"], "scene": "s1", "platform": "p"},
)


def _load(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "unit" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_of_requests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Attacker:
    """Makes requests that are nearly right, of one random source."""

    def __init__(self, numbers: random.Random, head: Message, objects: list[dict[str, Any]]):
        self._random = numbers
        self._head = head
        self._objects = [*QUERIES, *objects]

    def request(self, kind: Descriptor) -> bytes:
        """One message's bytes; one of five is damaged."""
        payload = self._message(kind).SerializeToString()
        return self._damaged(payload) if self._random.random() < 0.2 else payload

    def _message(self, kind: Descriptor) -> Message:
        made: Any = message_factory.GetMessageClass(kind)()
        for field in kind.fields:
            if field.name == "head" and self._random.random() < 0.95:
                made.head.CopyFrom(self._head)
            elif self._random.random() < 0.85:
                self._fill(made, field)
        return made

    def _fill(self, made: Any, field: FieldDescriptor) -> None:
        try:
            if field.is_repeated:
                some = [self._value(field) for _ in range(self._random.randrange(4))]
                getattr(made, field.name).extend(some * self._random.choice((1, 1, 1000)))
            elif field.message_type is not None:
                getattr(made, field.name).CopyFrom(self._value(field))
            else:
                setattr(made, field.name, self._value(field))
        except ValueError:
            pass  # a number that the field cannot hold cannot be sent either

    def _value(self, field: FieldDescriptor) -> Any:
        pick = self._random.choice
        if field.message_type is not None:
            return self._message(field.message_type)
        if field.type == FieldDescriptor.TYPE_STRING:
            return pick(TEXTS)
        if field.type == FieldDescriptor.TYPE_BYTES:
            if field.name.endswith("_json"):
                return self._json()
            return pick((b"", b"x", bytes(512), b"\xff" * 512, b"\xff" * 511, bytes(1 << 20)))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return pick((False, True))
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return pick((0.0, -1.0, float("nan"), float("inf")))
        return pick(NUMBERS)

    def _json(self) -> bytes:
        chance = self._random.random()
        if chance < 0.05:
            return self._random.choice((b"[" * 100_000, b"1" * 10_000, b"\xff", b"null", b""))
        value = dict(self._random.choice(self._objects))
        if value and chance < 0.6:
            value[self._random.choice(list(value))] = self._random.choice(VALUES)
        return json.dumps(value).encode()

    def _damaged(self, payload: bytes) -> bytes:
        changed = bytearray(payload[:100_000])
        for _ in range(self._random.randrange(1, 6)):
            at = self._random.randrange(min(len(changed), 300) + 1)
            junk = self._random.randbytes(self._random.randrange(4))
            changed[at : at + self._random.randrange(4)] = junk
        return bytes(changed)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A node of its own with a scene, behind a port."""
    services = _load("test_server_services")
    root = tmp_path_factory.mktemp("node")
    node = services.Served(root, "n1")
    node.root = root
    node.open()
    node.services = services
    client = node.client()
    client.create_dataset(services.call(), services.A)
    services.store(client, "s1", services.CELLS[:3])
    yield node
    node.close()


def _ask(channel: grpc.Channel, method: Any, messages: list[bytes]) -> None:
    path = f"/{method.containing_service.full_name}/{method.name}"
    call: Callable[..., Any]
    if method.client_streaming:
        call = channel.stream_unary(path)
        call(iter(messages), timeout=PATIENCE_S)
    elif method.server_streaming:
        call = channel.unary_stream(path)
        for _ in call(messages[0], timeout=PATIENCE_S):
            pass
    else:
        call = channel.unary_unary(path)
        call(messages[0], timeout=PATIENCE_S)


def _complaint(error: grpc.RpcError) -> str | None:
    """What is wrong with how a call failed."""
    code, details = error.code(), error.details() or ""  # type: ignore[attr-defined]
    keys = [key for key, _ in error.trailing_metadata() or ()]  # type: ignore[attr-defined]
    if code not in CLEAN or (
        code is grpc.StatusCode.UNAVAILABLE and ERROR_METADATA_KEY not in keys
    ):
        return f"{code}: {details}"
    if len(details) > MESSAGE_CHARACTERS_MAX:
        return f"{code} with {len(details)} characters"
    return None


def test_whatever_is_sent_the_answer_is_a_clean_one(
    served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    services = served.services
    ring = served.member.ring()
    objects = [services.A.to_json(), {**ring.to_json(), "epoch": 99}, ring.to_json()]
    head = served.client()._head(services.call())
    channel = served.channels.channel(served.address)
    before_bytes = psutil.Process().memory_info().rss
    files = _files(served)
    wrong = []
    answered = set()
    for seed in range(SEEDS):
        numbers = random.Random(seed)
        attacker = Attacker(numbers, head, objects)
        method = METHODS[seed % len(METHODS)]
        count = numbers.randrange(4) if method.client_streaming else 1
        messages = [attacker.request(method.input_type) for _ in range(count)]
        try:
            _ask(channel, method, messages)
            answered.add(method.name)
        except grpc.RpcError as error:
            complaint = _complaint(error)
            if complaint:
                wrong.append(f"seed {seed}, {method.name}: {complaint}")
    assert not wrong, "\n".join(wrong)
    # Those of a head alone are right four times of five.
    assert {"ListDatasets", "GetRing", "GetStatus", "GetNodeStatus"} <= answered
    assert "Traceback" not in caplog.text
    assert psutil.Process().memory_info().rss - before_bytes < GROWN_BYTES_MAX
    assert _files(served) <= files, "a caller's words became a file's name"
    assert served.member.ring() == ring


def _files(served: Any) -> set[str]:
    """All files of the node and beside it, but for what scenes' commits write."""
    root: Path = served.root
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and "commits" not in path.parts
    }

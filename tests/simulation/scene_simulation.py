"""Nodes, clients and a network in one thread, all chance from one seed.

The homes run `geostore.node.scene_home`, the nodes keep `geostore.node.attempt_marks`; disks
are dicts that survive a crash, everything else does not. Messages are dropped, delayed,
doubled and reordered; nodes crash between any two durable steps; clients die; leases run out
under living clients. After every event the world's rules are checked (`_check`), and in the
end, healed, all must have come to rest.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from geostore.errors import ConflictError, GeostoreError, NotFoundError, UnavailableError
from geostore.node import scene_home as home
from geostore.node import scene_states as states
from geostore.node.attempt_marks import Mark, after_clear, after_publish, after_stage, resolve
from geostore.types import ClearRequest, PublishRequest, SceneRecord, SceneState

DATASET = "d1"
CELLS = tuple("abcdef")
STEPS_MAX = 20_000


class WrongError(AssertionError):
    """A rule of the world is broken."""


class _CrashError(Exception):
    """The node went down inside a handler."""


@dataclass
class Ask:
    """What a process waits for: all answers, errors among them."""

    calls: list[tuple[str, str, Any]]


Process = Generator[Ask, list[Any], Any]


@dataclass
class Run:
    """A process under way on an owner (a node or a client)."""

    owner: str
    process: Process
    done: Callable[[Any], None]
    waiting: dict[int, int] = field(default_factory=dict)
    answers: list[Any] = field(default_factory=list)


@dataclass
class Message:
    to: str
    call: int
    kind: str
    """A request's kind; an answer's is ""."""
    body: Any


@dataclass
class Disk:
    """What of a node survives."""

    records: dict[str, home.Stored] = field(default_factory=dict)
    copies: dict[str, tuple[int, SceneRecord]] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    staged: set[tuple[str, str, str]] = field(default_factory=set)
    published: set[tuple[str, str, str]] = field(default_factory=set)
    files: set[tuple[str, str, str]] = field(default_factory=set)


@dataclass
class Node:
    name: str
    disk: Disk = field(default_factory=Disk)
    is_up: bool = True
    locks: set[str] = field(default_factory=set)
    """Scenes whose record a process is changing."""
    unresolved: bool = False


@dataclass(frozen=True)
class Faults:
    """How much goes wrong."""

    drop: float = 0.05
    double: float = 0.05
    timeout: float = 0.05
    crash: float = 0.01
    crash_inside: float = 0.01
    client_death: float = 0.005
    lease: float = 0.02
    late: float = 0.02
    """Messages doubled whose second comes much later."""


class World:
    """`nodes` nodes, `replicas` copies of every tile and record."""

    def __init__(
        self, seed: int, *, nodes: int = 3, replicas: int = 1, faults: Faults | None = None,
        protocol: Any = home, client: Callable[..., Process] | None = None,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.protocol = protocol
        self.client = client or ingester
        self.names = [f"n{number}" for number in range(nodes)]
        self.replicas = min(replicas, nodes)
        self.nodes = {name: Node(name) for name in self.names}
        self.faults = faults or Faults()
        self.messages: list[Message] = []
        self.late: list[Message] = []
        self.runs: list[Run] = []
        self.calls: dict[int, Run] = {}
        self.call_count = 0
        self.decided: dict[str, list[tuple[str, frozenset[str]]]] = {}
        self.acknowledged_puts: dict[tuple[str, int], set[str]] = {}
        self.acknowledged: list[tuple[str, str]] = []
        self.crashes = 0
        self.trace: list[str] = []

    # ------------------------------------------------------------ placement

    def _from(self, key: str) -> list[str]:
        first = zlib.crc32(key.encode()) % len(self.names)
        return [self.names[(first + n) % len(self.names)] for n in range(self.replicas)]

    def place(self, cell: str) -> list[str]:
        return self._from(f"cell {cell}")

    def keepers(self, scene: str) -> list[str]:
        return self._from(f"scene {scene}")

    # ------------------------------------------------------------ processes

    def start(
        self, owner: str, process: Process, done: Callable[[Any], None] = lambda _: None
    ) -> None:
        run = Run(owner, process, done)
        self.runs.append(run)
        self._resume(run, lambda: next(process))

    def _resume(self, run: Run, go: Callable[[], Ask]) -> None:
        try:
            ask = go()
        except StopIteration as stopped:
            self._ended(run, stopped.value)
        except GeostoreError as error:
            self._ended(run, error)
        except _CrashError:
            self.crash(run.owner)
        else:
            run.answers = [None] * len(ask.calls)
            run.waiting = {}
            for position, (to, kind, body) in enumerate(ask.calls):
                self.call_count += 1
                run.waiting[self.call_count] = position
                self.calls[self.call_count] = run
                self.messages.append(Message(to, self.call_count, kind, body))
            if not ask.calls:
                self._resume(run, lambda: run.process.send([]))

    def _ended(self, run: Run, result: Any) -> None:
        self.runs.remove(run)
        run.done(result)

    def _answer(self, call: int, result: Any) -> None:
        run = self.calls.pop(call, None)
        if run is None or run not in self.runs:
            return
        run.answers[run.waiting.pop(call)] = result
        if not run.waiting:
            answers = run.answers
            self._resume(run, lambda: run.process.send(answers))

    def crash(self, name: str) -> None:
        self.trace.append(f"crash {name}")
        self.crashes += 1
        node = self.nodes[name]
        node.is_up, node.locks = False, set()
        for run in [run for run in self.runs if run.owner == name]:
            self.runs.remove(run)
            run.process.close()

    def restart(self, name: str) -> None:
        self.trace.append(f"restart {name}")
        node = self.nodes[name]
        node.is_up = True
        node.unresolved = bool(node.disk.staged)
        self.start(name, self._resolving(node))
        self._settle_all(node)

    def _settle_all(self, node: Node) -> None:
        for scene, stored in node.disk.records.items():
            if not stored.is_copied or not states.is_settled(stored.record):
                self._spawn_home(
                    node, scene, lambda s=scene: self.protocol.settle(DATASET, s, self.place)
                )

    # ------------------------------------------------------------ a node's deeds

    def _durable(self) -> None:
        """Between two durable steps a node may end."""
        if self.random.random() < self.faults.crash_inside:
            raise _CrashError

    def _spawn_home(
        self, node: Node, scene: str, make: Callable[[], home.Steps],
        done: Callable[[Any], None] = lambda _: None,
    ) -> None:  # fmt: skip
        if scene in node.locks:
            done(UnavailableError("the scene's record is being changed"))
            return
        node.locks.add(scene)

        def ended(result: Any) -> None:
            node.locks.discard(scene)
            done(result)

        self.start(node.name, self._driven(node, make()), ended)

    def _driven(self, node: Node, steps: home.Steps) -> Process:
        """Runs the protocol's generator: disk at once, network by asking."""
        go: Callable[[], Any] = lambda: next(steps)  # noqa: E731
        while True:
            try:
                effect = go()
            except StopIteration as stopped:
                return stopped.value
            try:
                answer = yield from self._effect(node, effect)
            except GeostoreError as error:
                go = lambda error=error: steps.throw(error)  # noqa: E731
            else:
                go = lambda answer=answer: steps.send(answer)  # noqa: E731

    def _effect(self, node: Node, effect: home.Effect) -> Generator[Ask, list[Any], Any]:
        if isinstance(effect, home.Load):
            return node.disk.records.get(effect.scene)
        if isinstance(effect, home.Save):
            return self._save(node, effect)
        if isinstance(effect, home.Replicate):
            scene = effect.record.scene
            others = [name for name in self.keepers(scene) if name != node.name]
            body = (scene, effect.revision, effect.record)
            _all_or_error((yield Ask([(name, "copy", body) for name in others])))
            self._durable()
            node.disk.records[scene] = home.Stored(
                record=effect.record, revision=effect.revision, is_copied=True
            )
            return effect.revision
        kind = {home.Confirm: "missing", home.Show: "publish", home.Remove: "clear"}[type(effect)]
        names = list(effect.requests)
        answers = yield Ask([(name, kind, effect.requests[name]) for name in names])
        _all_or_error(answers)
        if isinstance(effect, home.Confirm):
            return [
                (name, cell) for name, cells in zip(names, answers, strict=True) for cell in cells
            ]
        return None

    def _save(self, node: Node, effect: home.Save) -> int:
        self._durable()
        record = effect.record
        before = node.disk.records.get(record.scene)
        if (before.revision if before else 0) != effect.expected_revision:
            raise ConflictError("record at another revision")
        if record.state is SceneState.COMMITTED:
            assert record.version is not None
            decided = self.decided.setdefault(record.scene, [])
            decided.append((record.version, frozenset(record.cells)))
            self._check_durable(record, record.cells, "decided before all its tiles were durable")
        revision = effect.expected_revision + 1
        node.disk.records[record.scene] = home.Stored(
            record=record, revision=revision, is_copied=False
        )
        self._durable()
        return revision

    def handle(self, node: Node, message: Message) -> None:
        def reply(result: Any) -> None:
            self.messages.append(Message("", message.call, "", result))

        kind, body = message.kind, message.body
        if kind in {"begin", "commit", "abort"}:
            scene, make = body
            self._spawn_home(node, scene, make, reply)
            return
        if kind == "put":
            self.start(node.name, self._put(node, *body), reply)
            return
        try:
            reply(getattr(self, f"_on_{kind}")(node, body))
        except GeostoreError as error:
            reply(error)
        except _CrashError:
            self.crash(node.name)

    def _put(self, node: Node, scene: str, version: str, attempt: int, cell: str) -> Process:
        body = (scene, version, attempt, cell)
        self._on_stage(node, body)
        others = [name for name in self.place(cell) if name != node.name]
        _all_or_error((yield Ask([(name, "stage", body) for name in others])))
        return "stored"

    def _on_stage(self, node: Node, body: tuple[str, str, int, str]) -> str:
        scene, version, attempt, cell = body
        disk, key = node.disk, (scene, version, cell)
        if node.unresolved:
            raise UnavailableError("resolving what is staged here")
        disk.marks[scene] = after_stage(disk.marks.get(scene), attempt, scene)
        self._durable()
        if key not in disk.published:
            disk.files.add(key)
            self._durable()
            disk.staged.add(key)
            self._durable()
        return "stored"

    def _on_missing(self, node: Node, request: PublishRequest) -> list[str]:
        disk = node.disk
        return [
            cell for cell in request.cells
            if (request.scene, request.version, cell) not in disk.staged | disk.published
        ]  # fmt: skip

    def _on_publish(self, node: Node, request: PublishRequest) -> None:
        disk, scene = node.disk, request.scene
        mark, is_new = after_publish(disk.marks.get(scene), request.attempt)
        if not is_new:
            return
        missing = self._on_missing(node, request)
        if missing:
            raise NotFoundError(f"cells {missing} of {scene} are not here")
        disk.marks[scene] = mark
        self._durable()
        # One transaction of the catalog.
        disk.staged = {key for key in disk.staged if key[:2] != (scene, request.version)}
        if request.replaced_version is not None:
            replaced = (scene, request.replaced_version)
            disk.published = {key for key in disk.published if key[:2] != replaced}
        disk.published |= {(scene, request.version, cell) for cell in request.cells}
        self._durable()

    def _on_clear(self, node: Node, request: ClearRequest) -> None:
        disk, scene = node.disk, request.scene
        mark, is_new = after_clear(disk.marks.get(scene), request.attempt)
        if not is_new:
            return
        disk.marks[scene] = mark
        self._durable()
        disk.staged = {key for key in disk.staged if key[:2] != (scene, request.version)}
        for cell in request.cells:
            self._durable()
            if (scene, request.version, cell) not in disk.published:
                disk.files.discard((scene, request.version, cell))

    def _on_copy(self, node: Node, body: tuple[str, int, SceneRecord]) -> None:
        scene, revision, record = body
        if node.disk.copies.get(scene, (0, record))[0] < revision:
            self._durable()
            node.disk.copies[scene] = (revision, record)

    def _on_record(self, node: Node, scene: str) -> SceneRecord | None:
        stored = node.disk.records.get(scene)
        return stored.record if stored else None

    def _resolving(self, node: Node) -> Process:
        """A starting node asks the homes what became of what it finds staged."""
        found: dict[tuple[str, str], list[str]] = {}
        for scene, version, cell in sorted(node.disk.staged):
            found.setdefault((scene, version), []).append(cell)
        for (scene, version), cells in found.items():
            mark = node.disk.marks.get(scene)
            (record,) = yield Ask([(self.keepers(scene)[0], "record", scene)])
            if isinstance(record, GeostoreError) or mark != node.disk.marks.get(scene):
                continue  # it stays staged: the home comes to it, or the next start does
            attempt = mark.attempt if mark else 0
            found_out = resolve(record, version, cells)
            if found_out.action == "publish":
                self._on_publish(
                    node,
                    PublishRequest(
                        dataset_id=DATASET, scene=scene, version=version, attempt=attempt,
                        cells=found_out.cells, replaced_version=found_out.replaced_version,
                    ),
                )  # fmt: skip
            elif found_out.action == "clear":
                self._on_clear(
                    node,
                    ClearRequest(
                        dataset_id=DATASET, scene=scene, version=version, attempt=attempt,
                        cells=tuple(cells),
                    ),
                )  # fmt: skip
        node.unresolved = False

    # ------------------------------------------------------------ rules

    def _check_durable(self, record: SceneRecord, cells: Any, what: str) -> None:
        for cell in cells:
            key = (record.scene, record.version, cell)
            for name in self.place(cell):
                disk = self.nodes[name].disk
                if key not in disk.files or key not in disk.staged | disk.published:
                    raise WrongError(f"{record.scene} {record.version} {cell} at {name}: {what}")

    def check(self) -> None:
        for node in self.nodes.values():
            disk = node.disk
            for scene, version, cell in disk.published:
                if not any(v == version and cell in c for v, c in self.decided.get(scene, [])):
                    raise WrongError(f"{scene} {version} {cell} seen at {node.name}, never decided")
                if (scene, version, cell) not in disk.files:
                    raise WrongError(f"{scene} {version} {cell} at {node.name}: row without file")
            for scene, stored in disk.records.items():
                self._check_record(scene, stored.record)

    def _check_record(self, scene: str, record: SceneRecord) -> None:
        states.check(record)
        if record.version is not None:
            self._check_durable(record, record.cells, "a committed tile is gone")
        if record.state is SceneState.STAGING:
            for cell in self.acknowledged_puts.get((scene, record.attempt), ()):
                key = (scene, record.staging_version, cell)
                for name in self.place(cell):
                    disk = self.nodes[name].disk
                    if key not in disk.staged | disk.published:
                        raise WrongError(f"{scene} {cell} at {name}: an acknowledged put is gone")
        if record.state is SceneState.PUBLISHED:
            for cell in record.cells:
                for name in self.place(cell):
                    if (scene, record.version, cell) not in self.nodes[name].disk.published:
                        raise WrongError(f"{scene} {record.version} {cell}: not seen at {name}")

    def acknowledge(self, scene: str, version: str) -> None:
        self.acknowledged.append((scene, version))
        if self.decided[scene][-1][0] != version:
            return  # replaced since
        for cell in self.decided[scene][-1][1]:
            for name in self.place(cell):
                if (scene, version, cell) not in self.nodes[name].disk.published:
                    raise WrongError(f"{scene} {version} {cell}: reported, not seen at {name}")

    # ------------------------------------------------------------ time

    def _disturb(self) -> None:
        chance, faults = self.random.random, self.faults
        if chance() < faults.crash:
            self.crash(self.random.choice(self.names))
        down = [name for name in self.names if not self.nodes[name].is_up]
        if down and chance() < 0.1:
            self.restart(self.random.choice(down))
        if self.calls and chance() < faults.timeout:
            self._answer(
                self.random.choice(list(self.calls)), UnavailableError("no answer in time")
            )
        clients = [run for run in self.runs if run.owner not in self.nodes]
        if clients and chance() < faults.client_death:
            run = self.random.choice(clients)
            self.runs.remove(run)
            run.process.close()
        if self.late and chance() < 0.02:
            self.messages.append(self.late.pop(self.random.randrange(len(self.late))))
        if chance() < faults.lease:
            self._expire(self.random.choice(self.names))

    def _expire(self, name: str) -> None:
        """A lease runs out: its holder is dead, or only slow."""
        node = self.nodes[name]
        for scene, stored in list(node.disk.records.items()):
            if node.is_up and stored.record.state is SceneState.STAGING:
                attempt = stored.record.attempt
                self._spawn_home(
                    node, scene,
                    lambda s=scene, a=attempt: self.protocol.abort(DATASET, s, a, self.place),
                )  # fmt: skip

    def step(self) -> None:
        self._disturb()
        if not self.messages:
            return
        index = self.random.randrange(len(self.messages))
        message = self.messages[index]
        if self.random.random() >= self.faults.double:
            self.messages[index] = self.messages[-1]
            self.messages.pop()
        if self.random.random() < self.faults.late:
            self.late.append(message)
        if self.random.random() < self.faults.drop:
            return
        self.trace.append(f"{message.kind or 'answer'} -> {message.to or 'caller'} {message.body}")
        if not message.kind:
            self._answer(message.call, message.body)
        elif self.nodes[message.to].is_up:
            self.handle(self.nodes[message.to], message)

    def run(self, clients: int) -> None:
        scenes = ("s1", "s2")
        for number in range(clients):
            scene, version = self.random.choice(scenes), self.random.choice(("v1", "v2", "v3"))
            cells = sorted(self.random.sample(CELLS, self.random.randint(1, 4)))
            if version == "v1":  # one version is one source: it always has the same cells
                cells = ["a", "b", "c"]
            elif version == "v2":
                cells = ["b", "d"]
            else:
                cells = list(CELLS)
            self.start(f"client{number}", self.client(self, scene, version, tuple(cells)))
        for _ in range(STEPS_MAX):
            self.step()
            self.check()
            if not any(run.owner not in self.nodes for run in self.runs):
                break
        self._heal()

    def _heal(self) -> None:
        """The network is whole, nodes are up, leases of the dead run out: all comes to rest."""
        self.faults = Faults(0, 0, 0, 0, 0, 0, 0, 0)
        self.messages, self.late = self.messages + self.late, []
        for _ in range(20):
            for node in self.nodes.values():
                if not node.is_up:
                    self.restart(node.name)
            for name in self.names:
                self._expire(name)
                self._settle_all(self.nodes[name])
            for _ in range(STEPS_MAX):
                if not self.messages:
                    break
                self.step()
                self.check()
            # Calls whose message a crash swallowed end by their deadline.
            for call in list(self.calls):
                self._answer(call, UnavailableError("no answer in time"))
            if self._is_at_rest():
                break
        for name in self.names:  # what was resolved while a home was down
            self.crash(name)
            self.restart(name)
        while self.messages:
            self.step()
            self.check()
        self._check_rest()

    def _is_at_rest(self) -> bool:
        return not self.messages and all(
            stored.is_copied and states.is_settled(stored.record)
            for node in self.nodes.values()
            for stored in node.disk.records.values()
        )

    def _check_rest(self) -> None:
        if not self._is_at_rest() or self.runs:
            raise WrongError("healed, and yet not at rest")
        for node in self.nodes.values():
            disk = node.disk
            if disk.staged:
                raise WrongError(f"{node.name}: staged for ever: {sorted(disk.staged)}")
            if disk.files != disk.published:
                raise WrongError(f"{node.name}: files nobody names: {disk.files - disk.published}")
            for scene, version, _ in disk.published:
                record = self.nodes[self.keepers(scene)[0]].disk.records[scene].record
                if record.version != version:
                    raise WrongError(
                        f"{scene}: {node.name} shows {version}, its record {record.version}"
                    )
            for scene, stored in disk.records.items():
                for name in self.keepers(scene)[1:]:
                    if self.nodes[name].disk.copies[scene][1] != stored.record:
                        raise WrongError(f"{scene}: the record's copy at {name} differs")
                decided = self.decided.get(scene)
                if (stored.record.version or None) != (decided[-1][0] if decided else None):
                    raise WrongError(f"{scene}: the last decision was undone")


def _all_or_error(answers: list[Any]) -> None:
    for answer in answers:
        if isinstance(answer, GeostoreError):
            raise answer if isinstance(answer, UnavailableError) else UnavailableError(str(answer))


def ingester(world: World, scene: str, version: str, cells: tuple[str, ...]) -> Process:
    """A client: begin, put every cell, commit; each call is tried a few times; else abort."""
    keeper = world.keepers(scene)[0]
    event = states.Begin(
        dataset_id=DATASET, scene=scene, version=version, cells=cells, replace=True,
        path="", reader="",
    )  # fmt: skip
    takes_over = world.random.random() < 0.5

    def begin() -> home.Steps:
        return world.protocol.begin(event, world.place, may_take_over=takes_over)

    record = yield from tried(keeper, "begin", (scene, begin), 8)
    if not isinstance(record, SceneRecord):
        return "failed"
    if record.state is not SceneState.STAGING:
        world.acknowledge(scene, version)
        return "unchanged"
    attempt = record.attempt
    for cell in cells:
        body = (scene, version, attempt, cell)
        stored = yield from tried(world.place(cell)[0], "put", body, 6)
        if stored != "stored":
            yield from tried(keeper, "abort", (scene, _abort(world, scene, attempt)), 3)
            return "failed"
        world.acknowledged_puts.setdefault((scene, attempt), set()).add(cell)
    return (yield from committed(world, scene, version, attempt, cells))


def _abort(world: World, scene: str, attempt: int) -> Callable[[], home.Steps]:
    return lambda: world.protocol.abort(DATASET, scene, attempt, world.place)


def committed(
    world: World, scene: str, version: str, attempt: int, cells: tuple[str, ...]
) -> Process:
    """The last act of a client."""
    event = states.Commit(version=version, cells=cells, bytes_total=1, now_us=1)

    def commit() -> home.Steps:
        return world.protocol.commit(DATASET, scene, attempt, event, world.place)

    record = yield from tried(world.keepers(scene)[0], "commit", (scene, commit), 8)
    if isinstance(record, SceneRecord):
        world.acknowledge(scene, version)
        return "ingested"
    return "failed"


def tried(to: str, kind: str, body: Any, times: int) -> Generator[Ask, list[Any], Any]:
    """The answer, or the last error."""
    answer: Any = None
    for _ in range(times):
        (answer,) = yield Ask([(to, kind, body)])
        if not isinstance(answer, UnavailableError):
            break
    return answer

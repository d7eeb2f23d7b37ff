"""Design decision 6 under faults: a thousand seeds, and faults planted to be found.

A failure prints its seed: `World(seed, nodes=2 + seed % 3, replicas=1 + seed % 2).run(4)`
plays it again, and `world.trace` tells what happened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import scene_simulation as simulation
from scene_simulation import Ask, Process, World, WrongError

from geostore.node import scene_home as home
from geostore.node import scene_states as states
from geostore.types import PublishRequest, SceneRecord, SceneState

SEEDS = 1500
SEEDS_TO_FIND_A_FAULT = 400


def play(seed: int, **options: Any) -> World:
    world = World(seed, nodes=2 + seed % 3, replicas=1 + seed % 2, **options)
    try:
        world.run(4)
    except WrongError as wrong:
        raise WrongError(f"seed {seed}: {wrong}") from None
    return world


def test_whatever_fails_scenes_come_whole_or_not_at_all() -> None:
    acknowledged = crashes = decided = 0
    for seed in range(SEEDS):
        world = play(seed)
        acknowledged += len(world.acknowledged)
        crashes += world.crashes
        decided += sum(map(len, world.decided.values()))
    # The seeds must have met what they are for.
    assert acknowledged > SEEDS / 2
    assert decided > SEEDS / 2
    assert crashes > SEEDS


def test_without_faults_every_ingester_ends_and_one_version_stays() -> None:
    for seed in range(200):
        world = play(seed, faults=simulation.Faults(0, 0, 0, 0, 0, 0, 0, 0))
        assert world.acknowledged, seed
        for scene, decided in world.decided.items():
            shown = {
                version
                for node in world.nodes.values()
                for name, version, _ in node.disk.published
                if name == scene
            }
            assert shown == {decided[-1][0]}, seed


def found(**options: Any) -> str:
    """What the first seed that finds the planted fault says."""
    for seed in range(SEEDS_TO_FIND_A_FAULT):
        try:
            play(seed, **options)
        except WrongError as wrong:
            return str(wrong)
    return ""


def planted(**changed: Callable[..., Any]) -> SimpleNamespace:
    """The protocol with some of its functions replaced."""
    names = {name: getattr(home, name) for name in ("begin", "commit", "abort", "settle")}
    return SimpleNamespace(**(names | changed))


@pytest.fixture
def hasty_client() -> Callable[..., Process]:
    """Commits without waiting for the last put."""

    def client(world: World, scene: str, version: str, cells: tuple[str, ...]) -> Process:
        event = states.Begin(
            dataset_id=simulation.DATASET, scene=scene, version=version, cells=cells,
            replace=True, path="", reader="",
        )  # fmt: skip

        def begin() -> home.Steps:
            return world.protocol.begin(event, world.place, may_take_over=True)

        keeper = world.keepers(scene)[0]
        record = yield from simulation.tried(keeper, "begin", (scene, begin), 8)
        if not isinstance(record, SceneRecord) or record.state is not SceneState.STAGING:
            return "failed"
        for cell in cells[:-1]:
            body = (scene, version, record.attempt, cell)
            if (yield from simulation.tried(world.place(cell)[0], "put", body, 6)) != "stored":
                return "failed"
        return (yield from simulation.committed(world, scene, version, record.attempt, cells))

    return client


def test_a_commit_before_all_tiles_are_durable_is_refused(
    hasty_client: Callable[..., Process],
) -> None:
    for seed in range(100):
        world = play(seed, client=hasty_client)
        assert not world.acknowledged


def test_planted_publish_before_all_tiles_are_durable_is_found(
    monkeypatch: pytest.MonkeyPatch, hasty_client: Callable[..., Process]
) -> None:
    def nothing(*_: Any) -> Iterator[Any]:
        yield from ()

    monkeypatch.setattr(home, "_all_durable", nothing)
    assert "decided before all its tiles were durable" in found(client=hasty_client)


def test_planted_publication_by_the_client_is_found() -> None:
    def client(world: World, scene: str, version: str, cells: tuple[str, ...]) -> Process:
        event = states.Begin(
            dataset_id=simulation.DATASET, scene=scene, version=version, cells=cells,
            replace=True, path="", reader="",
        )  # fmt: skip

        def begin() -> home.Steps:
            return world.protocol.begin(event, world.place, may_take_over=True)

        keeper = world.keepers(scene)[0]
        record = yield from simulation.tried(keeper, "begin", (scene, begin), 8)
        if not isinstance(record, SceneRecord) or record.state is not SceneState.STAGING:
            return "failed"
        for cell in cells:
            body = (scene, version, record.attempt, cell)
            if (yield from simulation.tried(world.place(cell)[0], "put", body, 6)) != "stored":
                return "failed"
        for cell in cells:
            for name in world.place(cell):
                request = PublishRequest(
                    dataset_id=simulation.DATASET, scene=scene, version=version,
                    attempt=record.attempt, cells=(cell,),
                )  # fmt: skip
                yield Ask([(name, "publish", request)])
        return (yield from simulation.committed(world, scene, version, record.attempt, cells))

    assert "never decided" in found(client=client)


def test_planted_clearing_before_aborted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def given_up(stored: home.Stored, place: home.Place) -> Any:
        aborted = states.advance(stored.record, states.Abort())
        demand = states.demand(aborted)
        assert isinstance(demand, states.Clear)
        clears = {
            name: home.ClearRequest(
                dataset_id=aborted.dataset_id, scene=aborted.scene, version=demand.version,
                attempt=aborted.attempt, cells=tuple(cells),
            )
            for name, cells in home._by_node(demand.cells, place).items()
        }  # fmt: skip
        yield home.Remove(requests=clears)
        stored = yield from home._saved(stored, aborted)
        return (yield from home._settled(stored, place))

    monkeypatch.setattr(home, "_given_up", given_up)
    assert "an acknowledged put is gone" in found()


def test_planted_late_clearing_without_marks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = simulation.after_clear
    monkeypatch.setattr(simulation, "after_clear", lambda _, attempt: marks(None, attempt))
    assert found(faults=simulation.Faults(late=0.3, lease=0.05, client_death=0))


def test_planted_late_puts_without_marks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = simulation.after_stage
    monkeypatch.setattr(
        simulation, "after_stage", lambda _, attempt, scene: stage(None, attempt, scene)
    )
    assert found()


def test_planted_decision_that_is_not_finished_is_found() -> None:
    def settle(dataset_id: str, scene: str, _: home.Place) -> home.Steps:
        stored = yield home.Load(dataset_id=dataset_id, scene=scene)
        return None if stored is None else stored.record

    assert "not at rest" in found(protocol=planted(settle=settle))


def test_planted_commit_of_an_overtaken_attempt_is_found() -> None:
    def commit(dataset_id: str, scene: str, _: int, event: Any, place: home.Place) -> Any:
        def steps() -> Any:
            stored = yield home.Load(dataset_id=dataset_id, scene=scene)
            decided = states.advance(stored.record if stored else None, event)
            stored = yield from home._saved(stored, decided)
            return replace(stored.record)

        return steps()

    assert found(protocol=planted(commit=commit))

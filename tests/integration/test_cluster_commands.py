"""What the commands tell of a real cluster: whole, with a node down, and checked."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import geostore
from geostore import demo
from geostore.api.local_cluster import LocalCluster
from geostore_cli.main import cli


@dataclass
class Ran:
    """A cluster of three nodes that keep two copies, with the demo's scene in it."""

    cluster: LocalCluster
    target: str

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        words = ["--store", self.target, *map(str, arguments)]
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == code, result.output
        return result

    def lines(self, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*arguments, code=code).stdout.splitlines()]

    def kill(self, name: str) -> str:
        """Ends a node as a crash would; its address."""
        (node,) = [node for node in self.cluster.status() if node.name == name]
        assert node.pid is not None
        os.kill(node.pid, signal.SIGKILL)
        os.waitpid(node.pid, 0)
        return node.address


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster"))
    try:
        ran = Ran(cluster, cluster.up(nodes=3, replicas=2))
        ran("ingest", demo.scene_path())
        yield ran
    finally:
        cluster.down()


@pytest.fixture
def without_n2(ran: Ran) -> Iterator[str]:
    """The cluster with a node killed; its address."""
    address = ran.kill("n2")
    yield address
    ran.cluster.up()


def test_the_ring_is_listed_and_drawn(ran: Ran) -> None:
    nodes = ran.lines("ring")
    assert [node["node"] for node in nodes] == ["n1", "n2", "n3"]
    assert {node["state"] for node in nodes} == {"serving"}
    assert sum(node["slots_first"] for node in nodes) == 4096
    assert sum(node["slots"] for node in nodes) == 2 * 4096
    assert sum(node["tiles"] for node in nodes) == 2 * 9
    rows = list(csv.DictReader(io.StringIO(ran("ring", "--format", "csv").stdout)))
    assert [row["node"] for row in rows] == ["n1", "n2", "n3"]
    assert set(rows[0]) == set(nodes[0])
    drawn = ran("ring", "--format", "table").stdout
    assert "\x1b" not in drawn
    assert all(text in drawn for text in ("3 nodes", "4,096 slots", "9 tiles", "1 n1", "3 n3"))
    place = ran.lines("ring", "--dataset", "sentinel-2-l1c", "--geocode", "dqdnr")[0]
    assert len(place["nodes"]) == 2
    assert place["tiles"] == 1


def test_status_counts_each_tile_once(ran: Ran) -> None:
    (state,) = ran.lines("status")
    assert (state["datasets"], state["scenes"], state["tiles"]) == (1, 1, 9)
    assert state["slots_missing"] == 0
    assert state["slots_used"] == 9
    table = ran("status", "--format", "table").stdout
    assert "health      good" in table
    assert [line.split()[:2] for line in table.splitlines()[-3:]] == [
        ["n1", "serving"],
        ["n2", "serving"],
        ["n3", "serving"],
    ]


def test_every_node_is_verified(ran: Ran) -> None:
    result = ran("verify")
    (report,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (report["tiles"], report["problems"]) == (18, [])
    assert "all good" in result.stderr
    (state,) = ran.lines("status")
    assert report["bytes"] == 2 * state["bytes"]


def test_progress_is_told_of_all_nodes_together(ran: Ran) -> None:
    told: list[tuple[int, int]] = []
    with geostore.open(ran.target, mode="r") as store:
        assert store.verify(progress=lambda done, total: told.append((done, total))).is_clean
    assert told[-1] == (18, 18)


def test_a_node_that_is_down_is_named(ran: Ran, without_n2: str) -> None:
    status = ran("status", code=1)
    assert "error: node n2 does not answer" in status.stderr
    state = json.loads(status.stdout)
    assert (state["tiles"], state["slots_missing"]) == (9, 0), "copies are elsewhere"
    assert [node["state"] for node in state["nodes"]].count("unreachable") == 1
    table = ran("status", "--format", "table", code=1).stdout
    assert "1 of 3 nodes do not answer" in table
    ring = ran("ring", code=1)
    assert f"node n2 at {without_n2} does not answer" in ring.stderr
    states = {node["node"]: node["state"] for node in map(json.loads, ring.stdout.splitlines())}
    assert states == {"n1": "serving", "n2": "unreachable", "n3": "serving"}
    assert "n2 down" in ran("ring", "--format", "table", code=1).stdout
    assert len(ran.lines("query")) == 9, "the other copies answer"

    result = ran("verify", code=1)
    (report,) = [json.loads(line) for line in result.stdout.splitlines()]
    (problem,) = report["problems"]
    assert (problem["node"], problem["kind"]) == ("n2", "unchecked")
    assert report["tiles"] >= 9, "the others are verified all the same"
    assert "1 node not checked" in result.stderr
    head = ran("verify", "--format", "csv", code=1).stdout.splitlines()[0]
    assert head == "node,kind,path,message"


def test_with_two_nodes_down_what_is_not_known_is_said(ran: Ran, without_n2: str) -> None:
    assert without_n2
    ran.kill("n3")
    (node,) = [node for node in ran.lines("ring", code=1) if node["state"] == "serving"]
    (state,) = ran.lines("status", code=1)
    assert state["slots_missing"] == 4096 - node["slots"]
    assert state["tiles"] == node["tiles"] < 9
    table = ran("status", "--format", "table", code=1).stdout
    assert f"tiles       at least {node['tiles']}" in table
    assert f"{state['slots_missing']:,} slots have no node that does" in table
    assert f"{node['tiles']}+ tiles" in ran("ring", "--format", "table", code=1).stdout


def test_damage_is_named_with_its_node(ran: Ran) -> None:
    damaged = min((ran.cluster.directory / "n3" / "tiles").rglob("*.zarr.zip"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    try:
        result = ran("verify", code=1)
    finally:
        damaged.write_bytes(whole)
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["node"], problem["kind"]) == ("n3", "corrupt")
    assert problem["path"] == str(damaged)
    assert f"node n3: {damaged}" in result.stderr


def test_a_cluster_is_rebuilt_node_by_node(ran: Ran) -> None:
    refused = ran("verify", "--rebuild", code=2)
    assert "--store DIRECTORY verify --rebuild" in refused.stderr
    with geostore.open(ran.target) as store, pytest.raises(geostore.errors.InvalidInputError):
        store.verify(rebuild=True)
    before = ran("query").stdout
    busy = CliRunner().invoke(cli, ["--store", place(ran, "n1"), "verify", "--rebuild"])
    assert busy.exit_code == 1, "the node runs"
    ran.cluster.down()
    for name, damage in (("n1", nothing), ("n2", shutil.rmtree), ("n3", nothing)):
        damage(Path(place(ran, name)) / "catalog")
        rebuilt = CliRunner().invoke(cli, ["--store", place(ran, name), "verify", "--rebuild"])
        assert rebuilt.exit_code == 0, rebuilt.output
    assert ran.cluster.up() == ran.target
    assert ran("query").stdout == before
    assert ran.lines("ingest", demo.scene_path())[0]["status"] == "unchanged"
    assert ran.lines("verify")[0]["problems"] == []


def place(ran: Ran, name: str) -> str:
    return str(ran.cluster.directory / name)


def nothing(_path: Path) -> None:
    pass


def test_a_nodes_directory_is_not_ingested_into(ran: Ran) -> None:
    words = ["--store", place(ran, "n1"), "ingest", str(demo.scene_path()), "--dataset", "other"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    assert "through the cluster" in result.stderr

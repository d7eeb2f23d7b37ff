"""Definitions: from readers' defaults, from requests, from a first scene."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import ConflictError, InvalidInputError, NotFoundError
from geostore.ingest.datasets import DatasetRequest, complete, define, propose, settle
from geostore.scenes import open_source, readers
from geostore.types import DatasetDefinition


class Store:
    """Definitions by name; `rival` appears at the next create."""

    def __init__(self) -> None:
        self.kept: dict[str, DatasetDefinition] = {}
        self.rival: DatasetDefinition | None = None

    def dataset(self, name: str) -> DatasetDefinition:
        if name not in self.kept:
            raise NotFoundError(name)
        return self.kept[name]

    def create_dataset(self, definition: DatasetDefinition) -> None:
        if self.rival is not None:
            self.kept[self.rival.name], self.rival = self.rival, None
        if definition.name in self.kept:
            raise ConflictError(definition.name)
        self.kept[definition.name] = definition

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> None:
        if self.kept[old.name] != old:
            raise ConflictError(old.name)
        self.kept[new.name] = new


@pytest.fixture
def scene(make_raster):
    path = make_raster(
        "s.tif",
        np.ones((1, 64, 64), "uint8"),
        transform=(30.0, 0, 500_000.0, 0, -25.0, 4_200_000.0),
    )
    (scene,) = open_source(str(path))
    with scene:
        yield scene


def test_sentinel_2_defaults_are_those_of_the_design() -> None:
    for scheme, length, shapes in (
        ("geohash", 5, [512, 256, 128]),
        ("quadtile", 13, [512, 256, 128]),
    ):
        made = define("x", DatasetRequest(scheme=scheme), readers()["sentinel-2-l2a"])
        assert (made.length, made.placement) == (length, 5 if scheme == "geohash" else 12)
        assert [group.resolution_m for group in made.groups] == [10, 20, 60]
        assert [group.width for group in made.groups] == shapes
        assert made.is_complete


def test_a_plain_raster_decides_by_its_shorter_pixel_side(scene) -> None:
    made = complete(define("x", DatasetRequest(), readers()["geotiff"]), scene)
    assert [group.resolution_m for group in made.groups] == [25.0]
    assert made.is_complete


def test_a_dataset_without_groups_keeps_what_it_fixed(scene) -> None:
    store = Store()
    store.create_dataset(define("x", DatasetRequest(scheme="quadtile", length=11), None))
    assert not store.kept["x"].is_complete
    proposal = propose(store, scene, readers()["geotiff"], "x", DatasetRequest())
    assert not proposal.is_stored
    assert store.kept["x"] == proposal.stored, "proposing writes nothing"
    assert settle(store, proposal)
    assert (store.kept["x"].scheme, store.kept["x"].length) == ("quadtile", 11)
    assert propose(store, scene, readers()["geotiff"], "x", DatasetRequest()).is_stored


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (DatasetRequest(scheme="quadtile"), "--scheme geohash, asked for quadtile"),
        (DatasetRequest(length=7), r"--length \d, asked for 7"),
        (DatasetRequest(resolutions_m=(10.0, 20.0)), "--resolution 25, asked for 10,20"),
        (DatasetRequest(codec="small"), "--codec fast, asked for small"),
    ],
)
def test_a_request_against_an_existing_dataset_is_refused(scene, request_, message) -> None:
    store = Store()
    assert settle(store, propose(store, scene, readers()["geotiff"], "x", DatasetRequest()))
    with pytest.raises(InvalidInputError, match=message):
        propose(store, scene, readers()["geotiff"], "x", request_)


def test_the_slower_of_two_first_scenes_proposes_again(scene) -> None:
    store = Store()
    reader = readers()["geotiff"]
    proposal = propose(store, scene, reader, "x", DatasetRequest())
    store.rival = complete(define("x", DatasetRequest(), reader), scene)
    winner = store.rival
    assert not settle(store, proposal)
    again = propose(store, scene, reader, "x", DatasetRequest())
    assert again.is_stored
    assert again.definition.id == winner.id != proposal.definition.id

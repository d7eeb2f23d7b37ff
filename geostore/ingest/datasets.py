"""Which dataset a scene goes into, and what a dataset without groups takes from its first."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from geostore.errors import ConflictError, InvalidInputError, NotFoundError
from geostore.grid import default_length, default_placement, make_groups
from geostore.ingest.plan import native_resolution_m, stored_bands
from geostore.scenes import Reader, Scene
from geostore.types import Codec, DatasetDefinition, Resampling, SchemeName, validate_name

__all__ = [
    "DatasetRequest",
    "DatasetStore",
    "PlannedDatasets",
    "Proposal",
    "check_request",
    "complete",
    "define",
    "propose",
    "settle",
]

_SAME_SIZE = 1.02
"""Native pixel sizes within this factor share a group."""


class DatasetStore(Protocol):
    """The part of a backend that keeps definitions."""

    def dataset(self, name: str) -> DatasetDefinition: ...

    def create_dataset(self, definition: DatasetDefinition) -> None: ...

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRequest:
    """What the caller fixed; None leaves it to the reader's defaults or the first scene."""

    scheme: SchemeName | None = None
    length: int | None = None
    placement: int | None = None
    resolutions_m: tuple[float, ...] | None = None
    resampling: Resampling | None = None
    codec: Codec | None = None


def define(name: str, request: DatasetRequest, like: Reader | None) -> DatasetDefinition:
    """A new definition, as complete as the request and the reader's defaults make it.

    Raises:
        InvalidInputError: a value out of range.
    """
    chosen = request.scheme or "geohash"
    resolutions = request.resolutions_m
    length = request.length
    if like is not None:
        resolutions = resolutions or like.defaults.resolutions_m
        if length is None and like.defaults.lengths is not None:
            length = like.defaults.lengths[chosen]
    if length is None and resolutions:
        length = default_length(chosen, min(resolutions))
    placement = request.placement
    if placement is None and length is not None:
        placement = default_placement(chosen, length)
    definition = DatasetDefinition(
        id=uuid.uuid4().hex,
        name=name,
        scheme=chosen,
        length=length,
        placement=placement,
        resampling=request.resampling or "nearest",
        codec=request.codec or "fast",
        reader=like.name if like is not None else None,
        created_us=time.time_ns() // 1000,
    )
    if not resolutions or length is None or placement is None:
        return definition
    return definition.with_groups(
        length=length, placement=placement, groups=make_groups(chosen, length, resolutions)
    )


def check_request(store: DatasetStore, name: str | None, request: DatasetRequest) -> None:
    """Refuses, before any source is opened, what no scene could make right.

    Raises:
        InvalidInputError: a name that no dataset can have, numbers out of range, or a request
            that contradicts the dataset of that name.
    """
    if name is not None:
        validate_name(name)
        try:
            _refuse_differences(store.dataset(name), request)
        except NotFoundError:
            define(name, replace(request, resolutions_m=None), None)
    else:
        # The datasets follow from the scenes; one that is there may have either scheme.
        widest = replace(request, scheme=request.scheme or "quadtile", resolutions_m=None)
        define("any", widest, None)


def native_sizes_m(scene: Scene) -> tuple[float, ...]:
    """The different pixel sizes of a scene's bands, finest first; near-equal ones as one."""
    sizes: list[float] = []
    for size in sorted(native_resolution_m(band) for band in stored_bands(scene)):
        if not sizes or size > sizes[-1] * _SAME_SIZE:
            sizes.append(size)
    if not sizes:
        raise InvalidInputError(f"{scene.path}: the scene has no band to store")
    return tuple(sizes)


def complete(definition: DatasetDefinition, scene: Scene) -> DatasetDefinition:
    """The definition with what it still lacks taken from its first scene."""
    if definition.is_complete:
        return definition
    sizes = native_sizes_m(scene)
    length = definition.length or default_length(definition.scheme, sizes[0])
    placement = definition.placement or default_placement(definition.scheme, length)
    return definition.with_groups(
        length=length, placement=placement, groups=make_groups(definition.scheme, length, sizes)
    )


def _refuse_differences(definition: DatasetDefinition, request: DatasetRequest) -> None:
    """A flag that contradicts an existing dataset must not be ignored silently."""
    asked: Sequence[tuple[str, object, object]] = (
        ("--scheme", request.scheme, definition.scheme),
        ("--length", request.length, definition.length),
        ("--placement", request.placement, definition.placement),
        (
            "--resolution",
            request.resolutions_m,
            tuple(group.resolution_m for group in definition.groups) or None,
        ),
        ("--resampling", request.resampling, definition.resampling),
        ("--codec", request.codec, definition.codec),
    )
    for flag, wanted, is_so in asked:
        if wanted is not None and is_so is not None and wanted != is_so:
            raise InvalidInputError(
                f"dataset {definition.name!r} has {flag} {_text(is_so)}, asked for"
                f" {_text(wanted)}: leave the flag out or name another --dataset"
            )


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{item:g}" for item in value)
    return str(value)


@dataclass(frozen=True, slots=True)
class Proposal:
    """The complete definition a scene would go under, and what the store has of it."""

    definition: DatasetDefinition
    stored: DatasetDefinition | None
    """None: there is no dataset of that name. Else it may lack what its first scene fixes."""

    @property
    def is_stored(self) -> bool:
        return self.stored is not None and self.stored == self.definition


def propose(
    store: DatasetStore,
    scene: Scene,
    reader: Reader,
    name: str | None,
    request: DatasetRequest,
    *,
    first_scene_decides: bool = True,
) -> Proposal:
    """What dataset a scene goes into; nothing is written.

    Raises:
        InvalidInputError: the request contradicts an existing dataset; or the scene would
            have to decide its groups, and may not.
    """
    name = name or scene.reader
    stored: DatasetDefinition | None
    try:
        definition = stored = store.dataset(name)
        _refuse_differences(stored, request)
    except NotFoundError:
        definition, stored = define(name, request, reader), None
    if not first_scene_decides and not definition.is_complete:
        raise InvalidInputError(
            f"dataset {name!r} would take its pixel sizes from its first scene, and where many"
            " workers ingest at once none is the first: create it before, with geostore dataset"
            f" create {name} --resolution M, or pass --resolution"
        )
    return Proposal(complete(definition, scene), stored)


class PlannedDatasets:
    """A store's datasets as they would be after what a dry run has planned; writes nothing."""

    def __init__(self, store: DatasetStore) -> None:
        self._store = store
        self._planned: dict[str, DatasetDefinition] = {}

    def dataset(self, name: str) -> DatasetDefinition:
        planned = self._planned.get(name)
        return self._store.dataset(name) if planned is None else planned

    def create_dataset(self, definition: DatasetDefinition) -> None:
        self._planned[definition.name] = definition

    def replace_dataset(self, old: DatasetDefinition, new: DatasetDefinition) -> None:
        assert self.dataset(old.name) == old, "scenes of one new dataset are planned in turn"
        self._planned[new.name] = new


def settle(store: DatasetStore, proposal: Proposal) -> bool:
    """Write what the proposal adds. False: somebody else was faster, so propose again."""
    if proposal.is_stored:
        return True
    try:
        if proposal.stored is None:
            store.create_dataset(proposal.definition)
        else:
            store.replace_dataset(proposal.stored, proposal.definition)
    except ConflictError:
        return False
    return True

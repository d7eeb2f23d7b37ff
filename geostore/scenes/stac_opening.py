"""From a STAC item to scenes.

By the product's own reader where it knows the files, else by what the item says of its assets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from geostore.errors import InternalError, UnreadableSourceError
from geostore.scenes.registry import reader_named, readers
from geostore.scenes.remote import Gathered, Remote
from geostore.scenes.remote_cache import Turn
from geostore.scenes.remote_url import RemoteUrl
from geostore.scenes.scene import Reader, ReadOptions, Scene
from geostore.scenes.source import Content, Source
from geostore.scenes.stac import STAC, StacReader
from geostore.scenes.stac_bands import data_assets
from geostore.scenes.stac_item import Asset, StacItem
from geostore.scenes.stac_scene import item_scene, short_properties

__all__ = ["open_item"]

_PICTURES = ("image/png", "image/jpeg", "image/webp", "text/html")
_NOT_PRODUCTS = (STAC, "geotiff", "netcdf")
"""Readers that know a format and no product: the item says more than they could."""


def open_item(
    item: StacItem,
    remote: Remote,
    reader: str | None,
    options: ReadOptions | None,
    turn: Turn,
) -> list[Scene]:
    """The scenes of an item; the caller closes each. Only files that are used are fetched.

    Args:
        item: as found.
        remote: fetches its assets.
        reader: the reader to use, whatever it would claim.
        options: what the caller knows of the scenes.
        turn: see there.

    Raises:
        UnreadableSourceError: no asset is a raster, or one cannot be had or read.
        GeostoreError: as `RemoteCache.fetch`.
    """
    options = options or ReadOptions()
    chosen = None if reader is None else reader_named(reader)
    is_item_reader = isinstance(chosen, StacReader)
    first_error: UnreadableSourceError | None = None
    if not is_item_reader:
        for source in _product_sources(item, remote, turn):
            try:
                scenes = _open_product(source, chosen, options)
            except UnreadableSourceError as error:
                if chosen is not None:
                    raise
                first_error = first_error or error
                continue
            if scenes:
                return [_as_of_item(scene, item) for scene in scenes]
    source = _gathered(item, item.assets, remote, turn)
    try:
        scene = item_scene(item, source, options, chosen.name if chosen else None)
    except UnreadableSourceError as error:
        source.discard()
        raise first_error or error from None
    except BaseException:
        source.discard()
        raise
    source.close()
    return [scene]


def _open_product(source: Source, chosen: Reader | None, options: ReadOptions) -> list[Scene]:
    """Scenes by a product's reader; none where no such reader knows the files."""
    try:
        reader = chosen or _product_reader(source)
        scenes = [] if reader is None else reader.open(source, options)
    except BaseException:
        source.discard()
        raise
    source.close()
    if chosen is not None and not scenes:
        raise InternalError(f"{source.path}: its reader returned no scene")
    return scenes


def _product_reader(source: Source) -> Reader | None:
    return next(
        (
            reader
            for reader in readers().values()
            if reader.name not in _NOT_PRODUCTS and reader.claims(source)
        ),
        None,
    )


def _as_of_item(scene: Scene, item: StacItem) -> Scene:
    scene.path = item.shown
    scene.properties = {**scene.properties, "stac": short_properties(item)}
    return scene


def _product_sources(item: StacItem, remote: Remote, turn: Turn) -> Iterator[Source]:
    """The item's files as the product they came from: its folder, or its only file."""
    files = [asset for asset in item.assets if not _is_picture(asset)]
    if files:
        yield _gathered(item, files, remote, turn)
    only = data_assets(item.assets)
    if len(only) == 1 and only[0].place is not None:
        place = only[0].place
        yield remote.file(place, turn) if isinstance(place, RemoteUrl) else Source(place)


def _is_picture(asset: Asset) -> bool:
    return asset.media_type.startswith(_PICTURES) or not asset.roles.isdisjoint(
        {"thumbnail", "overview"}
    )


def _gathered(item: StacItem, assets: Sequence[Asset], remote: Remote, turn: Turn) -> Source:
    """The item's files as one folder, each by its place below the folder that most share."""
    places, folder = member_places(assets)
    shown = {member: str(place) for member, place in places.items()}
    return Source(
        Content(
            shown=item.shown,
            local=Path("/", folder or item.scene_id),
            members=Gathered(item.shown, places, remote, turn),
            member_shown=lambda member: shown.get(member, item.shown),
        )
    )


def member_places(assets: Sequence[Asset]) -> tuple[dict[str, RemoteUrl | Path], str]:
    """Assets by what they are called below their common folder, and that folder's name.

    Files of other servers than most are called `assets/<key>/<name>`: they are no part of a
    product's folder.
    """
    usable = [asset for asset in assets if asset.place is not None and asset.name]
    origins = [_origin(asset) for asset in usable]
    most = max(set(origins), key=lambda origin: (origins.count(origin), origin), default="")
    folders = [
        str(PurePosixPath(_path(asset)).parent)
        for asset, origin in zip(usable, origins, strict=True)
        if origin == most
    ]
    root = os.path.commonpath(folders) if folders else "/"
    places: dict[str, RemoteUrl | Path] = {}
    for asset, origin in zip(usable, origins, strict=True):
        assert asset.place is not None
        name = f"assets/{asset.key}/{asset.name}"
        if origin == most:
            name = PurePosixPath(_path(asset)).relative_to(root).as_posix()
        if name in places and str(places[name]) != str(asset.place):
            name = f"assets/{asset.key}/{asset.name}"
        places[name] = asset.place
    return places, PurePosixPath(root).name


def _origin(asset: Asset) -> str:
    return asset.place.origin if isinstance(asset.place, RemoteUrl) else "file"


def _path(asset: Asset) -> str:
    """The absolute path at its server, without dots."""
    assert asset.place is not None
    path = asset.place.path if isinstance(asset.place, RemoteUrl) else str(asset.place)
    return os.path.normpath(f"/{path.lstrip('/')}")

"""The whole path on imagery that ships with the package: offline, in under a minute."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from geostore.api import Selection, Store, Tile
from geostore.api import open as open_store
from geostore.api.local_cluster import LocalCluster
from geostore.errors import NotFoundError, UnreadableSourceError
from geostore.types import SceneResult, SceneStatus

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["DemoFiles", "run", "scene_path"]

DATASET = "sentinel-2-l1c"
_BANDS = ("red", "green", "blue")
_COVERAGE_MIN = 20


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What a run of the demo left behind."""

    store: Path
    """The store's directory, or the local cluster's."""
    picture: Path
    mosaic: Path


def _shipped() -> Traversable:
    folder = resources.files("geostore") / "demo_data"
    for member in folder.iterdir():
        if member.name.endswith(".SAFE.zip"):
            return member
    raise NotFoundError(f"{folder}: the demo's scene is not installed; reinstall geostore")


def scene_path() -> Path:
    """The scene that ships with the package, as a file (not where it is run from a zip)."""
    return Path(str(_shipped()))


def run(
    directory: str | Path,
    *,
    nodes: int | None = None,
    echo: Callable[[str], object] = print,
    draw_ring: Callable[[Store], str] | None = None,
) -> DemoFiles:
    """Ingests the shipped scene, shows its cells and a query, writes a picture and a mosaic.

    May be run again in the same directory: the scene is then `unchanged`, the files are
    written anew.

    Args:
        directory: made where it is absent; gets `store` (or `cluster`), `true-colour.png`,
            `mosaic.tif`.
        nodes: on a cluster of so many nodes, processes of this machine, which are started for
            the demo and end with it, however it ends; their data stays.
        echo: takes each block of text.
        draw_ring: makes a picture of a cluster's ring; none is shown without it.

    Raises:
        GeostoreError: the store or the files could not be written, the nodes not started.
    """
    place = Path(directory).expanduser()
    files = DemoFiles(
        store=place / ("store" if nodes is None else "cluster"),
        picture=place / "true-colour.png",
        mosaic=place / "mosaic.tif",
    )
    with ExitStack() as stack:
        scene = stack.enter_context(resources.as_file(_shipped()))
        target = str(files.store)
        if nodes is not None:
            target = stack.enter_context(_cluster(files.store, nodes, echo))
        store = stack.enter_context(open_store(target))
        _show(store, scene, files, echo)
        if nodes is not None and draw_ring is not None:
            echo("\n5. Where the tiles are: the ring, slots 0 to 4095 clockwise from the top\n")
            echo(draw_ring(store).rstrip("\n"))
    echo(f"\n{5 if nodes is None or draw_ring is None else 6}. The same in Python\n")
    echo(_indented(python_lines(files, target)))
    if nodes is None:
        echo(f"\nNext: geostore --store {quote(target)} query --coverage 95..")
    else:
        where = f"--dir {quote(str(files.store))}"
        echo(f"\nNext: export GEOSTORE_STORE=$(geostore cluster up -q {where})  # the same nodes")
        echo("      geostore query --coverage 95..")
    echo("      geostore ingest YOUR_SCENE.SAFE.zip")
    if nodes is not None:
        echo(f"      geostore cluster down --dir {quote(str(files.store))}")
    echo("\nContains modified Copernicus Sentinel data 2016.")
    return files


@contextmanager
def _cluster(directory: Path, nodes: int, echo: Callable[[str], object]) -> Iterator[str]:
    """The target of a local cluster, started here and ended at the end; one that ran already
    goes on.
    """
    cluster = LocalCluster(directory)
    ran_before = cluster.exists() and any(node.state == "up" for node in cluster.status())
    echo(f"A store of {nodes} node{'' if nodes == 1 else 's'}, each a process of its own")

    def tell(line: str) -> None:
        echo(f"   {line}")

    target = cluster.up(nodes, progress=tell)
    try:
        echo("")
        yield target
    finally:
        if not ran_before:
            _end(cluster)


def _end(cluster: LocalCluster) -> None:
    try:
        cluster.down()
    except KeyboardInterrupt:  # asked once more: no more patience
        LocalCluster(cluster.directory, stop_timeout_s=0.0).down()
        raise


def _show(store: Store, scene: Path, files: DemoFiles, echo: Callable[[str], object]) -> None:
    echo("1. A Sentinel-2 scene in (Virginia's Atlantic coast, 12 January 2016, 8.4 x 8.4 km)")
    echo(_ingest(store, scene))
    tiles = store.query(dataset=DATASET)
    echo("\n2. Its tiles: one a geohash cell, all bands in their resolution groups")
    echo(_cells_text(list(tiles)))
    chosen = store.query(dataset=DATASET, pixel_coverage=(_COVERAGE_MIN, None), bands=list(_BANDS))
    echo(f"3. A query: tiles with red, green and blue, at least {_COVERAGE_MIN} % covered")
    echo(_indented(chosen.explain().to_text()))
    echo("\n4. Pixels out")
    _write_picture(tiles, files.picture)
    echo(f"   {files.picture}  true colour, with the cells' borders and coverage")
    _write_mosaic(tiles, files.mosaic)
    echo(f"   {files.mosaic}  red, green, blue, near infrared at 10 m: a cloud-optimized GeoTIFF")


def _ingest(store: Store, scene: Path) -> str:
    result = store.ingest([scene])[0]
    if result.status not in (SceneStatus.INGESTED, SceneStatus.UNCHANGED):
        raise UnreadableSourceError(f"the demo's scene could not be ingested: {result.error}")
    return f"   {_outcome(result)}"


def _outcome(result: SceneResult) -> str:
    size = f"{result.tiles} tiles, {result.bytes / 1e6:.1f} MB"
    if result.status == SceneStatus.UNCHANGED:
        return f"unchanged: {size} are there from an earlier run"
    return f"ingested in {result.seconds:.1f} s: {size}"


def _cells_text(tiles: Sequence[Tile]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=True)
    for name in ("geohash", "west", "south", "east", "north", "coverage %", "bands", "KB"):
        table.add_column(name, justify="left" if name == "geohash" else "right")
    for tile in tiles:
        _add_row(table, tile)
    console = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def _add_row(table: Table, tile: Tile) -> None:
    corners = (f"{value:.4f}" for value in tile.bbox.as_tuple())
    table.add_row(
        tile.geocode,
        *corners,
        f"{tile.pixel_coverage:.1f}",
        str(len(tile.bands)),
        f"{tile.bytes / 1e3:,.0f}",
    )


def _write_picture(tiles: Selection, path: Path) -> None:
    from geostore.demo.picture import draw_cells, true_colour
    from geostore.raster.output import write_png
    from geostore.types import BBox

    pixels = tiles.mosaic(_BANDS).read()
    picture = true_colour(pixels.data, pixels.mask, BBox(*pixels.bounds))
    notes = {tile.geocode: (tile.bbox, f"{tile.pixel_coverage:.1f}%") for tile in tiles}
    draw_cells(picture, notes)
    write_png(path, picture.pixels)


def _write_mosaic(tiles: Selection, path: Path) -> None:
    tiles.export(path, mosaic=True, bands=[*_BANDS, "nir"], overwrite=True)


def python_lines(files: DemoFiles, target: str) -> str:
    """Python that repeats the demo: it runs as it stands, on a cluster while that is up."""
    return f"""\
import geostore
from geostore import demo

with geostore.open({target!r}) as store:
    store.ingest([demo.scene_path()])
    tiles = store.query(dataset="{DATASET}", pixel_coverage=({_COVERAGE_MIN}, None))
    for tile in tiles:
        pixels = tile.read(bands=["red", "nir"], resolution=10, reflectance=True)
        red, nir = pixels.data
        ndvi = ((nir - red) / (nir + red))[pixels.mask.all(axis=0)]
        print(tile.geocode, f"mean NDVI {{ndvi.mean():.3f}}")
    bands = ["red", "green", "blue", "nir"]
    tiles.export({str(files.mosaic)!r}, bands=bands, mosaic=True, overwrite=True)"""


def _indented(text: str) -> str:
    return "\n".join(f"   {line}" if line else "" for line in text.splitlines())

"""`geostore export`: tiles out, as files that other programs open."""

from __future__ import annotations

from typing import Any, Literal

import click

from geostore_cli.parameters import RESOLUTION, predicates
from geostore_cli.progress import StepView
from geostore_cli.session import Session, command, pass_session

__all__ = ["export"]


@command()
@predicates(bands_help="Export these bands, of the tiles that have them all. Default: all.")
@click.option(
    "--out",
    type=click.Path(),
    required=True,
    metavar="PATH",
    help="A directory that is made; with --mosaic --as cog a .tif file.",
)
@click.option(
    "--resolution",
    type=RESOLUTION,
    metavar="M",
    help="Pixel size, metres. Default: the finest among the bands.",
)
@click.option(
    "--as",
    "export_format",
    type=click.Choice(["cog", "zarr", "npy"]),
    default="cog",
    show_default=True,
    help="Cloud-optimized GeoTIFF, one Zarr cube, or numpy arrays.",
)
@click.option("--mosaic", is_flag=True, help="All tiles as one raster.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export at PATH.")
@pass_session
def export(
    session: Session,
    *,
    chosen: dict[str, Any],
    out: str,
    resolution: float | None,
    export_format: Literal["cog", "zarr", "npy"],
    mosaic: bool,
    overwrite: bool,
) -> None:
    """Write the tiles that match to files.

    Prints each file that was written. All of them appear at the end, together, or none.

    \b
    geostore export --scene S2A_… --bands red,green,blue --mosaic --out scene.tif
    geostore export --geocode dq8 --coverage 95.. --bands B04,B08 --as npy --out chips
    """
    with session.open_store() as store, StepView(session, "export") as view:
        written = store.query(**chosen).export(
            out,
            format=export_format,
            bands=chosen.get("bands"),
            resolution=resolution,
            mosaic=mosaic,
            overwrite=overwrite,
            progress=view,
        )
    for path in written:
        click.echo(str(path))

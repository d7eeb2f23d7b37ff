"""`geostore dataset`: create, list, show, recloud, delete."""

from __future__ import annotations

from typing import Any, Literal

import click

from geostore_cli.listing import Column, time_text, write_listing, write_pairs
from geostore_cli.parameters import RESOLUTIONS, WholeNumber, format_option
from geostore_cli.session import Session, command, group, pass_session

__all__ = ["dataset"]

FIELDS = (
    "name",
    "scheme",
    "length",
    "placement",
    "groups",
    "resampling",
    "codec",
    "reader",
    "cloud_rule",
    "created",
    "id",
)
RECLOUD_FIELDS = ("dataset", "cloud_rule", "tiles", "changed", "unknown")


@group()
def dataset() -> None:
    """Create, list, show, recloud and delete datasets.

    A dataset fixes for all its tiles: geocode scheme, cell length, placement length and the
    resolution groups. `geostore ingest` makes one by itself, with its reader's defaults.
    """


def _row(definition: Any) -> dict[str, Any]:
    """A DatasetDefinition as the fields of a listing."""
    from geostore.types.geo import datetime_from_us

    created = datetime_from_us(definition.created_us) if definition.created_us else None
    return {
        "name": definition.name,
        "scheme": definition.scheme,
        "length": definition.length,
        "placement": definition.placement,
        "groups": [
            {
                "resolution": group.resolution_m,
                "height": group.height,
                "width": group.width,
            }
            for group in definition.groups
        ],
        "resampling": definition.resampling,
        "codec": definition.codec,
        "reader": definition.reader,
        "cloud_rule": str(definition.cloud_rule),
        "created": time_text(created),
        "id": definition.id,
    }


def _groups_text(groups: list[dict[str, Any]]) -> str:
    if not groups:
        return "by the first scene"
    return ", ".join(
        f"{group['resolution']:.12g} m {group['height']}×{group['width']}" for group in groups
    )


@command(parent=dataset)
@click.argument("name")
@click.option("--scheme", type=click.Choice(["geohash", "quadtile"]), help="Default: geohash.")
@click.option("--length", type=WholeNumber(min=1), metavar="N", help="Geocode length of a cell.")
@click.option(
    "--placement",
    type=WholeNumber(min=1),
    metavar="K",
    help="Leading characters of the geocode that choose the node.",
)
@click.option(
    "--resolution",
    type=RESOLUTIONS,
    metavar="M[,M…]",
    help="Pixel sizes of the groups, metres, finest first.",
)
@click.option(
    "--resampling",
    type=click.Choice(["nearest", "bilinear", "cubic", "average", "mode", "lanczos"]),
    help="Default: nearest, which keeps every number as the source has it.",
)
@click.option(
    "--codec",
    type=click.Choice(["fast", "small"]),
    help="fast decodes faster (default), small takes less room.",
)
@click.option("--like", metavar="READER", help="Take what is not given from a reader's defaults.")
@pass_session
def create(session: Session, /, name: str, **flags: Any) -> None:
    """Create dataset NAME.

    What no flag gives and no reader's defaults give is fixed by the first scene ingested.
    """
    from geostore.types import validate_name

    validate_name(name)  # before the store is opened, which makes one where there is none
    given = {keyword: value for keyword, value in flags.items() if value is not None}
    with session.open_store(mode="a") as store:
        store.create_dataset(name, **given)
    session.note(f"created dataset {name}")


@command("list", parent=dataset)
@format_option()
@pass_session
def list_(session: Session, output_format: str | None) -> None:
    """List all datasets."""
    with session.open_store() as store:
        rows = [_row(definition) for definition in store.datasets()]
    write_listing(
        rows,
        session.listing_format(output_format),
        fields=FIELDS,
        columns=(
            Column("name"),
            Column("scheme"),
            Column("length", justify="right"),
            Column("groups", show=_groups_text, long=True),
            Column("codec"),
            Column("reader"),
        ),
    )


@command(parent=dataset)
@click.argument("name")
@format_option()
@pass_session
def show(session: Session, name: str, output_format: str | None) -> None:
    """Show what dataset NAME fixes."""
    with session.open_store() as store:
        row = _row(store.dataset(name))
    shown = {key: "by the first scene" if row[key] is None else str(row[key]) for key in FIELDS}
    shown["groups"] = _groups_text(row["groups"])
    shown["reader"] = row["reader"] or "–"
    write_pairs(row, session.listing_format(output_format), shown=shown)


@command(parent=dataset)
@click.argument("name")
@click.option(
    "--threshold",
    type=WholeNumber(min=0, max=100),
    metavar="P",
    help="Cloud is what has a cloud likelihood of P percent or more.",
)
@click.option(
    "--method",
    type=click.Choice(["provider"]),
    help="provider: cloud is what the product's own mask says, as at ingest.",
)
@format_option()
@pass_session
def recloud(
    session: Session,
    name: str,
    threshold: int | None,
    method: Literal["provider"] | None,
    output_format: str | None,
) -> None:
    """Change what dataset NAME calls cloud.

    Every tile's cloud cover follows, and so do queries, sorting and reads with a cloud mask.
    No file and no scene is read, and --method provider brings back exactly what was.
    """
    if (threshold is None) == (method is None):
        raise click.UsageError("give either --threshold P or --method provider")
    with session.open_store(mode="a") as store:
        done = store.recloud(name, threshold=threshold, method=method)
    row = {
        "dataset": done.dataset,
        "cloud_rule": str(done.rule),
        "tiles": done.tiles,
        "changed": done.tiles_changed,
        "unknown": done.tiles_unknown,
    }
    shown = {field: str(row[field]) for field in RECLOUD_FIELDS}
    write_pairs(row, session.listing_format(output_format), shown=shown)
    if threshold is not None and done.tiles_unknown:
        of_all = "none" if done.tiles_unknown == done.tiles else "not all"
        session.note(
            f"{of_all} of the {done.tiles} tiles of {name} have a cloud likelihood: the cloud cover"
            f" of {done.tiles_unknown} is unknown now; --method provider brings the provider's back"
        )


@command(parent=dataset)
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete dataset NAME with all its tiles.

    What is deleted is gone; the scenes it was made from are not touched.
    """
    with session.open_store(mode="a") as store:
        tiles = store.delete_dataset(name)
    session.note(f"deleted dataset {name}: {tiles} tile{'' if tiles == 1 else 's'}")

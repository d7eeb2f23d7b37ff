"""`geostore demo`: the whole path on imagery that comes with the package."""

from __future__ import annotations

import click

from geostore_cli.session import Session, command, pass_session

__all__ = ["demo"]


@command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False),
    default="geostore-demo",
    show_default=True,
    metavar="DIR",
    help="Where the demo's store and pictures go.",
)
@pass_session
def demo(session: Session, directory: str) -> None:
    """See the whole path in a minute, offline.

    Ingests a small real scene, shows its cells and how a query is answered, mosaics it, writes a
    picture and a GeoTIFF, and prints the Python that does the same.
    """
    from geostore import demo as demonstration

    session.start_logging()
    demonstration.run(directory, echo=click.echo)

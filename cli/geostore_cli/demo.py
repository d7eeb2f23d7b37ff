"""`geostore demo`: the whole path on imagery that comes with the package."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from geostore_cli.parameters import WholeNumber
from geostore_cli.session import Session, command, pass_session

if TYPE_CHECKING:
    from geostore.api import Store

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
@click.option(
    "--nodes",
    type=WholeNumber(1, 64),
    metavar="N",
    help="On a cluster of N nodes on this machine, which ends with the demo.",
)
@pass_session
def demo(session: Session, directory: str, nodes: int | None) -> None:
    """See the whole path in a minute, offline.

    Ingests a small real scene, shows its cells and how a query is answered, mosaics it, writes a
    picture and a GeoTIFF, and prints the Python that does the same.

    With --nodes the store is a cluster: the same results, and a picture of its ring. Its data
    stays, and `geostore cluster up` goes on with it.

    \b
    geostore demo
    geostore demo --nodes 3
    """
    from geostore import demo as demonstration

    session.start_logging()
    with _ended_like_ctrl_c():
        demonstration.run(directory, nodes=nodes, echo=click.echo, draw_ring=_draw_ring)


def _draw_ring(store: Store) -> str:
    from geostore_cli.ring import picture

    return picture(store, store.ring())


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """A terminal that closes, or `kill`, ends the demo's nodes as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

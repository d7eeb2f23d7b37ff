"""`geostore cluster`: a whole cluster on this machine, up, status, down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from geostore.errors import NotFoundError
from geostore_cli.listing import Column, span_text, write_listing
from geostore_cli.parameters import WholeNumber, format_option
from geostore_cli.session import Session, command, group, pass_session

if TYPE_CHECKING:
    from geostore.api.local_cluster import LocalCluster

__all__ = ["cluster"]

DIRECTORY_DEFAULT = "./geostore-cluster"


COLUMNS = (
    Column("name"),
    Column("pid", justify="right"),
    Column("address"),
    Column("state"),
    Column("uptime_s", "uptime", span_text, "right"),
    Column("directory", long=True),
)
FIELDS = ("name", "pid", "address", "state", "directory", "uptime_s")

_directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DIRECTORY_DEFAULT,
    show_default=True,
    help="Where the nodes keep data, logs and state.",
)


def local_cluster(directory: Path) -> LocalCluster:
    """The cluster of a directory."""
    from geostore.api.local_cluster import LocalCluster

    return LocalCluster(directory)


@group()
def cluster() -> None:
    """A whole cluster on this machine, one process a node.

    \b
    geostore cluster up --nodes 3
    geostore --store "$(geostore cluster up -q)" status
    geostore cluster down
    """


@command(parent=cluster)
@click.option(
    "--nodes",
    type=WholeNumber(1, 64),
    metavar="N",
    help="How many. Default: 3, or as many as the directory's cluster has.",
)
@_directory_option
@click.option(
    "--port",
    type=WholeNumber(1, 65535),
    metavar="P",
    help="The first node's; the others take those after it. Default: as before, or free ones.",
)
@click.option(
    "--replicas",
    type=WholeNumber(1, 64),
    metavar="R",
    help="Nodes that keep a copy of each tile. Default: 1, or as before.",
)
@pass_session
def up(
    session: Session, *, nodes: int | None, directory: Path, port: int | None, replicas: int | None
) -> None:
    """Start the nodes that do not run; print the TARGET.

    Returns when all of them serve; they go on running. An address that is printed once stays
    the cluster's, also when it is taken down and started again.

    \b
    geostore cluster up
    geostore cluster up --nodes 5 --replicas 2 --dir ./big
    export GEOSTORE_STORE=$(geostore cluster up -q)
    """
    target = local_cluster(directory).up(nodes, port, replicas, progress=session.note)
    click.echo(target)
    where = "" if directory == Path(DIRECTORY_DEFAULT) else f" --dir {_quoted(directory)}"
    session.note(f"use it: export GEOSTORE_STORE={target}")
    session.note(f"stop it: geostore cluster down{where}")


@command(parent=cluster)
@_directory_option
@format_option()
@pass_session
def status(session: Session, *, directory: Path, output_format: str | None) -> None:
    """List the nodes' processes."""
    rows = [node.to_json() for node in local_cluster(directory).status()]
    write_listing(rows, session.listing_format(output_format), fields=FIELDS, columns=COLUMNS)


@command(parent=cluster)
@_directory_option
@pass_session
def down(session: Session, *, directory: Path) -> None:
    """Stop all nodes; their data stays.

    What was acknowledged is there again when `geostore cluster up` starts them.
    """
    cluster = local_cluster(directory)
    if not cluster.exists():
        raise NotFoundError(f"no cluster in {directory}: nothing was stopped")
    report = cluster.down(session.note)
    count = len(report.stopped) + len(report.killed)
    stopped = f"stopped {count} node{'' if count == 1 else 's'}"
    session.note(stopped if count else f"no node of {directory} runs")


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))

"""`geostore node`: one storage node of a cluster, until it is told to stop."""

from __future__ import annotations

from pathlib import Path

import click

from geostore.errors import InvalidInputError
from geostore_cli.session import Session, command, pass_session

__all__ = ["node"]

_file = click.Path(dir_okay=False, path_type=Path)


@command()
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The directory that the node keeps its part of the store in.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    required=True,
    help="Where it serves; port 0: any free one. As others reach it, unless --advertise says.",
)
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    help="Where others reach it, if elsewhere: behind 0.0.0.0, a container's or NAT's port.",
)
@click.option(
    "--join",
    metavar="HOST:PORT",
    multiple=True,
    help="A node of the cluster to join; may be repeated. Without it, a new cluster is founded.",
)
@click.option("--name", metavar="NAME", help="For people. Default: the start of its id.")
@click.option(
    "--zone",
    metavar="Z",
    default="",
    help="What fails together with it (a rack, a site): copies are kept in other zones.",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 64),
    metavar="R",
    help="Nodes that keep a copy of each tile, of a cluster that is founded.  [default: 1]",
)
@click.option("--tls-cert", type=_file, metavar="FILE", help="The node's certificate, PEM.")
@click.option("--tls-key", type=_file, metavar="FILE", help="Its key, PEM.")
@click.option("--tls-ca", type=_file, metavar="FILE", help="Who signs nodes and clients, PEM.")
@click.option(
    "--insecure", is_flag=True, help="Serve beyond this machine without TLS all the same."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="P",
    help="Serve metrics for Prometheus at this port of 127.0.0.1.",
)
@pass_session
def node(
    session: Session,
    *,
    data: Path,
    listen: str,
    advertise: str | None,
    join: tuple[str, ...],
    name: str | None,
    zone: str,
    replicas: int | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    insecure: bool,
    metrics_port: int | None,
) -> None:
    """Serve one node of a cluster; SIGTERM or Ctrl-C ends it in order.

    The first line printed is `serving HOST:PORT`. Started again with the same data the node
    takes its old place, at another address too.

    \b
    geostore node --data a --listen 127.0.0.1:7440
    geostore node --data b --listen 127.0.0.1:7441 --join 127.0.0.1:7440
    """
    from geostore.api.serve import run_node
    from geostore_cli.node_log import node_log_handler

    session.start_logging(node_log_handler())
    run_node(
        data,
        listen,
        join,
        advertise=advertise,
        name=name,
        zone=zone,
        replicas=replicas,
        tls=_tls_files(tls_cert, tls_key, tls_ca),
        insecure=insecure,
        metrics_port=metrics_port,
        ready=lambda address: click.echo(f"serving {address}"),
    )


def _tls_files(*files: Path | None) -> tuple[Path, Path, Path] | None:
    """All three, or none."""
    cert, key, ca = files
    if cert is not None and key is not None and ca is not None:
        return cert, key, ca
    if any(file is not None for file in files):
        raise InvalidInputError(
            "TLS needs --tls-cert, --tls-key and --tls-ca together, got only some of them"
        )
    return None

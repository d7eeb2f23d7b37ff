"""TLS end to end: who gets in, and what those are told who do not. Real nodes, real files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trustme
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

import geostore
from geostore.errors import GeostoreError, InvalidInputError, NotFoundError, UnavailableError
from geostore.rpc.errors import raising_for
from geostore.rpc.transport import Security, TlsFiles
from geostore_cli.main import cli
from tests.integration.bad_nodes import PATIENCE_S, NodeProcess, channel_to

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
NODES = ("good", "peer", "expired", "elsewhere", "plain")


class Office:
    """An authority and the files of those whom it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.authority = trustme.CA(organization_name=name)
        self.ca = folder / f"{name}-ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)

    def files(
        self, name: str, *hosts: str, until: dt.datetime | None = None, ca: Path | None = None
    ) -> TlsFiles:
        """A certificate for loopback, or for `hosts`; who holds it trusts `ca`."""
        issued = self.authority.issue_cert(*(hosts or ("127.0.0.1", "localhost")), not_after=until)
        files = TlsFiles(self._folder / f"{name}.pem", self._folder / f"{name}.key", ca or self.ca)
        issued.cert_chain_pems[0].write_to_path(files.cert)
        issued.private_key_pem.write_to_path(files.key)
        return files


def options_of(files: TlsFiles) -> list[str]:
    return [
        f"--tls-cert={files.cert}", f"--tls-key={files.key}", f"--tls-ca={files.ca}"
    ]  # fmt: skip


def keywords_of(files: TlsFiles) -> dict[str, str]:
    return {"tls_cert": str(files.cert), "tls_key": str(files.key), "tls_ca": str(files.ca)}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return Office(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Office:
    return Office(tmp_path_factory.mktemp("theirs"), "theirs")


@pytest.fixture(scope="module")
def user(ours: Office) -> TlsFiles:
    return ours.files("user")


@pytest.fixture(scope="module")
def nodes(
    tmp_path_factory: pytest.TempPathFactory, ours: Office
) -> Iterator[Mapping[str, NodeProcess]]:
    """One cluster of two nodes with TLS; a node whose certificate is over, one that has
    another host's, and one without TLS.
    """
    folder = tmp_path_factory.mktemp("nodes")
    files = {
        "good": ours.files("good"),
        "expired": ours.files("expired", until=YESTERDAY),
        "elsewhere": ours.files("elsewhere", "node.example"),
    }
    with ExitStack() as ending:
        running: dict[str, NodeProcess] = {}

        def start(name: str, *options: str) -> None:
            running[name] = NodeProcess(folder, name, *options)
            ending.callback(running[name].end)

        for name, its in files.items():
            start(name, *options_of(its))
        start("plain")
        start("peer", *options_of(ours.files("peer")), "--join", running["good"].address)
        for name in NODES:
            assert running[name].address
        yield running


def target(*nodes: NodeProcess) -> str:
    return "geostore://" + ",".join(node.address for node in nodes)


def test_a_scene_goes_in_and_comes_out(
    nodes: Mapping[str, NodeProcess],
    user: TlsFiles,
    tmp_path: Path,
    write_raster: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.random.default_rng(7).integers(1, 4000, (1, 160, 160)).astype("uint16")
    raster = write_raster(tmp_path / "first.tif", pixels, nodata=0)
    both = target(nodes["good"], nodes["peer"])
    with geostore.open(both, **keywords_of(user)) as store:  # type: ignore[arg-type]
        (result,) = store.ingest(raster)
        assert result.status == "ingested"
        tiles = list(store.query())
        assert len(tiles) == result.tiles
        assert all(tile.read().mask.any() for tile in tiles)
    # The command line takes the files from the environment, as it takes the store.
    for name, value in keywords_of(user).items():
        monkeypatch.setenv(f"GEOSTORE_{name.upper()}", value)
    for node in (nodes["good"], nodes["peer"]):
        ran = CliRunner().invoke(cli, ["--store", target(node), "query", "--count"])
        assert (ran.exit_code, ran.stdout.strip()) == (0, str(len(tiles))), ran


def told(node: NodeProcess, **keywords: str) -> GeostoreError:
    with pytest.raises(GeostoreError) as caught:
        geostore.open(target(node), **keywords)  # type: ignore[arg-type]
    assert node.address in str(caught.value)
    return caught.value


def check(node: NodeProcess, user: TlsFiles) -> None:
    """Whoever was refused did no harm: others are served."""
    with channel_to(node.address, Security(user)) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=PATIENCE_S
        )
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    assert "Traceback" not in node.said()


def test_who_trusts_another_authority_is_told(
    nodes: Mapping[str, NodeProcess], user: TlsFiles, theirs: Office
) -> None:
    error = told(nodes["good"], **keywords_of(replace(user, ca=theirs.ca)))
    assert type(error) is UnavailableError
    assert "signed by an authority in tls_ca" in str(error)
    check(nodes["good"], user)


def test_who_was_signed_by_another_authority_is_told(
    nodes: Mapping[str, NodeProcess], user: TlsFiles, ours: Office, theirs: Office
) -> None:
    error = told(nodes["good"], **keywords_of(theirs.files("stranger", ca=ours.ca)))
    assert "does not accept this side's certificate" in str(error)
    expired = told(nodes["good"], **keywords_of(ours.files("late", until=YESTERDAY)))
    assert "does not accept this side's certificate" in str(expired)
    check(nodes["good"], user)


def test_a_node_whose_certificate_is_over_is_not_believed(
    nodes: Mapping[str, NodeProcess], user: TlsFiles
) -> None:
    error = told(nodes["expired"], **keywords_of(user))
    assert "certificate has expired" in str(error)
    assert "expected one that is in date" in str(error)


def test_a_node_with_another_hosts_certificate_is_not_believed(
    nodes: Mapping[str, NodeProcess], user: TlsFiles
) -> None:
    error = told(nodes["elsewhere"], **keywords_of(user))
    assert "its certificate is for other hosts than this address" in str(error)


def test_a_client_without_a_certificate_is_refused(
    nodes: Mapping[str, NodeProcess], user: TlsFiles
) -> None:
    import grpc

    with pytest.raises(InvalidInputError, match="tls_ca.*expected all three"):
        geostore.open(target(nodes["good"]), tls_ca=user.ca)
    _, _, authority = user.read()
    nobody = grpc.ssl_channel_credentials(root_certificates=authority)
    address = nodes["good"].address
    with grpc.secure_channel(address, nobody) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(UnavailableError), raising_for(address):
            stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    check(nodes["good"], user)


def test_plaintext_and_tls_do_not_meet(nodes: Mapping[str, NodeProcess], user: TlsFiles) -> None:
    assert "it wants TLS (tls_cert, tls_key, tls_ca)" in str(told(nodes["good"]))
    error = told(nodes["plain"], **keywords_of(user))
    assert "it speaks no TLS, this side does" in str(error)
    check(nodes["good"], user)


@pytest.mark.parametrize("side", ["node", "client"])
def test_files_that_do_not_belong_together_are_named(
    side: str, nodes: Mapping[str, NodeProcess], user: TlsFiles, ours: Office, tmp_path: Path
) -> None:
    garbage, empty = tmp_path / "garbage.pem", tmp_path / "empty.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n")
    empty.write_bytes(b"\x00\xff")
    other = ours.files(f"other-{side}")
    cases: list[tuple[TlsFiles, type[GeostoreError], list[str]]] = [
        (replace(user, key=other.key), InvalidInputError, [str(other.key), "not the one that"]),
        (replace(user, cert=garbage), InvalidInputError, [str(garbage), "cannot be read"]),
        (replace(user, ca=garbage), InvalidInputError, [str(garbage), "no certificate in it"]),
        (replace(user, ca=empty), InvalidInputError, [str(empty), "expected a PEM file"]),
        (
            replace(user, key=tmp_path / "none"),
            NotFoundError,
            [str(tmp_path / "none"), "no such file"],
        ),
    ]
    for files, kind, says in cases:
        if side == "client":
            with pytest.raises(kind) as caught:
                geostore.open(target(nodes["good"]), **keywords_of(files))  # type: ignore[arg-type]
            said = str(caught.value)
        else:
            words = ["node", "--data", str(tmp_path / "d"), "--listen", "127.0.0.1:0"]
            ran = CliRunner().invoke(cli, [*words, *options_of(files)])
            assert ran.exit_code in (1, 2), ran
            said = ran.stderr
            assert said.count("\n") == 1
            assert not (tmp_path / "d").exists()
        for text in says:
            assert text in said


def test_beyond_loopback_it_is_tls_or_insecure_by_name(user: TlsFiles, tmp_path: Path) -> None:
    def node(*options: str) -> str:
        words = ["node", "--data", str(tmp_path / "d"), "--listen", "192.0.2.1:0", *options]
        ran = CliRunner().invoke(cli, words)
        assert ran.exit_code in (1, 2), ran
        assert not (tmp_path / "d").exists()
        return ran.stderr

    assert "needs TLS (--tls-cert, --tls-key, --tls-ca) or" in node()
    assert "both TLS files and --insecure" in node("--insecure", *options_of(user))
    assert "cannot listen on 192.0.2.1" in node("--insecure")
    assert "cannot listen on 192.0.2.1" in node(*options_of(user))
    with pytest.raises(InvalidInputError, match=r"192\.0\.2\.1:7440.*needs TLS.*--insecure"):
        geostore.open("geostore://192.0.2.1:7440")
    with pytest.raises(InvalidInputError, match="both TLS files and --insecure"):
        geostore.open("geostore://127.0.0.1:7440", insecure=True, **keywords_of(user))  # type: ignore[arg-type]

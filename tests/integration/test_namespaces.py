"""docs/operations.md on three machines, which are network namespaces joined by a switch.

Two clusters live there at once, so that waiting for a machine that fell silent is done once:
an open one that keeps two copies, and one behind mutual TLS that keeps one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from geostore import demo
from tests.integration.namespaces import Machine, Switch, switched_machines, why_not

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
PAGES_ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
TILES = 9
TRIES_MAX = 10


def geostore_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "geostore_cli", *words]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A node on each machine, at the same port."""

    machines: tuple[Machine, ...]
    port: int
    settings: Mapping[str, str]
    """What a client's environment says."""

    def run(self, number: int, *words: str) -> subprocess.Popen[str]:
        """Starts a command on a machine, which asks the node there first."""
        machine = self.machines[number]
        target = f"geostore://{machine.address}:{self.port}"
        return subprocess.Popen(
            machine.command(geostore_command("--store", target, *words)),
            env={**os.environ, **self.settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    output: str
    said: str

    def lines(self) -> list[dict[str, Any]]:
        """What a query printed, but for the nodes."""
        assert self.status == 0, self.said
        lines = [json.loads(line) for line in self.output.splitlines()]
        return [{key: value for key, value in line.items() if key != "nodes"} for line in lines]


def together(*running: subprocess.Popen[str]) -> list[Ran]:
    """The ends of commands that run at once."""
    ended = []
    for process in running:
        output, said = process.communicate(timeout=120)
        ended.append(Ran(process.returncode, output, said))
    return ended


def block(language: str, words: str) -> str:
    """The page's one block of a language that has these words."""
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (text,) = (text for text in found if words in text)
    return str(text)


def on_machines(text: str, machines: Sequence[Machine]) -> str:
    """The page's text with the machines' own addresses."""
    for written, machine in zip(PAGES_ADDRESSES, machines, strict=True):
        text = text.replace(written, machine.address)
    return text


def make_certificates(folder: Path, machines: Sequence[Machine]) -> None:
    """As the page tells."""
    folder.mkdir()
    subprocess.run(
        ["bash", "-e", "-c", on_machines(block("bash", "openssl"), machines)],
        check=True,
        cwd=folder,
        capture_output=True,
        timeout=60,
    )


def start_nodes(
    opened: ExitStack, folder: Path, cluster: Cluster, options: Sequence[Sequence[str]]
) -> None:
    """One a machine, with its options; they serve when this returns."""
    folder.mkdir()
    nodes: list[subprocess.Popen[str]] = []
    for number, (machine, extra) in enumerate(zip(cluster.machines, options, strict=True)):
        words = ["node", "--data", str(folder / f"n{number + 1}"), "--name", f"n{number + 1}"]
        if number:
            words += ["--join", f"{cluster.machines[0].address}:{cluster.port}"]
        log = opened.enter_context((folder / f"{number}.log").open("w"))
        nodes.append(
            opened.enter_context(
                subprocess.Popen(
                    machine.command(geostore_command(*words, *extra)),
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            )
        )
        opened.callback(end, nodes[-1])
    for node, machine in zip(nodes, cluster.machines, strict=True):
        assert node.stdout is not None
        assert node.stdout.readline() == f"serving {machine.address}:{cluster.port}\n"


def end(node: subprocess.Popen[str]) -> None:
    node.send_signal(signal.SIGTERM)
    try:
        assert node.wait(60) == 0
    finally:
        node.kill()


@dataclass(frozen=True, slots=True)
class Site:
    switch: Switch
    open: Cluster
    """Plaintext, two copies."""
    closed: Cluster
    """Mutual TLS, one copy."""

    @property
    def both(self) -> tuple[Cluster, Cluster]:
        return self.open, self.closed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    reason = why_not()
    if reason is None and shutil.which("openssl") is None:
        reason = "no `openssl` command"
    if reason is not None:
        pytest.skip(f"no machines to try a cluster on: {reason}")
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as opened:
        switch = opened.enter_context(switched_machines(3))
        machines = switch.machines
        opened_to_all = Cluster(machines, 7440, {"GEOSTORE_INSECURE": "1"})
        everywhere = ["--listen", "0.0.0.0:7440", "--insecure"]
        start_nodes(
            opened,
            folder / "open",
            opened_to_all,
            [
                ["--listen", f"{machines[0].address}:7440", "--insecure", "--replicas", "2"],
                *([*everywhere, "--advertise", f"{one.address}:0"] for one in machines[1:]),
            ],
        )
        keys = folder / "keys"
        make_certificates(keys, machines)

        def files(name: str) -> dict[str, str]:
            return {
                "cert": f"{keys}/{name}.pem",
                "key": f"{keys}/{name}.key",
                "ca": f"{keys}/ca.pem",
            }

        closed = Cluster(
            machines,
            7441,
            {f"GEOSTORE_TLS_{key.upper()}": path for key, path in files("client").items()},
        )
        options = []
        for number, one in enumerate(machines, start=1):
            words = ["--listen", f"{one.address}:7441"]
            for key, path in files(f"n{number}").items():
                words += [f"--tls-{key}", path]
            options.append(words)
        start_nodes(opened, folder / "closed", closed, options)
        yield Site(switch, opened_to_all, closed)


def test_what_one_machine_takes_all_of_them_answer(site: Site) -> None:
    scene = str(demo.scene_path())
    for ran in together(*(cluster.run(0, "ingest", scene) for cluster in site.both)):
        assert ran.status == 0, ran.said
        assert json.loads(ran.output)["tiles"] == TILES
    answers = [
        ran.lines()
        for ran in together(
            *(cluster.run(number, "query") for cluster in site.both for number in (1, 2))
        )
    ]
    assert len(answers[0]) == TILES
    assert all(answer == answers[0] for answer in answers)


def test_who_has_no_certificate_is_kept_out(site: Site) -> None:
    stranger = Cluster(site.closed.machines, site.closed.port, {"GEOSTORE_INSECURE": "1"})
    (ran,) = together(stranger.run(1, "status"))
    assert ran.status == 1
    assert ran.output == ""
    assert "cannot be reached" in ran.said


def test_health_is_asked_for_as_the_page_tells(site: Site) -> None:
    lines = on_machines(block("console", "health_pb2"), site.open.machines).splitlines()
    python, *words = shlex.split(lines[0].removeprefix("$ "))
    assert python == "python"
    done = subprocess.run(
        site.open.machines[2].command([sys.executable, *words]),
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == lines[1]


@pytest.mark.slow
def test_a_machine_is_cut_off_and_comes_back(site: Site) -> None:
    """Both nodes that are left are asked: each notices by itself that the third is silent."""
    (before,) = (ran.lines() for ran in together(site.open.run(1, "query")))
    lost = f"n3 ({site.closed.machines[2].address}:{site.closed.port})"
    site.switch.cut(2)
    try:
        two_copies, *one_copy = together(
            site.open.run(0, "query"), site.closed.run(0, "query"), site.closed.run(1, "query")
        )
    finally:
        site.switch.mend(2)
    assert two_copies.lines() == before
    for ran in one_copy:
        assert ran.status == 1
        assert ran.output == ""
        assert "the answer would not be whole" in ran.said
        assert lost in ran.said
    assert all(answer == before for answer in answers_soon(site))


def answers_soon(site: Site) -> list[list[dict[str, Any]]]:
    """A query's lines through the node that stayed and the one that was away, of both clusters;
    connections come back a little after the cable.
    """
    for _ in range(TRIES_MAX):
        rans = together(
            *(cluster.run(number, "query") for cluster in site.both for number in (0, 2))
        )
        if all(ran.status == 0 for ran in rans):
            break
    return [ran.lines() for ran in rans]

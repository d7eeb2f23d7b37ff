"""Machines to try a cluster on: network namespaces, each with an address, on one switch.

They are made in namespaces of their own altogether: the host's network is not touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

__all__ = ["Machine", "Switch", "switched_machines", "why_not"]

NETWORK = "198.18.7"
"""Of the range that RFC 2544 keeps for tests."""


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs `ip` with these words."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=60)


def why_not() -> str | None:
    """Why namespaces cannot be made here; None: they can."""
    if shutil.which("ip") is None:
        return "no `ip` command (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"gs{secrets.token_hex(3)}"
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"the system makes no network namespaces: {error.stderr.strip()}"
    ip("netns", "del", name)
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """One namespace."""

    name: str
    address: str

    def command(self, words: Sequence[str]) -> list[str]:
        """What runs `words` on this machine, in place of the process that starts it."""
        return ["ip", "netns", "exec", self.name, *words]


@dataclass(frozen=True, slots=True)
class Switch:
    """What the machines are plugged into, and the plugs."""

    namespace: str
    machines: tuple[Machine, ...]

    def cut(self, number: int) -> None:
        """Takes a machine's plug out: what is sent to it or by it is lost."""
        ip("-n", self.namespace, "link", "set", f"port{number}", "down")

    def mend(self, number: int) -> None:
        """Puts it in again."""
        ip("-n", self.namespace, "link", "set", f"port{number}", "up")


@contextmanager
def switched_machines(count: int) -> Iterator[Switch]:
    """Namespaces joined by a bridge; gone at the end, with all that is in them."""
    mark = f"gs{secrets.token_hex(3)}"
    with ExitStack() as made:

        def namespace(name: str) -> str:
            ip("netns", "add", name)
            made.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
            return name

        hub = namespace(f"{mark}-hub")
        ip("-n", hub, "link", "add", "switch", "type", "bridge")
        ip("-n", hub, "link", "set", "switch", "up")
        machines = []
        for number in range(count):
            machine = Machine(namespace(f"{mark}-{number}"), f"{NETWORK}.{number + 1}")
            peer = ("peer", "name", "eth0", "netns", machine.name)
            ip("-n", hub, "link", "add", f"port{number}", "type", "veth", *peer)
            ip("-n", hub, "link", "set", f"port{number}", "master", "switch", "up")
            ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "eth0")
            ip("-n", machine.name, "link", "set", "eth0", "up")
            machines.append(machine)
        yield Switch(hub, tuple(machines))

"""Hosts that have nothing in common but a network, on one machine, with links that can be cut.

Each host is a network namespace, joined to the store's by a pair of virtual interfaces. Where the
system grants no namespaces, hosts are processes that know the store by an address of the loopback
each, and a link is cut by the store itself, which drops what comes by that address.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_BRIDGE = "store"
_FIRST = 10  # Last number of the first host's address.


class Network:
    """The network, made by the process that starts the store and all hosts.

    Attributes:
        isolated: Whether hosts are namespaces.
    """

    def __init__(self) -> None:
        self._centre = os.getpid()
        self.isolated = bool(shutil.which("ip") and shutil.which("nsenter")) and _unshared()
        if self.isolated:
            _ip("link set lo up", f"link add {_BRIDGE} type bridge")
            _ip(f"addr add {self._at(1)}/24 dev {_BRIDGE}", f"link set {_BRIDGE} up")

    def __str__(self) -> str:
        return "network namespaces" if self.isolated else "processes (namespaces can't be had)"

    def _at(self, number: int) -> str:
        return f"{'10.77.0' if self.isolated else '127.0.0'}.{number}"

    def store(self, host: int | None = None) -> str:
        """Address by which a host knows the store; for None, the process that made the network."""
        return self._at(1 if self.isolated or host is None else _FIRST + host)

    def join(self, host: int) -> None:
        """Makes the calling process a host.

        Raises:
            OSError: If a namespace was to be had before, and isn't any more.
        """
        if not self.isolated:
            return
        _unshare(_NEW_NETWORK)
        centre = ("nsenter", "--target", str(self._centre), "--net")
        _ip(
            f"link add {_link(host)} type veth peer name eth0 netns {os.getpid()}",
            f"link set {_link(host)} master {_BRIDGE} up",
            within=centre,
        )
        _ip(f"addr add {self._at(_FIRST + host)}/24 dev eth0", "link set eth0 up", "link set lo up")

    def set_link(self, host: int, *, up: bool) -> None:
        """Cuts a host's link, or mends it; for the store, which is where the links end."""
        if self.isolated:
            _ip(f"link set {_link(host)} {'up' if up else 'down'}")

    def host(self, request: Mapping[str, Any]) -> int | None:
        """The host that a request (as WSGI has it) comes from; None for the network's maker."""
        address = request["REMOTE_ADDR"] if self.isolated else request["HTTP_HOST"].split(":")[0]
        number = int(address.rpartition(".")[2])
        return number - _FIRST if number >= _FIRST else None


def _link(host: int) -> str:
    return f"host{host}"


def _ip(*commands: str, within: tuple[str, ...] = ()) -> None:
    subprocess.run([*within, "ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _unshared() -> bool:
    """Gives this process a network of its own, as root or as root of nothing else; whether so."""
    user, group = os.getuid(), os.getgid()
    try:
        if user == 0:
            _unshare(_NEW_NETWORK)
            return True
        _unshare(_NEW_USER | _NEW_NETWORK)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {user} 1"),
            ("gid_map", f"0 {group} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)
    except (OSError, AttributeError):
        return False
    return True

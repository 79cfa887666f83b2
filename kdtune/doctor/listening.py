"""Find the listening sockets of kdtune, Ray and MLflow and who can reach them. Imports none of the three."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

#: Names of Ray's processes; its other processes are recognised by their command.
_RAY_NAMES = ("gcs_server", "raylet")
_RAY_PARTS = ("/ray/_private/", "/ray/dashboard/", "/ray/autoscaler/", "/ray/util/client/", "/execute/cluster/head.py")
#: Levels of parents searched for the authentication mode: a worker without one has its raylet's.
_PARENTS = 4


@dataclass(frozen=True)
class Listener:
    """A listening socket."""

    program: str
    """kdtune, Ray or MLflow."""
    process: str
    """Name of the process."""
    pid: int
    address: str
    """Host and port."""
    local: bool
    """Whether only this machine reaches it."""
    guarded: bool | None
    """Whether it asks for a token or a login; None if unknown."""


def listening() -> list[Listener]:
    """Return the listening TCP sockets of this user's kdtune, Ray and MLflow processes, sorted by program."""
    return sorted(_listeners(), key=lambda listener: (listener.program, listener.local, listener.pid, listener.address))


def _listeners() -> Iterator[Listener]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # the process may end at any time, or belong to another user
            if hasattr(os, "getuid") and process.uids().real != os.getuid():
                continue
            command = process.cmdline()
            program = _program(process.name(), command)
            if program is None:
                continue
            name, guarded = process.name(), None
            with suppress(psutil.Error, OSError):  # a parent or child that ends must not hide the socket
                guarded = _mlflow_guarded(command) if program == "MLflow" else _ray_guarded(process)
            for bound in _bound(process):
                host = _plain(bound[0])
                address = f"[{host}]:{bound[1]}" if host.version == 6 else f"{host}:{bound[1]}"
                yield Listener(program, name, process.pid, address, host.is_loopback, guarded)


def _bound(process: psutil.Process) -> set[tuple[str, int]]:
    """Return host and port of each listening socket.

    Reads them twice, because Linux may omit lines of its table that change during the read.
    """
    found = [*process.net_connections("inet"), *process.net_connections("inet")]
    return {(each.laddr[0], each.laddr[1]) for each in found if each.status == psutil.CONN_LISTEN}


def _program(name: str, command: list[str]) -> str | None:
    if name in _RAY_NAMES or name.startswith("ray::") or any(part in arg for arg in command for part in _RAY_PARTS):
        return "Ray"
    if any(arg == "mlflow" or arg.endswith("/mlflow") or arg.startswith("mlflow.server") for arg in command[:12]):
        return "MLflow"
    if any(arg == "kdtune" or arg.endswith("/kdtune") for arg in command[:3]):
        return "kdtune"
    return None


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address without its zone, and an IPv4-mapped IPv6 address as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _mlflow_guarded(command: list[str]) -> bool:
    return any("basic-auth" in arg or "mlflow.server.auth" in arg for arg in command)


def _ray_guarded(process: psutil.Process) -> bool | None:
    """Return whether a Ray process or a driver asks for a token; None if unknown."""
    for each in [process, *process.parents()[:_PARENTS]]:
        if (mode := _ray_mode(each)) is not None:
            return mode == "token"
    if process.name() in _RAY_NAMES:
        return False
    # A driver sets the mode after its start, so only its children show it.
    return True if "token" in map(_ray_mode, process.children()) else None


def _ray_mode(process: psutil.Process) -> str | None:
    """Return the process's Ray authentication mode; None if it has none, has ended or may not be read."""
    with suppress(psutil.Error, OSError):
        if (mode := process.environ().get("RAY_AUTH_MODE")) is not None:
            return mode.lower()
    return None

"""What of kdtune, Ray and MLflow listens on this machine, and who can reach it. Imports neither of them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

#: Names of Ray's processes; the others are told by their command.
_RAY_NAMES = ("gcs_server", "raylet")
_RAY_PARTS = ("/ray/_private/", "/ray/dashboard/", "/ray/autoscaler/", "/ray/util/client/", "/execute/cluster/head.py")
#: Levels of parents that are asked for the mode of authentication; a worker's is its raylet's, if not its own.
_PARENTS = 4


@dataclass(frozen=True)
class Door:
    """One listening socket."""

    program: str
    """kdtune, Ray or MLflow."""
    process: str
    pid: int
    address: str
    """Host and port."""
    local: bool
    """Whether only this machine reaches it."""
    guarded: bool | None
    """Whether it asks for a token or a login; None where that cannot be told."""


def listening() -> list[Door]:
    """Return the listening TCP sockets of this user's processes of kdtune, Ray and MLflow, by program and port."""
    return sorted(_doors(), key=lambda door: (door.program, door.local, door.pid, door.address))


def _doors() -> Iterator[Door]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it may end at any time, or be another user's
            if hasattr(os, "getuid") and process.uids().real != os.getuid():
                continue
            command = process.cmdline()
            program = _program(process.name(), command)
            if program is None:
                continue
            name, guarded = process.name(), None
            with suppress(psutil.Error, OSError):  # a parent or a child that ends hides no door
                guarded = _mlflow_guarded(command) if program == "MLflow" else _ray_guarded(process)
            for bound in _bound(process):
                host = _plain(bound[0])
                address = f"[{host}]:{bound[1]}" if host.version == 6 else f"{host}:{bound[1]}"
                yield Door(program, name, process.pid, address, host.is_loopback, guarded)


def _bound(process: psutil.Process) -> set[tuple[str, int]]:
    """Return host and port of each listening socket.

    Linux may leave out lines of its table that others change while it is read, so it is read twice.
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
    """The address, without its zone; an IPv4 address that is written as one of IPv6 as what it is."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _mlflow_guarded(command: list[str]) -> bool:
    return any("basic-auth" in arg or "mlflow.server.auth" in arg for arg in command)


def _ray_guarded(process: psutil.Process) -> bool | None:
    """Whether a process of Ray, or a driver, was started with a token asked for."""
    for each in [process, *process.parents()[:_PARENTS]]:
        if (mode := _ray_mode(each)) is not None:
            return mode == "token"
    if process.name() in _RAY_NAMES:
        return False
    # A driver sets the mode for its own Ray when it runs, which only its children show.
    return True if "token" in map(_ray_mode, process.children()) else None


def _ray_mode(process: psutil.Process) -> str | None:
    """Return Ray's mode of authentication in the process; None where it has none, has ended or may not be read."""
    with suppress(psutil.Error, OSError):
        if (mode := process.environ().get("RAY_AUTH_MODE")) is not None:
            return mode.lower()
    return None

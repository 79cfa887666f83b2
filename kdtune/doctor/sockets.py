"""`doctor`'s security findings: the folder of Ray's sockets, Ray's token, and every listening socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kdtune.doctor.finding import Finding
from kdtune.doctor.listening import Listener, listening
from kdtune.errors import ResourceError
from kdtune.execute.cluster.folder import private_folder


def socket_findings() -> Iterator[Finding]:
    """Yield a finding on Ray's folder, on a token that is not secure, and on each listening socket."""
    yield ray_folder()
    yield from token(Path.home() / ".ray" / "auth_token")
    found = listening()
    if not found:
        yield Finding("listens", "ok", "nothing of kdtune, Ray or MLflow, as far as this user can see")
    yield from map(socket_finding, found)


def ray_folder() -> Finding:
    """Return whether Ray's sockets can be put into a private folder."""
    try:
        with private_folder() as folder:
            return Finding("sockets", "ok", f"Ray's sockets go to {folder.parent}")
    except ResourceError as refusal:
        return Finding("sockets", "problem", str(refusal).strip())


def token(file: Path) -> Iterator[Finding]:
    """Yield a finding if the user has turned tokens off, and if other users can read the token in `file`."""
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() == "disabled":
        what = "a sweep's Ray asks for no token: any user of this machine can run code as you while it runs"
        yield Finding("token", "note", f"RAY_AUTH_MODE={mode}: {what}")
    try:
        readable = os.name == "posix" and all(path.stat().st_mode & 0o077 for path in (file, *file.parents[:2]))
    except OSError:
        return
    if readable:
        yield Finding("token", "note", f"other users can read {file}, which clusters ask for: chmod 600 {file}")


def socket_finding(listener: Listener) -> Finding:
    """Return the finding on a listening socket: a note if other machines can reach it, a problem if it lets anyone
    in."""
    reach = "only from this machine" if listener.local else "from every machine that reaches this one"
    key = "a login" if listener.program == "MLflow" else "a token"
    # MLflow's pages on loopback have no login by design; Ray's sockets run any code that they are sent.
    asks = {True: f"asks for {key}", False: f"asks for no {key.split()[1]}", None: ""}[listener.guarded]
    text = ", ".join(filter(None, [reach, asks]))
    open_to_all = listener.guarded is False and (not listener.local or listener.program != "MLflow")
    state = "problem" if open_to_all and not listener.local else "note" if open_to_all or not listener.local else "ok"
    name = f"{listener.program} {listener.process}" if listener.process != listener.program else listener.program
    return Finding("listens", state, f"{listener.address} {name} (process {listener.pid}): {text}")  # type: ignore[arg-type]

"""MLflow's web pages on this machine, over the database that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import socket
import sys
from typing import NoReturn

from kdtune.errors import Problem, UserError
from kdtune.tracking.location import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    artifact_folder,
    database_lock,
    database_path,
    is_server,
)
from kdtune.tracking.ranking import links
from kdtune.urls import SecretUrl

#: Environment variable that names the database to MLflow's server.
BACKEND = "MLFLOW_BACKEND_STORE_URI"
#: For the web pages only: no workers for language-model evaluation, which kdtune does not use.
SERVER_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def ui_environment(uri: SecretUrl | str) -> dict[str, str]:
    """Return variables for `ui_command`: the database. On the command line, `ps` would show its password to all."""
    return {BACKEND: SecretUrl.of(uri).reveal()}


def ui_command(uri: SecretUrl | str, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> list[str]:
    """Return the command that serves MLflow's pages over the database in `ui_environment`, to this machine only."""
    artifacts = artifact_folder(uri)
    names = dict.fromkeys(["localhost", "127.0.0.1", host])
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        # Runs that other programs log through this server keep their artifacts beside ours.
        *(() if artifacts is None else ("--artifacts-destination", str(artifacts))),
        *("--host", host, "--port", str(port), "--workers", "1"),
        # Browsers send host and port. Any other name comes from a foreign page that points at this machine.
        *("--allowed-hosts", ",".join(f"{name}:{port}" for name in names)),
    ]


def serve(uri: SecretUrl | str, port: int = DEFAULT_PORT) -> NoReturn:
    """Replace this process with MLflow's server on the loopback interface; Ctrl-C ends it.

    Raises:
        UserError: the URI names a server, its database does not exist yet, or the port is taken.
    """
    uri = SecretUrl.of(uri)
    if is_server(uri):
        what = f"{uri} is already served: open it in a browser"
        raise UserError([Problem("MLFLOW_TRACKING_URI", what)])
    database = database_path(uri)
    if database is not None:
        if not database.is_file():
            hint = "run a sweep first, or set MLFLOW_TRACKING_URI to another database"
            raise UserError([Problem("MLFLOW_TRACKING_URI", f"there is no database at {database}", hint)])
        with database_lock(database):
            pass  # wait for a sweep that is making the tables
    _refuse_taken(port)
    address = f"http://{DEFAULT_HOST}:{port}"
    print(f"MLflow shows {uri} on {address} (Ctrl-C ends it)", flush=True)
    for line in _links(uri, address):
        print(f"  {line}", flush=True)
    command = ui_command(uri, port=port)
    os.execve(command[0], command, {**SERVER_SETTINGS, **os.environ, **ui_environment(uri)})


def _links(uri: SecretUrl, address: str) -> list[str]:
    """Return a line with the address of each sweep's table, sorted by its objective."""
    try:
        return list(links(uri.reveal(), address))
    except Exception:  # such as a database of another version: MLflow's server explains that itself
        return []


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        # As the server does, so that a port whose owner has just ended counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((DEFAULT_HOST, port))
        except OSError as error:
            raise UserError([Problem("--port", f"{port} cannot be used: {error.strerror}", "a free port")]) from None

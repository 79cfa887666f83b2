"""Where MLflow keeps its runs, and its web pages on this machine. Nothing here imports mlflow, which takes seconds.

The embedded database is `mlflow/mlflow.db` below the working directory, with its artifacts beside it in
`mlflow/artifacts/`. The environment variable MLFLOW_TRACKING_URI names another database or a server.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from kdtune.errors import Problem, UserError
from kdtune.urls import SecretUrl

DEFAULT_URI = "sqlite:///mlflow/mlflow.db"
#: By which MLflow's server is told its database.
BACKEND = "MLFLOW_BACKEND_STORE_URI"
#: The login of a server.
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 5000

#: How kdtune wants MLflow to behave; what the user has set in the environment wins.
SETTINGS = {
    # The publisher itself tries again, so a request to a dead server must not take MLflow's usual four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # A pooled connection goes on writing into a database file that was deleted; a fresh one notices.
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

#: For the web pages alone: no workers for language-model evaluation, of which kdtune has none.
SERVER_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def tracking_uri() -> SecretUrl:
    """MLFLOW_TRACKING_URI, or the embedded database."""
    return SecretUrl(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)


def client_uri(uri: SecretUrl) -> str:
    """Return the URI for MLflow's client, without the login of a server.

    That goes into this process's environment, where MLflow looks for it with each request: for artifacts it asks the
    host alone, whatever login the URI has.
    """
    text = uri.reveal()
    try:
        parts = urlsplit(text)
        name, password = parts.username, parts.password
    except ValueError:  # MLflow itself says what is wrong with it
        return text
    if not is_server(uri) or name is None or password is None:
        return text
    os.environ[USERNAME], os.environ[PASSWORD] = unquote(name), unquote(password)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_server(uri: SecretUrl | str) -> bool:
    """Whether the URI names a running MLflow server and not a database."""
    return str(uri).startswith(("http://", "https://"))


def database_path(uri: SecretUrl | str) -> Path | None:
    """The file of a SQLite database; None for every other kind of URI."""
    prefix, text = "sqlite:///", SecretUrl.of(uri).reveal()
    return Path(text.removeprefix(prefix)).absolute() if text.startswith(prefix) else None


def artifact_folder(uri: SecretUrl | str) -> Path | None:
    """Where the embedded database's artifacts lie; None where MLflow's own default holds."""
    database = database_path(uri)
    return None if database is None else database.parent / "artifacts"


def database_lock(database: Path) -> FileLock:
    """Held while MLflow makes or checks its tables: several processes doing so in one new SQLite file fail."""
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(database.with_name(database.name + ".lock"), timeout=60)


def prepare_environment() -> None:
    """Call it before the first `import mlflow`: some of the settings are read only then."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def ui_environment(uri: SecretUrl | str) -> dict[str, str]:
    """Variables for `ui_command`: the database, whose password every user could read on a command line with `ps`."""
    return {BACKEND: SecretUrl.of(uri).reveal()}


def ui_command(uri: SecretUrl | str, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> list[str]:
    """The command that serves MLflow's pages over the database that `ui_environment` names.

    Only this machine's browsers are answered.
    """
    artifacts = artifact_folder(uri)
    names = dict.fromkeys(["localhost", "127.0.0.1", host])
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        # Runs that other programs write through this server keep their artifacts beside ours.
        *(() if artifacts is None else ("--artifacts-destination", str(artifacts))),
        *("--host", host, "--port", str(port), "--workers", "1"),
        # A browser names the host with its port; any other name is a page elsewhere that was pointed at this machine.
        *("--allowed-hosts", ",".join(f"{name}:{port}" for name in names)),
    ]


def serve(uri: SecretUrl | str, port: int = DEFAULT_PORT) -> NoReturn:
    """Become MLflow's server in the foreground, on the loopback interface; Ctrl-C ends it.

    Raises:
        UserError: the URI is itself a server, its database does not exist yet, or the port is taken.
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
            pass  # A sweep that is making the tables just now has finished.
    _refuse_taken(port)
    address = f"http://{DEFAULT_HOST}:{port}"
    print(f"MLflow shows {uri} on {address} (Ctrl-C ends it)", flush=True)
    for line in _links(uri, address):
        print(f"  {line}", flush=True)
    command = ui_command(uri, port=port)
    os.execve(command[0], command, {**SERVER_SETTINGS, **os.environ, **ui_environment(uri)})


def _links(uri: SecretUrl, address: str) -> list[str]:
    """Lines with the address of each sweep's table, best trials first."""
    from kdtune.tracking.ranking import links  # it imports mlflow

    try:
        return list(links(uri.reveal(), address))
    except Exception:  # a database of another version, say: MLflow's server says so itself, and what to do
        return []


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        # As the server does: a port whose last owner has just ended is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((DEFAULT_HOST, port))
        except OSError as error:
            raise UserError([Problem("--port", f"{port} cannot be used: {error.strerror}", "a free port")]) from None

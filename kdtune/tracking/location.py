"""Where MLflow keeps its runs, and how to serve its pages here. Does not import mlflow, which takes seconds.

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
#: Environment variable that names the database to MLflow's server.
BACKEND = "MLFLOW_BACKEND_STORE_URI"
#: Environment variables with the login of a server.
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 5000

#: MLflow settings for kdtune; variables that the user has set take precedence.
SETTINGS = {
    # The publisher retries itself, so a request to a dead server must not take MLflow's usual four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # A pooled connection keeps writing into a deleted database file; a fresh one notices.
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

#: What talking to MLflow sets in the environment.
MLFLOW_VARIABLES = (*SETTINGS, USERNAME, PASSWORD)

#: For the web pages only: no workers for language-model evaluation, which kdtune does not use.
SERVER_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def tracking_uri() -> SecretUrl:
    """Return MLFLOW_TRACKING_URI, or the embedded database."""
    return SecretUrl(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)


def client_uri(uri: SecretUrl) -> str:
    """Return the URI for MLflow's client, without a server's login.

    Puts the login into this process's environment, where MLflow reads it for each request: for artifacts it ignores the
    URI's login.
    """
    text = uri.reveal()
    try:
        parts = urlsplit(text)
        name, password = parts.username, parts.password
    except ValueError:  # MLflow reports what is wrong with it
        return text
    if not is_server(uri) or name is None or password is None:
        return text
    os.environ[USERNAME], os.environ[PASSWORD] = unquote(name), unquote(password)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_server(uri: SecretUrl | str) -> bool:
    """Return whether the URI names an MLflow server rather than a database."""
    return str(uri).startswith(("http://", "https://"))


def database_path(uri: SecretUrl | str) -> Path | None:
    """Return the file of a SQLite database; None for any other kind of URI."""
    prefix, text = "sqlite:///", SecretUrl.of(uri).reveal()
    return Path(text.removeprefix(prefix)).absolute() if text.startswith(prefix) else None


def artifact_folder(uri: SecretUrl | str) -> Path | None:
    """Return the folder of a SQLite database's artifacts; None if MLflow's own default applies."""
    database = database_path(uri)
    return None if database is None else database.parent / "artifacts"


def database_lock(database: Path) -> FileLock:
    """Return the lock to hold while MLflow makes or checks its tables: in a new SQLite file, concurrent attempts
    fail."""
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(database.with_name(database.name + ".lock"), timeout=60)


def prepare_environment() -> None:
    """Set SETTINGS in the environment. Call it before the first `import mlflow`, which reads some of them."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


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
    from kdtune.tracking.ranking import links  # it imports mlflow

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

"""Where MLflow keeps its runs, and the settings for it. Does not import mlflow, which takes seconds.

The embedded database is `mlflow/mlflow.db` below the working directory, with its artifacts beside it in
`mlflow/artifacts/`. The environment variable MLFLOW_TRACKING_URI names another database or a server.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from kdtune.urls import SecretUrl

DEFAULT_URI = "sqlite:///mlflow/mlflow.db"
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

"""Why MLflow takes no results, in a line that says what to do about it. Nothing here imports mlflow."""

from __future__ import annotations

import os

from kdtune.tracking.location import PASSWORD, USERNAME, is_server
from kdtune.urls import SecretUrl, redact

#: How MLflow's server answers a request whose Host header its --allowed-hosts does not name.
UNKNOWN_HOST = "Invalid Host header"
LONGEST = 200


def reason(error: Exception, uri: SecretUrl | str) -> str:
    """What stands between us and the MLflow at `uri`: a login, a permission, a name; else the error's own first line.

    That may carry pages of SQL, and is cut to a readable length.
    """
    uri = SecretUrl.of(uri)
    status = _status(error) if is_server(uri) else None
    user = os.environ.get(USERNAME) or uri.username
    if status == 401 and user:
        return f"it refuses the login of {user} (401); check {USERNAME} and {PASSWORD}"
    if status == 401:
        return f"it wants a login (401); set {USERNAME} and {PASSWORD}, or check ~/.mlflow/credentials"
    if status == 403 and UNKNOWN_HOST in str(error):
        return f"it does not answer to the name {uri.hostname} (403); its --allowed-hosts must hold it"
    if status == 403:
        who = user or "this login"
        return f"{who} may not write there (403); ask its administrator for the permission to edit the experiment"
    line = redact((str(error).strip() or type(error).__name__).splitlines()[0])
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _status(error: Exception) -> int | None:
    """The HTTP status of an answer: MLflow's own exceptions know it, and those of the library below."""
    of_mlflow = getattr(error, "get_http_status_code", None)
    if of_mlflow is not None:
        return int(of_mlflow())
    status = getattr(getattr(error, "response", None), "status_code", None)
    return None if status is None else int(status)

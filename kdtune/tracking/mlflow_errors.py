"""Turn MLflow's errors into one line that says what to do. Does not import mlflow."""

from __future__ import annotations

import os

from kdtune.tracking.location import PASSWORD, USERNAME, is_server
from kdtune.urls import SecretUrl, redact

#: MLflow's answer to a Host header that its --allowed-hosts lacks.
UNKNOWN_HOST = "Invalid Host header"
LONGEST = 200


def reason(error: Exception, uri: SecretUrl | str) -> str:
    """Return why the MLflow at `uri` refuses: login, permission or host name; else the error's first line.

    The line may hold pages of SQL, so it is cut to LONGEST characters.
    """
    uri = SecretUrl.of(uri)
    status = _status(error) if is_server(uri) else None
    user = os.environ.get(USERNAME) or uri.username
    if status == 401 and user:
        return f"it refuses the login of {user} (401); check {USERNAME} and {PASSWORD}"
    if status == 401:
        return f"it needs a login (401); set {USERNAME} and {PASSWORD}, or check ~/.mlflow/credentials"
    if status == 403 and UNKNOWN_HOST in str(error):
        return f"it does not answer to the name {uri.hostname} (403); add the name to its --allowed-hosts"
    if status == 403:
        who = user or "this login"
        return f"{who} may not write there (403); ask its administrator for the permission to edit the experiment"
    line = redact((str(error).strip() or type(error).__name__).splitlines()[0])
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _status(error: Exception) -> int | None:
    """Return the HTTP status in an exception of MLflow or requests, or None."""
    of_mlflow = getattr(error, "get_http_status_code", None)
    if of_mlflow is not None:
        return int(of_mlflow())
    status = getattr(getattr(error, "response", None), "status_code", None)
    return None if status is None else int(status)

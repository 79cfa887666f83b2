"""The command and the variables of a submitted job. Ray stores both and shows them to everyone who can reach it.

A job therefore carries no secrets. The machine that runs it has its own, in its environment or in the libraries' files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from kdtune.errors import Problem, UserError
from kdtune.store import StoreFiles
from kdtune.tracking.location import tracking_uri
from kdtune.urls import SecretUrl

#: MLflow's variables that are not passed to the job.
WITHHELD = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
#: Where a job can find a password instead.
OF_MLFLOW = "a URI without it; on the cluster's head ~/.mlflow/credentials, ~/.pgpass or the like"
OF_STORE = "a URL without it; on the cluster's machines the library's own configuration, as in FSSPEC_FTP_PASSWORD"
OF_ADDRESS = "an address without it; headers in RAY_JOB_HEADERS"


def refuse_secrets(store: StoreFiles, address: str) -> None:
    """Raise UserError if the job's command, its environment or the store would hold a secret."""
    named = {
        "--store": (store.place, "Ray would show with the job", OF_STORE),
        "MLFLOW_TRACKING_URI": (tracking_uri(), "Ray would show with the job", OF_MLFLOW),
        "--address": (SecretUrl(address), "the store would keep for `logs` and `stop`", OF_ADDRESS),
    }
    problems = [
        Problem(where, f"{url} has a password or token, which {who}", allowed)
        for where, (url, who, allowed) in named.items()
        if url.is_secret
    ]
    if problems:
        raise UserError(problems)


def variables() -> dict[str, str]:
    """Return the variables of this environment that tell the job where MLflow is."""
    told = (name for name in os.environ if name.startswith("MLFLOW_TRACKING_") and name not in WITHHELD)
    return {name: os.environ[name] for name in told}


def withheld() -> list[str]:
    """Return the secret variables that are set here and must be set on the job's machine as well."""
    return [name for name in WITHHELD if os.environ.get(name)]


def entrypoint(file: Path, sets: Sequence[str], store: StoreFiles, folder: Path) -> str:
    """Return the job's shell command."""
    command = ["python", "-m", "kdtune", "sweep", str(file), "--address", "auto", "--store", store.place.reveal()]
    for each in sets:
        command += ["--set", each]
    return f"cd {shlex.quote(str(folder))} && exec {shlex.join(command)}"

"""What a submitted job is told: its command and its variables. Ray keeps both, and shows them to all who reach it.

So no secret goes with a job. The machine that runs it has its own, in its environment or in the libraries' files.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from kdtune.errors import Problem, UserError
from kdtune.store import Store
from kdtune.tracking.location import tracking_uri
from kdtune.urls import SecretUrl

#: What is not handed over of the variables that say where MLflow is.
WITHHELD = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
#: Where the job finds a password.
OF_MLFLOW = "a URI without it; on the cluster's head ~/.mlflow/credentials, ~/.pgpass or the like"
OF_STORE = "a URL without it; on the cluster's machines the library's own configuration, as in FSSPEC_FTP_PASSWORD"
OF_ADDRESS = "an address without it; headers in RAY_JOB_HEADERS"


def refuse_secrets(store: Store, address: str) -> None:
    """Raise UserError where the job's command, its environment or the store would hold a secret."""
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
    """What the environment here says of MLflow's place, for the job's."""
    said = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_TRACKING_")}
    return {name: value for name, value in said.items() if name not in WITHHELD}


def withheld() -> list[str]:
    """Names of the variables that are set here and that the job has to find on its own machine."""
    return [name for name in WITHHELD if os.environ.get(name)]


def entrypoint(file: Path, sets: Sequence[str], store: Store, folder: Path) -> str:
    """Return the job's shell command."""
    command = ["python", "-m", "kdtune", "sweep", str(file), "--address", "auto", "--store", store.place.reveal()]
    for each in sets:
        command += ["--set", each]
    return f"cd {shlex.quote(str(folder))} && exec {shlex.join(command)}"

"""Submit a sweep as a Ray job; read its log and stop it from any machine that sees the store.

The job is the `sweep` command itself. It runs on the cluster's head, in the folder from which it was submitted, so the
cluster must see this folder and the store under the same paths.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from kdtune.calling import pasteable
from kdtune.config.sweep import SweepConfig
from kdtune.errors import Problem, ResourceError, UserError
from kdtune.execute.cluster.connect import CONNECT_S, TOKEN
from kdtune.execute.cluster.handover import entrypoint, refuse_secrets, variables
from kdtune.parse import JsonObject
from kdtune.scoped import environment
from kdtune.store import StoreFiles, SweepFiles
from kdtune.store.files import read_json, write_atomic, write_json
from kdtune.store.seal import passed_over
from kdtune.sweep.driver_life import DriverLife

Say = Callable[[str], object]

#: Seconds that a sweep has to write its checkpoints and end, before Ray ends its job.
STOP_S = 60.0
#: Seconds between two checks while waiting.
LOOK = 0.5
#: The form of a job server's address.
DASHBOARD = "that of the head's dashboard, as http://HEAD:8265"


def submit_sweep(
    sweep: SweepConfig, text: str, file: Path, sets: Sequence[str], store: StoreFiles, address: str, folder: Path
) -> str:
    """Start `sweep`, whose `text` was read from `file`, as a job in `folder`, and return the job's id.

    The text and the job's id go into the store, so the job does not need the original file; with a store behind a URL
    the job reads the original. The job gets the variables that locate MLflow, but no secret (handover.py).
    Raises UserError for a cluster that does not answer, a sweep that already runs, and URLs with passwords.
    """
    refuse_secrets(store, address)
    files, client = store.sweep(sweep.name).fetch(), _client(address)
    _refuse_running(DriverLife(store, sweep.name), sweep.name)
    store.claim()
    files.stop.unlink(missing_ok=True)
    write_atomic(files.submitted, text)
    files.publish()
    told = variables()
    submission_id = _submitted(
        client,
        address,
        entrypoint=entrypoint(files.submitted if store.mirror is None else file.absolute(), sets, store, folder),
        submission_id=f"kdtune-{sweep.name}-{secrets.token_hex(4)}",
        runtime_env={"env_vars": told} if told else {},
    )
    write_json(files.job, {"address": address, "submission_id": submission_id})
    files.publish()
    return submission_id


def show_logs(store: StoreFiles, name: str, follow: bool, write: Say) -> str:
    """Pass the output of the sweep's job to `write`, with `follow` until the job ends; return the job's state.

    Raises UserError if the sweep was not submitted, or its cluster or job is gone.
    """
    job = _job(store.sweep(name).fetch())
    if job is None:
        raise UserError([Problem(name, f"was not submitted from {store.root}", "a submitted sweep")])
    client = _client(job["address"])
    state = _state(client, job)
    if state is None:
        raise UserError([Problem(name, f"{job['address']} no longer knows its job {job['submission_id']}")])
    if follow:
        asyncio.run(_follow(client, job, write))
    else:
        write(client.get_job_logs(job["submission_id"]))
    return str(_state(client, job) or state).lower()


def stop_sweep(store: StoreFiles, name: str, say: Say, patience: float = STOP_S) -> None:
    """Make the driver of sweep `name` write checkpoints and end, wherever it runs, and wait for it.

    Ray ends a job that has not ended within `patience` seconds. Raises UserError if nobody runs the sweep, and if a
    driver that is not a job does not end.
    """
    files = store.sweep(name).fetch()
    life = DriverLife(store, name)
    job, driver = _running_job(files), life.alive()
    if job is None and driver is None:
        raise UserError([Problem(name, f"is not running in {store.root}", "a running sweep")])
    write_atomic(files.stop, "")
    files.publish()
    say(f"{name}: asked to stop; its trials write their checkpoints")
    try:
        if not _wait(life, patience):
            _end(life, name, say, patience)
    finally:
        files.stop.unlink(missing_ok=True)
    say(f"{name}: stopped; run the same command again to resume from the last checkpoints")


def _submitted(client: JobSubmissionClient, address: str, **job: Any) -> str:
    """Submit the job and return its id. Wait for a cluster that has just started."""
    deadline = time.monotonic() + STOP_S
    while True:
        try:
            return client.submit_job(**job)
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                reason = str(error).strip().splitlines()[-1]
                raise ResourceError([Problem(address, f"did not accept the job: {reason}")]) from None
        time.sleep(LOOK)


# ---- jobs ------------------------------------------------------------------------------------------------------------


def _refuse_running(life: DriverLife, name: str) -> None:
    driver, job = life.alive(), _running_job(life.files)
    if job is not None:
        where = f"as job {job['submission_id']} on {job['address']}"
    elif driver is not None:
        where = f"on {driver.host} as process {driver.pid}"
    else:
        return
    raise UserError([Problem(name, f"is still running {where}", f"`{pasteable('stop', name)}` first")])


def _job(files: SweepFiles) -> JsonObject | None:
    return passed_over(lambda: read_json(files.job, ("address", "submission_id")), None)


def _running_job(files: SweepFiles) -> dict[str, str] | None:
    """Return the sweep's last job, or None if it has ended, as it has if its cluster does not answer."""
    job = _job(files)
    if job is None:
        return None
    try:
        state = _state(_client(job["address"]), job)
    except _Unreachable:
        return None
    return None if state is None or state.is_terminal() else job


def _state(client: JobSubmissionClient, job: dict[str, str]) -> JobStatus | None:
    """Return the job's state, or None if the cluster does not know it, because it is another or was restarted."""
    try:
        return client.get_job_status(job["submission_id"])
    except RuntimeError as error:
        if "status code 404" not in str(error):
            raise
        return None


async def _follow(client: JobSubmissionClient, job: dict[str, str], write: Say) -> None:
    async for text in client.tail_job_logs(job["submission_id"]):
        write(text)


def _wait(life: DriverLife, patience: float) -> bool:
    """Wait up to `patience` seconds for the driver and the job; return whether both have ended."""
    deadline = time.monotonic() + patience
    files = life.files
    while (driver := life.alive()) is not None or _running_job(files) is not None:
        if time.monotonic() > deadline:
            return False
        if driver is not None and not files.stop.exists():
            files.stop.touch()  # a driver that has just started may have removed it as a leftover
        time.sleep(LOOK)
    return True


def _end(life: DriverLife, name: str, say: Say, patience: float) -> None:
    job, driver, late = _running_job(life.files), life.alive(), f"has not ended within {patience:.0f} s"
    if job is not None:
        say(f"{name}: {late}; Ray ends the job {job['submission_id']}")
        _client(job["address"]).stop_job(job["submission_id"])
        if not _wait(life, STOP_S):
            what = f"Ray has not ended the job {job['submission_id']}"
            raise UserError([Problem(name, what, f"see {job['address']}")])
    elif driver is not None:
        raise UserError([Problem(name, late, f"end process {driver.pid} on {driver.host}")])


# ---- the job server --------------------------------------------------------------------------------------------------


class _Unreachable(ResourceError):
    """No job server answers at the address."""


def _client(address: str) -> JobSubmissionClient:
    """Return a client of the job server at `address`. Raises UserError if it cannot be reached."""
    place = urlsplit(address)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise ResourceError([Problem(address, "is not the address of a job server", DASHBOARD)])
    try:
        # Ray itself waits for the system's timeout, which is minutes.
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((place.hostname, port), CONNECT_S).close()
        # These variables override the address in Ray.
        with environment({"RAY_API_SERVER_ADDRESS": None, "RAY_ADDRESS": None}):
            return JobSubmissionClient(address)
    except AuthenticationError:
        raise ResourceError([Problem(address, "asks for the cluster's token", TOKEN)]) from None
    except (OSError, requests.RequestException) as error:
        raise _Unreachable([Problem(address, f"no Ray job server answers: {error}", DASHBOARD)]) from None
    except RuntimeError as error:
        raise ResourceError([Problem(address, str(error))]) from None

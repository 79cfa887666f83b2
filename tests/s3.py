"""A real S3-compatible server on this machine: SeaweedFS, in a process of its own, stopped and started at will."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
from servers import free_ports

from kdtune.store import StoreFiles

#: Function that opens the store as a machine of this name, with its own working copy.
Machines = Callable[[str], StoreFiles]

BUCKET, SECRET = "kdtune", "a-secret-of-the-tests"
#: The server's users and permissions.
WRITER, READER = "writer", "reader"


def weed() -> str | None:
    """Return the path of the server's program, or None. The extra `dev` installs it."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


class S3Server:
    """The server. Its content survives `stop`."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self.program = folder, program
        self.process: subprocess.Popen[bytes] | None = None
        names = [f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer") for kind in ("", ".grpc")]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.endpoint = f"http://127.0.0.1:{self.ports['s3.port']}"
        (folder / "data").mkdir(parents=True)
        may = {WRITER: ["Admin", "Read", "List", "Write"], READER: ["Read", "List"]}
        identities = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": actions}
            for name, actions in may.items()
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}))

    def start(self) -> None:
        """Start the server and return when it answers."""
        options = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.config": self.folder / "s3.json",
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.heartbeatInterval": "100ms",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 50,
            **self.ports,
        }
        command = [
            self.program,
            "-logtostderr",
            "server",
            "-s3",
            *(f"-{name}={value}" for name, value in options.items()),
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                fs = self.files()
                if not fs.exists(BUCKET):
                    fs.mkdir(BUCKET)
                fs.pipe_file(f"{BUCKET}/ready", b"yes")  # its volume server has joined
                return
            except Exception:  # errors of botocore, aiohttp and the system
                assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.1)

    def stop(self) -> None:
        """Kill the server, as in a power cut."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def files(self) -> fsspec.AbstractFileSystem:
        """Return a separate client."""
        return s3_files(self.endpoint, WRITER, SECRET)

    def settings(self, user: str = WRITER) -> str:
        """Return the content of a file for AWS_CONFIG_FILE."""
        lines = [f"aws_access_key_id = {user}", f"aws_secret_access_key = {SECRET}", "region = us-east-1"]
        return "\n".join(["[default]", *lines, f"endpoint_url = {self.endpoint}", ""])


def s3_files(endpoint: str, key: str, secret: str) -> fsspec.AbstractFileSystem:
    """Return a client of the server at `endpoint` that does not cache or retry."""
    fs = fsspec.filesystem(
        "s3",
        key=key,
        secret=secret,
        endpoint_url=endpoint,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={"retries": {"max_attempts": 0}},
    )
    fs.retries = 1
    return fs

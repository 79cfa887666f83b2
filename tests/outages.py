"""A real MLflow server that tests stop, freeze and restart; a proxy that is slow or loses answers; and counts of what
the server's database holds.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

from servers import answers, wait_until

from kdtune.tracking.location import DEFAULT_HOST
from kdtune.tracking.serve import SERVER_SETTINGS, ui_command, ui_environment


class Server:
    """MLflow's server on a SQLite database, in processes of its own."""

    def __init__(self, port: int) -> None:
        self.port, self.address = port, f"http://{DEFAULT_HOST}:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, database: Path) -> None:
        """Start on this database, creating it if missing, and return when the server answers."""
        database.parent.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{database}"
        command = ui_command(uri, port=self.port)
        # Its own session, so that the server's helpers are stopped with it.
        self._process = subprocess.Popen(
            [*command, "--allowed-hosts", "*"],
            env={**SERVER_SETTINGS, **os.environ, **ui_environment(uri)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: answers(f"{self.address}/health", self._process), "MLflow's server answers")

    def freeze(self) -> None:
        """Freeze its processes. The system still accepts connections for it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)


class Proxy:
    """Forwards connections to a port of this machine: late by `delay_s`, or dropping the answers to some requests."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.delay_s = 0.0
        """Delay before each part of an answer, in seconds."""
        self.loses: Counter[str] = Counter()
        """Words of a request → number of answers to lose. The server has carried these requests out."""
        self._listener = socket.create_server((DEFAULT_HOST, 0))
        self.address = f"http://{DEFAULT_HOST}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with closing(client), suppress(OSError), socket.create_connection((DEFAULT_HOST, self._to)) as server:
            request = b""
            with selectors.DefaultSelector() as ready:
                for side in (client, server):
                    ready.register(side, selectors.EVENT_READ)
                while True:
                    for key, _ in ready.select():
                        content = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                        if not content:
                            return
                        if key.fileobj is client:
                            request = content if content.startswith((b"GET", b"POST", b"PUT", b"PATCH")) else request
                            server.sendall(content)
                            continue
                        time.sleep(self.delay_s)
                        if self._loses(request):
                            return
                        client.sendall(content)

    def _loses(self, request: bytes) -> bool:
        for words, left in self.loses.items():
            if left > 0 and words.encode() in request.split(b"\r\n")[0]:
                self.loses[words] -= 1
                return True
        return False


class Database:
    """Counts in MLflow's tables. A client would hide duplicates."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, query: str) -> list[tuple]:
        if not self.path.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=60)) as connection:
                return connection.execute(query).fetchall()
        except sqlite3.OperationalError:  # the tables are being created
            return []

    def count(self, table: str, where: str = "1") -> int:
        """Count rows of a table that belong to runs that are not deleted."""
        of = f"run_uuid IN (SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active') AND {where}"
        return int(self.ask(f"SELECT count(*) FROM {table} WHERE {of}")[0][0])

    def tag(self, name: str) -> list[str]:
        """Return the values of a tag over all runs, sorted."""
        of = "(SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active')"
        return sorted(
            value for (value,) in self.ask(f"SELECT value FROM tags WHERE key = '{name}' AND run_uuid IN {of}")
        )

    def statuses(self) -> Counter[str]:
        return Counter(status for (status,) in self.ask("SELECT status FROM runs WHERE lifecycle_stage = 'active'"))


def python(*arguments: str | Path) -> list[str]:
    """Return a command of this interpreter."""
    return [sys.executable, *map(str, arguments)]

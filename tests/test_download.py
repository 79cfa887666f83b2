"""`data download` against a server on this machine that cuts, cannot resume, changes its file, or sends another one."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from downloads import Place, bsdtar, official, serving, small_hmdb51, small_ucf101

from kdtune.cli import main
from kdtune.clips.catalog import load_catalog
from kdtune.config.load import check_sweep
from kdtune.download import official as places
from kdtune.download.fetch import Fetch
from kdtune.download.official import HMDB51, UCF101, Official
from kdtune.errors import DataError
from kdtune.plan.plan import plan
from kdtune.store import StoreFiles

RAR = UCF101.videos.name
NO_WAIT = (0.0, 0.0, 0.0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    bsdtar(tmp_path / "bin")


@pytest.fixture
def place(here: None) -> Iterator[Place]:
    with serving(small_ucf101()) as place:
        yield place


def fetched(source: Official, folder: Path) -> list[str]:
    """Download, and return what was said."""
    said: list[str] = []
    assert Fetch(source, folder, said.append, NO_WAIT).run(lambda terms: True)
    return said


def refused(source: Official, folder: Path) -> str:
    with pytest.raises(DataError) as error:
        fetched(source, folder)
    return str(error.value)


def arrived(folder: Path) -> int:
    return len(list(folder.glob("*/*.avi")))


def test_what_the_command_prints_is_a_data_set_that_plan_reads_and_it_is_loaded_once(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(places.OFFICIAL, "ucf101", official(UCF101, place))
    folder = tmp_path / "ucf"
    command = ["data", "download", "ucf101", "--to", str(folder), "--yes"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "licence" in err
    assert "MiB to download" in err
    data = f"{{dataset: ucf101, root: {folder}, lists: {folder}/lists}}"
    assert f"  data: {data}" in out
    sweep = check_sweep({"name": "a", "search": {"space": {}, "candidates": 1}}, [f"trial.data={data}"])
    assert any("training 8, validation 2" in line for line in plan(sweep, StoreFiles(tmp_path / "runs")))
    assert not (folder / ".download").exists()
    asked = len(place.requests)
    assert main(command) == 0
    assert "holds all 12 videos already" in capsys.readouterr().err
    assert len(place.requests) == asked


@pytest.mark.usefixtures("here")
def test_hmdb51_is_an_archive_of_archives(tmp_path: Path) -> None:
    with serving(small_hmdb51()) as place:
        source = official(HMDB51, place)
        said = fetched(source, tmp_path / "hmdb")
    assert len(load_catalog(Fetch(source, tmp_path / "hmdb", print).data)) == 8
    assert any("no official digest is published" in line for line in said)
    assert not list((tmp_path / "hmdb").rglob("*.rar"))


def test_a_cut_connection_is_resumed_where_it_ended(place: Place, tmp_path: Path) -> None:
    place.cuts = [1000, 500]
    fetched(official(UCF101, place), tmp_path)
    assert [asked for name, asked in place.requests if name == RAR] == [None, "bytes=1000-", "bytes=1500-"]
    assert arrived(tmp_path) == 12


def test_an_interrupted_command_resumes_with_the_same_command(place: Place, tmp_path: Path) -> None:
    place.cuts = [1000, 0, 0, 0]
    text = refused(official(UCF101, place), tmp_path)
    assert "3 times without a new byte" in text
    assert f"what has come is kept in {tmp_path}/.download/{RAR}.part" in text
    place.requests.clear()
    fetched(official(UCF101, place), tmp_path)
    assert place.requests == [(RAR, "bytes=1000-")]
    assert arrived(tmp_path) == 12


def test_a_server_that_cannot_resume_sends_the_file_from_its_beginning(place: Place, tmp_path: Path) -> None:
    place.ranges, place.cuts = False, [1000]
    said = fetched(official(UCF101, place), tmp_path)
    assert f"{RAR}: the server cannot resume: it is downloaded from its beginning" in said
    assert arrived(tmp_path) == 12


def test_a_file_that_changes_meanwhile_is_not_mixed_with_the_old_one(place: Place, tmp_path: Path) -> None:
    place.cuts = [1000, 0, 0, 0]
    refused(official(UCF101, place), tmp_path)
    place.files.update(small_ucf101(b"two"))
    said = fetched(official(UCF101, place), tmp_path)
    assert f"{RAR}: the file has changed on the server: it is downloaded from its beginning" in said
    assert all(path.read_bytes().endswith(b"two") for path in tmp_path.glob("*/*.avi"))


def test_a_wrong_digest_and_a_wrong_size_are_refused_and_set_aside(place: Place, tmp_path: Path) -> None:
    good = official(UCF101, place)
    bad = replace(good, lists=replace(good.lists, sha256="0" * 64))
    assert "but the official file has 0000" in refused(bad, tmp_path)
    assert (tmp_path / ".download" / f"{UCF101.lists.name}.wrong").exists()
    longer = replace(good, videos=replace(good.videos, size=good.videos.size + 1))
    assert f"but the official file has {good.videos.size + 1:,}" in refused(longer, tmp_path)
    fetched(good, tmp_path)
    assert arrived(tmp_path) == 12


def test_a_later_download_is_compared_with_the_first(place: Place, tmp_path: Path) -> None:
    fetched(official(UCF101, place), tmp_path)
    next(iter(tmp_path.glob("*/*.avi"))).unlink()
    place.files.update(small_ucf101(b"two"))
    assert "it was changed at its place" in refused(official(UCF101, place), tmp_path)
    (tmp_path / "download.json").unlink()
    fetched(official(UCF101, place), tmp_path)
    assert arrived(tmp_path) == 12


def test_without_a_program_that_reads_rar_nothing_is_downloaded(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin" / "bsdtar").rename(tmp_path / "bin" / "7z")  # it is called in another way and fails
    text = refused(official(UCF101, place), tmp_path / "ucf")
    assert f"{tmp_path}/bin/7z does not read RAR" in text
    assert "apt install" in text
    (tmp_path / "bin" / "7z").unlink()
    assert "no program that unpacks RAR is installed" in refused(official(UCF101, place), tmp_path / "ucf")
    assert not place.requests


def test_without_the_space_nothing_is_downloaded(small_disk: Path, place: Place) -> None:
    assert "free, but archives and videos need" in refused(official(UCF101, place), small_disk / "ucf")
    assert not place.requests


def test_a_page_in_place_of_a_file_and_a_missing_one_are_said(place: Place, tmp_path: Path) -> None:
    place.pages = {RAR}
    text = refused(official(UCF101, place), tmp_path)
    assert f"{place.url}/gone/{RAR}: the server answers 404 Not Found" in text
    assert f"{place.url}/{RAR}: the server answers with a page" in text
    assert f"save it as {tmp_path}/.download/{RAR}" in text
    (tmp_path / ".download" / RAR).write_bytes(place.files[RAR])  # as the message says
    fetched(official(UCF101, place), tmp_path)
    assert arrived(tmp_path) == 12


def test_a_video_that_is_not_in_the_archive_is_missed(place: Place, tmp_path: Path) -> None:
    assert "holds 12 videos, but there are 13" in refused(official(UCF101, place, count=13), tmp_path)


def test_other_files_in_the_way_are_kept(place: Place, tmp_path: Path) -> None:
    own = tmp_path / "Run" / "v_Run_g02_c01.avi"
    own.parent.mkdir()
    own.write_bytes(b"my own")
    assert "holds other files of the same names: Run/v_Run_g02_c01.avi" in refused(official(UCF101, place), tmp_path)
    assert own.read_bytes() == b"my own"


def test_it_asks_on_a_terminal_and_refuses_where_nobody_answers(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(places.OFFICIAL, "ucf101", official(UCF101, place))
    command = ["data", "download", "ucf101", "--to", str(tmp_path / "ucf")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(command) == 2
    assert "--yes to agree" in capsys.readouterr().err
    answer = io.StringIO("n\n")
    monkeypatch.setattr(answer, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", answer)
    assert main(command) == 0
    assert "nothing was downloaded" in capsys.readouterr().err
    assert not place.requests

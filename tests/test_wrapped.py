"""Weights wrapped by training tools, and files that are damaged or hostile."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import fuzz, fuzzed
from hypothesis import strategies as st
from published_networks import config, pretrained, refusal, saved
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdtune.cli import main
from kdtune.errors import EXIT_OK, EXIT_USER_ERROR, StoreError
from kdtune.store import StoreFiles
from kdtune.train.importing.foreign import read_foreign
from kdtune.train.importing.imports import import_checkpoint
from kdtune.train.profile import state_digest

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return pretrained().state_dict()


@pytest.fixture(scope="module")
def average(state: State) -> State:
    return {**state, "fc.bias": state["fc.bias"] + 0.5}


@pytest.fixture(scope="module")
def expected(state: State, tmp_path_factory: pytest.TempPathFactory) -> str:
    return state_digest(read_foreign(saved(tmp_path_factory.mktemp("plain"), state), config()).tensors)


def named(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


WRAPPED: dict[str, tuple[Callable[[State], Any], str]] = {
    "torch.compile": (lambda s: named(s, "_orig_mod."), "without the prefix _orig_mod."),
    "Lightning": (
        lambda s: {"state_dict": named(s, "model."), "epoch": 3},
        "from state_dict, without the prefix model.",
    ),
    "DDP of a compiled module": (lambda s: named(s, "module._orig_mod."), "without the prefix module._orig_mod."),
    "Lightning, compiled": (
        lambda s: {"state_dict": named(s, "net._orig_mod.")},
        "from state_dict, without the prefix net._orig_mod.",
    ),
    "AveragedModel": (
        lambda s: {"n_averaged": torch.tensor(7), **named(s, "module.")},
        "without the prefix module.",
    ),
    "an average alone": (lambda s: {"ema": named(s, "module."), "optimizer": {"state": {0: {}}}}, "from ema, without"),
    "containers in containers": (lambda s: {"checkpoint": {"model": {"network": s}}}, "from checkpoint.model.network"),
    "model_ema": (lambda s: {"model_ema": {"shadow": s}, "lr": 0.1}, "from model_ema.shadow"),
    "the same twice": (lambda s: {"model": s, "ema": dict(s)}, "from model"),
    "beside another state": (lambda s: {"state_dict": s, "bank": {"memory": torch.zeros(3)}}, "from state_dict"),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_what_wrappers_add_is_taken_off_and_said(wrapping: str, state: State, expected: str, tmp_path: Path) -> None:
    wrap, words = WRAPPED[wrapping]
    weights = read_foreign(saved(tmp_path, wrap(state)), config())
    assert state_digest(weights.tensors) == expected
    assert weights.heads == ("head", "projector")
    assert weights.found.startswith(words)


def test_real_wrappers(state: State, expected: str, tmp_path: Path) -> None:
    network = pretrained()
    network.load_state_dict(state)
    for wrapper in (nn.DataParallel(network), AveragedModel(network), nn.DataParallel(AveragedModel(network))):
        file = saved(tmp_path, {"epoch": 1, "state_dict": wrapper.state_dict()})
        assert state_digest(read_foreign(file, config()).tensors) == expected


def test_of_several_state_dicts_the_user_says_which(
    state: State, average: State, expected: str, tmp_path: Path, store: StoreFiles
) -> None:
    other = state_digest(read_foreign(saved(tmp_path, average), config()).tensors)
    assert other != expected
    for content, paths in (
        ({"model": state, "model_ema": named(average, "module.")}, ("model", "model_ema")),
        (
            {"state_dict": {**named(state, "net."), **named(average, "ema.module.")}},
            ("state_dict.net", "state_dict.ema"),
        ),
        ({**named(state, "student."), **named(average, "teacher.")}, ("student", "teacher")),
    ):
        file = saved(tmp_path, content)
        said = refusal(lambda file=file: import_checkpoint(file, config(), store))
        assert f"holds several state dicts of this network: {', '.join(paths)}" in said
        assert f"(allowed: --weights {' | '.join(paths)})" in said
        for path, sha256 in zip(paths, (expected, other), strict=True):
            assert state_digest(read_foreign(file, config(), path).tensors) == sha256
        said = refusal(lambda file=file: read_foreign(file, config(), "nothing"))
        assert "--weights: got nothing" in said
        assert all(path in said for path in paths)


def test_the_command_takes_one_of_several_and_says_where_it_was(
    state: State, average: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path, {"model": named(state, "module."), "ema": average})
    command = ["teacher", "import", str(file), "--store", str(tmp_path / "runs")]
    command += ["--set", "student.width=4", "--set", "clip.frames=8", "--set", "clip.size=16"]
    assert main(command) == EXIT_USER_ERROR
    assert "choose one with --weights" in capsys.readouterr().err
    assert main([*command, "--weights", "model"]) == EXIT_OK
    assert "; from model, without the prefix module." in capsys.readouterr().err


def test_names_beside_a_wrapped_network_are_not_left_out(state: State, tmp_path: Path) -> None:
    file = saved(tmp_path, {"state_dict": {**named(state, "model."), "criterion.weight": torch.zeros(2)}})
    assert "criterion.weight: is unknown" in refusal(lambda: read_foreign(file, config()))
    assert read_foreign(file, config(), "state_dict.model").heads == ("head", "projector")


# ---- damaged and hostile files ---------------------------------------------------------------------------------------

HOSTILE: dict[str, tuple[Callable[[State], State], str]] = {
    "NaN": (lambda s: {**s, "fc.bias": torch.full((5,), torch.nan)}, "fc.bias: is not finite in 5 of 5 places"),
    "complex": (lambda s: {**s, "fc.bias": torch.zeros(5, dtype=torch.complex64)}, "got the type torch.complex64"),
    "quantised": (
        lambda s: {**s, "fc.bias": torch.quantize_per_tensor(torch.zeros(5), 0.1, 0, torch.qint8)},
        "fc.bias: is sparse, quantised",
    ),
    "meta": (lambda s: {**s, "fc.bias": torch.zeros(5, device="meta")}, "fc.bias: is sparse, quantised or without"),
    "huge": (lambda s: {**s, "fc.weight": torch.zeros(1).expand(10**12, 96)}, "stores fewer numbers"),
    "repeated": (lambda s: {**s, "fc.bias": torch.zeros(1).expand(5)}, "stores fewer numbers"),
    "surrogates": (lambda s: {**s, "a\ud800": torch.zeros(2)}, "a\\ud800: is unknown"),
    "an empty name": (lambda s: {**s, "": torch.zeros(2)}, "is unknown"),
    "dots": (lambda s: {"...": torch.zeros(2)}, "is missing"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tensors_are_refused(kind: str, state: State, tmp_path: Path) -> None:
    change, words = HOSTILE[kind]
    assert words in refusal(lambda: read_foreign(saved(tmp_path, change(state)), config()))


def test_hostile_files_end_with_one_message(state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = saved(tmp_path, state).read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(50_000_000))
    contents = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "pickle": pickle.dumps({"a": print}),
        "compressed": packed.getvalue(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "absent", "a\0b"):
        assert main(["teacher", "import", str(tmp_path / name), "--store", str(tmp_path / "runs")]) == EXIT_USER_ERROR
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert said.count("\n") <= 3, said


def test_a_file_saved_without_checksums_is_read(state: State, expected: str, tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        file = saved(tmp_path, state)
    finally:
        torch.serialization.set_crc32_options(True)
    assert state_digest(read_foreign(file, config()).tensors) == expected


@fuzzed
def test_turned_bytes_are_refused_or_change_nothing(examples: int, state: State, expected: str, tmp_path: Path) -> None:
    whole, file = saved(tmp_path, state).read_bytes(), tmp_path / "turned.pt"

    def check(turns: list[tuple[float, int]], keep: float) -> None:
        content = bytearray(whole)
        for share, byte in turns:
            content[int(share * len(content))] ^= byte
        file.write_bytes(content[: int(keep * len(content))] if keep < 0.9 else content)
        try:
            weights = read_foreign(file, config())
        except StoreError:
            return
        assert state_digest(weights.tensors) == expected

    place = st.floats(0, 1, exclude_max=True)
    fuzz(
        check,
        st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=4),
        st.floats(0, 5),
        examples=examples,
    )


@fuzzed
def test_any_prefixes_and_containers_are_found_through(
    examples: int, state: State, average: State, expected: str, tmp_path: Path
) -> None:
    part = st.one_of(st.sampled_from(["module", "_orig_mod", "model", "ema"]), st.text(max_size=6))
    file = tmp_path / "wrapped.pt"

    def check(prefixes: list[str], containers: list[str], beside: bool) -> None:
        content: Any = named(state, "".join(f"{prefix}." for prefix in prefixes))
        for container in containers:
            content = {container: content, **({"epoch": 1} if container != "epoch" else {})}
        content = {"mine": content, "theirs": average} if beside else content
        torch.save(content, file)
        if beside:
            with pytest.raises(StoreError):
                read_foreign(file, config())
        else:
            assert state_digest(read_foreign(file, config()).tensors) == expected

    fuzz(check, st.lists(part, max_size=3), st.lists(part, max_size=4), st.booleans(), examples=examples // 4)

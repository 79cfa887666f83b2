"""Names by content (DESIGN 4.2): what a trial's key hashes, and what it leaves out."""

from __future__ import annotations

import pytest
from helpers import run_python

from kdtune.config import key as key_module
from kdtune.config.key import canonical, restored, trial_key
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig

TEACHER = {"student": {"backbone": "c3d"}}


def key_of(raw: dict, manifest: str = "manifest") -> str:
    return trial_key(TrialConfig.model_validate(raw), lambda _: manifest)


# ---- equal trials have equal keys ------------------------------------------------------------------------------------


def test_defaults_are_filled_in_before_hashing() -> None:
    for raw in ({}, {"teacher": TEACHER}):
        full = TrialConfig.model_validate(raw).model_dump(by_alias=True)
        assert full["loss"]["tau"] == 4.0
        assert key_of(full) == key_of(raw)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"stages": {"early": 50, "mid": 150, "late": 200}}, {}),
        ({"clip": {"resize": [128, 171]}}, {}),
        ({"data": {"fraction": 1}}, {"data": {"fraction": 1.0}}),
        ({"teacher": "none"}, {}),
        ({"teacher": {**TEACHER, "epochs": 200}}, {"teacher": TEACHER}),
    ],
)
def test_what_is_written_out_is_what_was_left_out(a: dict, b: dict) -> None:
    assert key_of(a) == key_of(b)


@pytest.mark.parametrize(
    ("base", "without_effect"),
    [
        ({}, {"loss": {"lambda": 0.3}}),
        ({}, {"loss": {"tau": 1.5}}),
        ({}, {"loss": {"lambda": 0.0}}),
        ({"loss": {"lambda": 0.0}}, {"loss": {"lambda": 0.0, "tau": 1.5}}),
        ({}, {"loss": {"lambda": 0.0}, "teacher": TEACHER}),
        ({"loss": {"contrast": "in_batch"}}, {"loss": {"contrast": "in_batch", "negatives": 7}}),
        ({"loss": {"contrast": "in_batch"}}, {"loss": {"contrast": "in_batch", "bank_momentum": 0.1}}),
        ({"loss": {"alpha": 0.0}}, {"loss": {"alpha": 0.0, "contrast": "in_batch", "temperature": 1.0}}),
        ({"loss": {"alpha": 0.0}}, {"loss": {"alpha": 0.0, "negatives": 7, "bank_momentum": 0.1}}),
        ({"student": {"backbone": "c3d"}}, {"student": {"backbone": "c3d", "depth": 18}}),
        ({}, {"student": {"init": "torch"}}),
        ({"student": {"backbone": "tdn_light"}}, {"student": {"backbone": "tdn_light", "init": "kaiming"}}),
        ({"student": {"backbone": "r3d_18"}}, {"student": {"backbone": "r3d_18", "init": "torch"}}),
        ({"imported": "0" * 32}, {"imported": "0" * 32, "student": {"init": "kaiming"}}),
        ({"optimizer": {"schedule": "constant"}}, {"optimizer": {"schedule": "constant", "patience": 3}}),
        ({"optimizer": {"schedule": "constant"}}, {"optimizer": {"schedule": "constant", "factor": 0.5, "min_lr": 0}}),
        # A plateau of 50 epochs cannot occur in 8: the trainer makes no scheduler, so none of its fields has an effect.
        ({"epochs": 8}, {"epochs": 8, "optimizer": {"patience": 60}}),
        ({"epochs": 8}, {"epochs": 8, "optimizer": {"schedule": "constant"}}),
        ({}, {"data": {"root": "/elsewhere"}}),
        ({}, {"data": {"lists": "/elsewhere"}}),
        ({"teacher": TEACHER}, {"teacher": {**TEACHER, "data": {"root": "/elsewhere"}}}),
        ({"teacher": TEACHER}, {"teacher": {**TEACHER, "loss": {"tau": 1.5}}}),
    ],
    ids=str,
)
def test_fields_without_effect_are_left_out(base: dict, without_effect: dict) -> None:
    assert key_of(without_effect) == key_of(base)


# ---- different trials have different keys ----------------------------------------------------------------------------

WITH_EFFECT = [
    {},
    {"data": {"dataset": "hmdb51"}},
    {"data": {"split": 2}},
    {"data": {"fraction": 0.25}},
    {"data": {"subset_seed": 1}},
    {"data": {"validation": 0.1}},
    {"clip": {"frames": 16}},
    {"clip": {"size": 64}},
    {"clip": {"resize": [112, 150]}},
    {"clip": {"stride": "vcop"}},
    {"clip": {"interval": 4}},
    {"clip": {"modality": "rgb"}},
    {"pretext": {"spatial": "random"}},
    {"pretext": {"temporal": "adjacent"}},
    {"pretext": {"remote": "either"}},
    {"augment": {"hue": 0.0}},
    {"augment": {"flip_p": 0.0}},
    {"student": {"backbone": "r21d"}},
    {"student": {"backbone": "c3d"}},
    {"student": {"depth": 18}},
    {"student": {"init": "kaiming"}},
    {"student": {"backbone": "c3d", "init": "kaiming"}},
    {"student": {"backbone": "tdn_light"}},
    {"student": {"backbone": "tdn_light", "init": "torch"}},
    {"student": {"width": 8}},
    {"loss": {"alpha": 0.1}},
    {"loss": {"contrast": "in_batch"}},
    {"loss": {"contrast": "in_batch", "temperature": 0.1}},
    {"loss": {"temperature": 0.1}},
    {"loss": {"negatives": 7}},
    {"loss": {"bank_momentum": 0.1}},
    {"loss": {"projection": 64}},
    {"optimizer": {"lr": 0.1}},
    {"optimizer": {"patience": 3}},
    {"optimizer": {"schedule": "constant"}},
    {"epochs": 100},
    {"stages": {"early": 1, "late": 200}},
    {"evaluation": {"neighbors": 5}},
    {"seed": 1},
    {"threads": 2},
    {"teacher": TEACHER},
    {"teacher": {**TEACHER, "seed": 1}},
    {"teacher": {"student": {"backbone": "r3d"}}},
    {"teacher": {**TEACHER, "teacher": {"student": {"backbone": "r3d"}}}},
    {"teacher": TEACHER, "loss": {"lambda": 0.3}},
    {"teacher": TEACHER, "loss": {"tau": 1.5}},
]


def test_whatever_changes_figures_changes_the_key() -> None:
    keys: dict[str, dict] = {}
    for raw in WITH_EFFECT:
        key = key_of(raw)
        assert key not in keys, f"{raw} and {keys[key]} have one key"
        keys[key] = raw


def test_the_data_are_named_by_their_manifest_also_the_teachers() -> None:
    assert key_of({}, "a") != key_of({}, "b")
    raw = TrialConfig.model_validate({"teacher": {"data": {"split": 2}}})

    def manifest(of_split_2: str):
        return lambda data: {1: "one", 2: of_split_2}[data.split]

    assert trial_key(raw, manifest("two")) != trial_key(raw, manifest("other"))
    # The data of a teacher without effect is not needed.
    scratch = TrialConfig.model_validate({"teacher": {"data": {"split": 2}}, "loss": {"lambda": 0.0}})
    assert trial_key(scratch, manifest("two")) == trial_key(scratch, manifest("other"))


def test_the_trainers_semantics_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of({}), key_of({"teacher": TEACHER})
    monkeypatch.setattr(key_module, "TRAINER_SEMANTICS", key_module.TRAINER_SEMANTICS + 1)
    after = key_of({}), key_of({"teacher": TEACHER})
    assert len({*before, *after}) == 4


# ---- keys do not change by accident ----------------------------------------------------------------------------------

#: If these change, every existing store loses its trials: change them only on purpose, with TRAINER_SEMANTICS.
GOLDEN = {
    "scratch": ({}, "43db3f07d6041e184e3b4726bd5a74b9"),
    "distilled": (
        {"teacher": TEACHER, "data": {"fraction": 0.25}, "clip": {"size": 32}},
        "15fa78adbdc4eafbb0e7bca1b26ad4ce",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_key_of_a_fixed_configuration_stays(name: str) -> None:
    raw, golden = GOLDEN[name]
    assert key_of(raw) == golden


@pytest.mark.parametrize("salt", [1, 2])
def test_keys_are_the_same_in_another_process(salt: int) -> None:
    raw = GOLDEN["distilled"][0]
    code = f"""
from kdtune.config.key import canonical, restored, trial_key
from kdtune.config.trial import TrialConfig
print(trial_key(TrialConfig.model_validate({raw!r}), lambda _: "manifest"))
"""
    assert run_python(code, hash_seed=salt).stdout.strip() == key_of(raw)


def test_a_trial_of_few_epochs_is_restored_from_its_form() -> None:
    for epochs in range(1, 9):
        config = TrialConfig(epochs=epochs)
        assert canonical(restored(canonical(config), None, None)) == canonical(config)


def test_a_key_is_a_good_file_name() -> None:
    key = key_of({})
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")
    assert DataConfig(root="/a").folder == "/a"

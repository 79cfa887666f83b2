"""Import weights into the store as a trial: from a published checkpoint, or from another store's trial."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import yaml

from kdtune.config.key import TRAINER_SEMANTICS, canonical, digest, identity
from kdtune.config.sections import DataConfig
from kdtune.config.trial import TrialConfig
from kdtune.config.view import SEEN
from kdtune.errors import DamageError, Problem, StoreError
from kdtune.parse import JsonObject
from kdtune.store import StoreFiles, TrialFiles
from kdtune.store.contents import ResultRecord
from kdtune.store.files import file_sha256, read_json, write_atomic, write_json
from kdtune.store.records import RESULT
from kdtune.train.checkpoint import final_weights, first_names, not_finite_tensors, trained_weights
from kdtune.train.importing.foreign import read_foreign
from kdtune.train.profile import state_digest
from kdtune.train.soundness import read_result

#: Files that every complete trial has.
REQUIRED_FILES = ("config.json", "checkpoint.pt", "result.json")
#: Files that are copied if present; imported weights have no epochs.
OPTIONAL_FILES = ("data.json", "epochs.jsonl", "classes_*.json")

#: Fields of a trial's records that listing and looking it up need.
TRAINED_FORM, IMPORTED_FORM = {"trial", "data", "teacher", "start", "semantics"}, {"student", "clip", "target"}


# ---- a published checkpoint ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Imported:
    """The trial that a published checkpoint became."""

    key: str
    """Key of the trial in the store."""
    imported: str
    """The value of `imported:` in a sweep file: the first 32 hex digits of the SHA-256 over the tensors."""
    layout: str
    """pcl or torchvision."""
    heads: tuple[str, ...]
    """Those that the file holds besides the backbone: head, projector."""
    files: TrialFiles
    found: str = field(default="", compare=False)
    """Where in the file the weights were and which prefix was removed, in words."""


def import_checkpoint(file: Path, config: TrialConfig, store: StoreFiles, chosen: str | None = None) -> Imported:
    """Store the weights in `file` as a trial with the network, the clips and the target of `config`.

    The same weights give the same trial whatever the file's name; if that trial's files are damaged, they are written
    again. `chosen` names one of several state dicts in the file. Raises StoreError with every problem of the file.
    """
    weights = read_foreign(file, config, chosen)
    sha256 = state_digest(weights.tensors)
    if config.imported not in (None, sha256[:32]):
        what = f"holds other weights than the configuration names: {sha256[:32]}"
        raise StoreError.at(file, what, f"imported: {config.imported}")
    form = identity(config.model_copy(update={"imported": sha256[:32]}), _no_manifest)
    files = store.trial(digest(form))
    with store.lock(f"trial-{files.key}"):
        if not _holds(files, sha256):
            files.clear_failure()
            write_json(files.config, form)
            buffer = io.BytesIO()
            torch.save({"network": weights.tensors}, buffer)
            write_atomic(files.checkpoint, buffer.getvalue())
            # Last: a trial with a result is complete.
            files.write_result(
                {
                    "epochs": 0,
                    "stages": {},
                    "weights_sha256": sha256,
                    "seconds": 0.0,
                    "profile": None,
                    "imported": {
                        "source": file.name,
                        "layout": weights.layout,
                        "heads": list(weights.heads),
                        "sha256": file_sha256(file),
                    },
                }
            )
    return Imported(files.key, sha256[:32], weights.layout, weights.heads, files, weights.found)


def _holds(files: TrialFiles, sha256: str) -> bool:
    """Return whether the trial is complete and holds these weights undamaged."""
    try:
        return state_digest(trained_weights(files.fetch(files.checkpoint))) == sha256
    except StoreError:
        return False


def _no_manifest(data: DataConfig) -> str:
    raise AssertionError("imported weights belong to no data set")


def yaml_lines(imported: Imported, config: TrialConfig, name: str) -> str:
    """Return the lines to paste under `teachers:`. They hold all that the key depends on, so they fit every sweep."""
    clip = {field: getattr(config.clip, field) for field in SEEN}
    loss = {"target": config.loss.target}
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*", name) and yaml.safe_load(name) == name
    # Quoted, because some hex digits parse as a number.
    lines = [f"{name if plain else json.dumps(name)}:", f'  imported: "{imported.imported}"']
    for section, values in (("student", canonical(config)["student"]), ("clip", clip), ("loss", loss)):
        flow = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=1000)
        lines.append(f"  {section}: {flow.strip()}")
    return "\n".join(f"  {line}" for line in lines)


# ---- a trial of another store ----------------------------------------------------------------------------------------


def import_trial(folder: Path, store: StoreFiles) -> str:
    """Copy the complete trial `<other store>/trials/<key>/` into `store`; return its key.

    A trial that the store already has stays, unless its files are damaged. Raises StoreError and changes nothing if the
    trial is incomplete, its files disagree, or another version of the trainer made it.
    """
    source = TrialFiles(folder.resolve())
    result = _checked_records(source)
    target = store.trial(source.key)
    with store.lock(f"trial-{source.key}"):
        if _holds(target, result["weights_sha256"]):
            return source.key
        here = _result(target)
        if here is not None and here["weights_sha256"] != result["weights_sha256"]:
            # The same trial from another kind of machine. Trials here may have learned from the one in the store.
            what = "is in the store already, with other weights; remove it there to take this one"
            raise StoreError.at(source.folder, what)
        # We hold the lock, so files under these names are leftovers of an interrupted import.
        copy = TrialFiles(target.folder.with_name(f".{source.key}.import"))
        replaced = target.folder.with_name(f".{source.key}.replaced")
        for leftover in (copy.folder, replaced):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            for pattern in (*REQUIRED_FILES, *OPTIONAL_FILES):
                for file in source.folder.glob(pattern):
                    write_atomic(copy.folder / file.name, file.read_bytes())
            _check_weights(copy.checkpoint, result["weights_sha256"], source.checkpoint)
            if target.folder.exists():  # begun here, but incomplete
                os.replace(target.folder, replaced)
            os.replace(copy.folder, target.folder)
            target.publish()
        finally:
            for leftover in (copy.folder, replaced):
                shutil.rmtree(leftover, ignore_errors=True)
    return source.key


def _result(files: TrialFiles) -> ResultRecord | None:
    """Return the result, or None if the trial is incomplete or its result damaged."""
    try:
        return read_result(files)
    except DamageError:
        return None


def _checked_records(source: TrialFiles) -> JsonObject:
    """Return the result of a trial after checking that its records fit its name and this version.

    Raises StoreError with every problem.
    """
    if not source.folder.is_dir():
        raise StoreError.at(source.folder, "is not a trial's folder")
    missing = [name for name in REQUIRED_FILES if not (source.folder / name).is_file()]
    if missing:
        what = f"is not a complete trial: {', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing"
        raise StoreError.at(source.folder, what)
    form, result = (read_json(path) or {} for path in (source.config, source.result_file))
    problems = []
    try:
        key = digest(form)
    except ValueError:  # NaN, which no trial's identity has
        key = "nothing"
    if key != source.key:
        what = f"does not belong to this trial: it hashes to {key}, but the folder is named {source.key}"
        problems.append(Problem(str(source.config), what))
    result_fields = {*RESULT, *(("imported",) if "imported" in form else ())} - {"weights_sha256"}  # reported below
    for path, record, fields in (
        (source.config, form, IMPORTED_FORM if "imported" in form else TRAINED_FORM),
        (source.result_file, result, result_fields),
    ):
        if lacking := sorted(fields - record.keys()):
            problems.append(Problem(str(path), f"lacks {', '.join(lacking)}"))
    weights = result.get("weights_sha256")
    if not isinstance(weights, str):
        problems.append(Problem(str(source.result_file), "names no weights_sha256"))
    elif "imported" in form and form["imported"] != weights[:32]:
        problems.append(Problem(str(source.config), f"names the weights {form['imported']}, the result {weights}"))
    if "imported" not in form and form.get("semantics") != TRAINER_SEMANTICS:
        what = f"was made by semantics {form.get('semantics')} of the trainer"
        problems.append(Problem(str(source.config), what, str(TRAINER_SEMANTICS)))
    if problems:
        raise StoreError(problems)
    return result


def _check_weights(copy: Path, sha256: str, source: Path) -> None:
    """Raise StoreError if a copied checkpoint does not hold the weights that the result names."""
    try:
        weights = final_weights(copy)
        found = state_digest(weights)
    except StoreError as error:
        raise StoreError([replace(problem, where=str(source)) for problem in error.problems]) from error
    except (TypeError, RuntimeError) as error:  # tensors without plain bytes
        raise StoreError.at(source, "is not a trial's checkpoint") from error
    if bad := not_finite_tensors(weights):
        raise StoreError.at(source, f"its weights are not finite: {first_names(bad)}")
    if found != sha256:
        raise StoreError.at(source, f"holds weights with SHA-256 {found}, but the result names {sha256}")

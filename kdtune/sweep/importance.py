"""Which searched values mattered, in Optuna's words: read from the sweep's journal."""

from __future__ import annotations

import math
import warnings
from typing import Any

import optuna
from optuna.importance import get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kdtune.errors import DamageError
from kdtune.parse import problem_of
from kdtune.store import SweepFiles
from kdtune.store.seal import note_damage
from kdtune.sweep.study import study_name

#: With fewer complete candidates than this nothing can be told from the rest.
LEAST = 4


def importances(files: SweepFiles, record: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Block → parameter → its share of the importance (their sum is 1), the largest first; of the first objective.

    Blocks without enough complete candidates, and parameters of one value, are left out; so is all where the journal
    is missing or damaged, for it is only a view: the sweep's next run writes it again.
    """
    path = files.study(files.folder / record["ledger"])
    if not path.exists():
        return {}
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        names = optuna.get_all_study_names(storage)
        studies = {name: optuna.load_study(study_name=name, storage=storage) for name in names}
    except Exception as error:  # Optuna raises whatever a damaged line leads it to
        note_damage(DamageError([problem_of(path, error, "Optuna's journal")]))
        return {}
    found = {}
    for block in record["blocks"]:
        study = studies.get(study_name(record["name"], block))
        shares = _shares(study) if study is not None else {}
        if shares:
            found[block] = shares
    return found


def _shares(study: optuna.Study) -> dict[str, float]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    searched = {name for trial in complete for name, values in trial.distributions.items() if not values.single()}
    if len(complete) < LEAST or not searched:
        return {}
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1

    def first(trial: FrozenTrial) -> float:
        return sign * trial.values[0]  # Optuna's default evaluator asks what makes a target low

    target = first if len(study.directions) > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(study, target=target)
    shares = {name: float(share) for name, share in found.items() if name in searched and math.isfinite(share)}
    total = sum(shares.values())
    if total <= 0:
        return {}
    return {name: shares[name] / total for name in sorted(shares, key=lambda name: (-shares[name], name))}

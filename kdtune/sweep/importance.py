"""Estimate how much each searched parameter matters, with Optuna, from the sweep's journal."""

from __future__ import annotations

import math
import warnings

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kdtune.errors import DamageError
from kdtune.history.record import SweepRecord
from kdtune.parse import problem_of
from kdtune.store import SweepFiles
from kdtune.store.seal import note_damage
from kdtune.sweep.study import study_name

#: Minimum number of complete candidates of a block for an estimate.
LEAST = 4
#: Share of the candidates that count as the best: a parameter matters if its values there differ from those of all.
BEST = 0.1


def importances(files: SweepFiles, record: SweepRecord) -> dict[str, dict[str, float]]:
    """Return block → parameter → share of the importance for the first objective.

    A block's shares sum to 1, the largest first. Blocks with too few complete candidates and parameters of one value
    are left out. If the journal is missing or damaged, the result is empty; the sweep's next run rewrites it.

    The estimate is PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023, arXiv:2304.10255). It draws nothing at random.
    """
    path = files.study(files.folder / record.ledger)
    if not path.exists():
        return {}
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        names = {study_name(record.name, block): block for block in record.blocks}
        there = [name for name in optuna.get_all_study_names(storage) if name in names]
        studies = {names[name]: optuna.load_study(study_name=name, storage=storage) for name in there}
    except Exception as error:  # a damaged line can make Optuna raise anything
        note_damage(DamageError([problem_of(path, error, "Optuna's journal")]))
        return {}
    shares = {block: _shares(studies[block]) for block in record.blocks if block in studies}
    return {block: found for block, found in shares.items() if found}


def _shares(study: optuna.Study) -> dict[str, float]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    searched = {name for trial in complete for name, values in trial.distributions.items() if not values.single()}
    if len(complete) < LEAST or not searched:
        return {}
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1

    def first(trial: FrozenTrial) -> float:
        return sign * trial.values[0]  # the evaluator treats low targets as good

    target = first if len(study.directions) > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST, region_quantile=1.0, evaluate_on_local=True)
        found = get_param_importances(study, evaluator=evaluator, target=target, normalize=True)
    shares = {name: float(share) for name, share in found.items() if name in searched and math.isfinite(share)}
    total = sum(shares.values())
    if total <= 0:
        return {}
    return {name: shares[name] / total for name in sorted(shares, key=lambda name: (-shares[name], name))}

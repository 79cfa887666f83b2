"""The history of a sweep: typed events, folded into a SweepHistory.

    from kdtune.history.reading import read_history

    history = read_history(StoreFiles("runs"), "lambda_tau")
    history.counts()                        # {"complete": 10, "pruned": 4, …}
    history.best("fraction=1.0")            # [the best candidate], or the Pareto set of several objectives
    history.gains("fraction=1.0")           # {candidate: Gain}, in history.metric.unit; more is better

events.py: the events · rows.py: reads them from rows · record.py: the sweep's record · metric.py: metrics and the
format of their figures · groups.py: groups · blocks.py: blocks of groups · race.py: the race of a block · folded.py:
folds the events · sweep.py: SweepHistory · front.py: best candidates and Pareto sets · gains.py: gains with intervals ·
racing.py: the statistics of races · progress.py: time left, and the state as JSON · reading.py: reads the store, at
once or while the sweep runs · trials.py: the records of each trial.
"""

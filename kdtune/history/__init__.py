"""What happened in a sweep, read in one place: typed events, folded into a SweepHistory.

    from kdtune.history.reading import read_history

    history = read_history(Store("runs"), "lambda_tau")
    history.counts()                        # {"complete": 10, "pruned": 4, …}
    history.best("fraction=1.0")            # [the best candidate], or the Pareto set of several objectives
    history.gains("fraction=1.0")           # {candidate: Gain}, in history.metric.unit, more is better

events.py: the events · record.py: the sweep's record · metric.py: what a metric is and how its figures read ·
groups.py: groups and blocks · sweep.py: SweepHistory · front.py: bests and Pareto sets · gains.py: gains with their
intervals · progress.py: time left, and the state as JSON · reading.py: from the store, at once or while it runs ·
trials.py: what the store holds of each trial.
"""

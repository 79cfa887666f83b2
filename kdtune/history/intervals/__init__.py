"""Intervals of means, shares and their differences, as functions of numbers alone.

means.py: Student's t over seeds, and over paired videos · shares.py: Wilson, Newcombe, Clopper and Pearson ·
crossed.py: seeds and videos at once · deciding.py: the decisions of a race's look, for many blocks at once.
"""

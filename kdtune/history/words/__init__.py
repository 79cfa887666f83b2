"""The one wording of what a sweep's history says.

answer.py: the answer to the sweep's question · verdicts.py: verdicts, intervals and what would decide · names.py: names
of candidates, controls and parameters.
"""

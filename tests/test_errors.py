"""Errors that are passed between processes."""

from __future__ import annotations

import pickle

import pytest

from kdtune.errors import ConfigError, DamageError, DataError, LockLost, Problem, ResourceError, StoreError, UserError


@pytest.mark.parametrize(
    "kind",
    [UserError, ConfigError, DataError, StoreError, LockLost, DamageError, ResourceError],
    ids=lambda k: k.__name__,
)
def test_an_error_of_a_worker_says_here_what_it_said_there(kind: type[UserError]) -> None:
    error = kind([Problem("a.yaml:3: x", "is wrong", "1, 2"), Problem("y", "is missing")])
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), found.problems, str(found)) == (kind, error.problems, str(error))

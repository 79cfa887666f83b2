"""A store of trials as users see it: the names of its sweeps, its trials, its teachers."""

from __future__ import annotations

from pathlib import Path

from kdtune.api.trial import Trial
from kdtune.errors import Problem, StoreError
from kdtune.names import quoted
from kdtune.store import StoreFiles
from kdtune.store.places import check_place, check_readable, default_place
from kdtune.urls import SecretUrl


class Store:
    """A store of trials and sweeps: a folder, or a URL as in `s3://bucket/path`.

    >>> store = kdtune.Store("runs")
    >>> store
    Store('runs')
    >>> store.sweeps()
    ['tiny']
    >>> store.trial(key[:8]).state
    'complete'
    """

    def __init__(self, place: str | Path | None = None, *, option: str = "store") -> None:
        """Open a store. Nothing is written before something is trained.

        Args:
            place: a folder, which need not exist yet, or a URL. Default: the variable KDTUNE_STORE, or `runs`.
            option: name of the place in errors.

        Raises StoreError for another kind of place, a folder that cannot be read, or a store of another version.
        """
        named = str(default_place() if place is None else place)
        check_place(named, option)
        self.files = StoreFiles(named)
        """Every path of the store, for code that needs the files themselves."""
        if self.files.mirror is None:
            check_readable(self.files.root, option)
        self.files.check_version()
        self._shown = str(SecretUrl(named))

    def __repr__(self) -> str:
        return f"Store({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.files.place.reveal() == other.files.place.reveal()

    def __hash__(self) -> int:
        return hash(self.files.place.reveal())

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps that were run with this store, in alphabetical order.

        >>> kdtune.Store("runs").sweeps()
        ['tiny']
        """
        return self.files.sweeps()

    def trials(self) -> list[Trial]:
        """Return every trial that has begun, ordered by key.

        >>> {trial.state for trial in kdtune.Store("runs").trials()}
        {'complete'}
        """
        return [Trial(self, files.key) for files in self.files.trials()]

    def trial(self, key: str) -> Trial:
        """Return the trial whose key is, or begins with, `key`.

        Raises StoreError if there is none, or more than one.

        >>> kdtune.Store("runs").trial("nothing")
        Traceback (most recent call last):
        ...
        kdtune.errors.StoreError:   ...: holds no trial whose key begins with 'nothing'
        """
        found = [files.key for files in self.files.trials() if files.key.startswith(key)]
        if len(found) != 1 and key not in found:
            what = f"holds {len(found) or 'no'} trial{'s' * (len(found) > 1)} whose key begins with {quoted(key)}"
            raise StoreError([Problem(str(self.files.place), what, ", ".join(found[:5]))])
        return Trial(self, key if key in found else found[0])

    def teachers(self) -> list[Trial]:
        """Return the complete trials that another trial can learn from or start from, as `kdtune teacher list` does.

        >>> kdtune.Store("runs").teachers()[0].result.epochs
        2
        """
        from kdtune.report.teachers import teacher_rows

        return [Trial(self, row["key"]) for row in teacher_rows(self.files)]


def store_of(store: Store | str | Path | None) -> Store:
    """Return the store that an argument `store=` names."""
    return store if isinstance(store, Store) else Store(store)

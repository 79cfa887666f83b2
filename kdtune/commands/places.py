"""Open the store that a command's options name, and check it before any work."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kdtune.store.places import default_place
from kdtune.urls import SecretUrl

if TYPE_CHECKING:
    from kdtune.store import StoreFiles


def store_words(options: argparse.Namespace) -> list[str]:
    """Return `--store` as a printed command needs it: empty for the default store; a URL without its secrets."""
    return [] if options.store == default_place() else ["--store", str(SecretUrl(options.store))]


def reading(options: argparse.Namespace) -> StoreFiles:
    """Return the store to read. Raises StoreError where `--store` is neither a folder nor a URL."""
    from kdtune.api.store import Store

    return Store(options.store, option="--store").files


def writing(options: argparse.Namespace) -> StoreFiles:
    """Return the store to write to. Raises StoreError where it cannot be written, OSError for a full disk."""
    store = reading(options)
    store.check()
    return store

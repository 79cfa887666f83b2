"""The store: every path and file name, atomic writes, locks; behind a URL as well."""

from kdtune.store.store import STORE_VERSION, TARGET_COUNTS, Store, SweepFiles, TrialFiles

__all__ = ["STORE_VERSION", "TARGET_COUNTS", "Store", "SweepFiles", "TrialFiles"]

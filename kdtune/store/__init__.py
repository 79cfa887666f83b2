"""The store, a folder or a URL: every path and file name, atomic writes, checksums and locks."""

from kdtune.store.store import STORE_VERSION, TARGET_COUNTS, StoreFiles, SweepFiles, TrialFiles

__all__ = ["STORE_VERSION", "TARGET_COUNTS", "StoreFiles", "SweepFiles", "TrialFiles"]

"""Helper processes that inherit neither the threads nor the main module of the process that starts them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext

_one_at_a_time = threading.RLock()


def fork_server(preload: str) -> BaseContext:
    """Return the start method that forks helpers from a server process, which imports the module `preload` once.

    A direct fork copies every lock of this process as it is. One that another thread holds at that moment, such as a
    library's, is never released in the child, which then hangs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


@contextmanager
def isolated_start() -> Iterator[None]:
    """Helpers started within the context never receive SIGINT and do not run the program's main module.

    Ctrl-C reaches every process of a terminal, but only the process that started the helpers handles it. The main
    module may be a script without an `if __name__ == "__main__"` guard, which would run again in each helper.
    """
    main = sys.modules["__main__"]
    with _one_at_a_time:
        hidden: dict[str, object] = {
            name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)
        }
        main.__spec__ = None
        resource_tracker.ensure_running()  # it would unblock SIGINT when it starts
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new processes inherit it
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            vars(main).update(hidden)


def end_with_parent(*_: object) -> None:
    """End this helper when the process that started it dies; otherwise it would wait for work for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

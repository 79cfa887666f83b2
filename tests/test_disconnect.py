"""The end of a sweep's connection to Ray must not end the process."""

from __future__ import annotations

from helpers import run_python

SCRIPT = """
import gc, threading
import ray
from ray._private.worker import global_worker
from kdtune.execute.cluster.connect import connect, disconnect

class Core:
    '''Ray's core, with an object of its in garbage; when it has ended, another thread makes more of that, as the one
    that talks to MLflow does.'''

    def __init__(self, core, object_ref):
        self.core, self.cycle = core, [object_ref]
        self.cycle.append(self.cycle)

    def __getattr__(self, name):
        return getattr(self.core, name)

    def shutdown_driver(self):
        del self.cycle
        self.core.shutdown_driver()
        thread = threading.Thread(target=lambda: [[[] for _ in range(1000)] for _ in range(1000)])
        thread.start()
        thread.join()

connect(ADDRESS)
global_worker.core_worker = Core(global_worker.core_worker, ray.put(1))
END()
print("books closed", gc.isenabled())
"""


def test_garbage_in_another_thread_does_not_end_the_process(ray_address: str) -> None:
    script = SCRIPT.replace("ADDRESS", repr(ray_address))
    end = run_python(script.replace("END", "disconnect"))
    assert "books closed True" in end.stdout, end.stderr
    # What disconnect() prevents: Ray alone would end the process silently.
    bare = run_python(script.replace("END", "ray.shutdown"), check=False)
    assert bare.returncode != 0
    assert "books closed" not in bare.stdout

"""anyio's worker threads do their work where they are called, as executors do: there are no threads.

Frameworks (Starlette) have functions that aren't coroutines, and access to files, done by `anyio.to_thread`, whose
threads are anyio's own. asyncio installs this finder, which changes one method when anyio's backend is imported.
"""

import contextvars
import sys
from importlib.machinery import PathFinder

BACKEND = "anyio._backends._asyncio"


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != BACKEND:
            return None
        sys.meta_path.remove(Finder)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                backend = getattr(module, "AsyncIOBackend", None)
                if backend is not None:  # anyio 4
                    backend.run_sync_in_worker_thread = classmethod(run_sync_in_worker_thread)

            spec.loader.exec_module = exec_module
        return spec


async def run_sync_in_worker_thread(backend, func, args, abandon_on_cancel=False, limiter=None):
    await backend.checkpoint()
    async with limiter or backend.current_default_thread_limiter():
        return contextvars.copy_context().run(func, *args)


def install():
    sys.meta_path.insert(0, Finder)

"""Labels of processes, changed here and in the store. Composition of the runtime."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from timecraftd.embedded import Runtime
from timecraftd.errors import NotFoundError, RemoteError
from timecraftd.labels import merged
from timecraftd.model import ProcessRecord
from timecraftd.recorder.labelling import relabel_stored


def relabel(
    runtime: Runtime, process: ProcessRecord, added: Mapping[str, str], removed: Iterable[str]
) -> ProcessRecord:
    """Changes labels of a process, and of what is in the store of it; as it is now.

    What isn't there yet gets them on its way. Raises UsageError, NotFoundError, RemoteError.
    """
    gone = list(removed)
    labels = merged(process.labels, added, gone)
    runtime.registry.catalogue.update(process.id, labels=labels)
    if runtime.remote is None:
        return replace(process, labels=labels)
    try:
        stored = runtime.remote.run(lambda store: relabel_stored(store, process.id, added, gone))
    except RemoteError as error:
        raise RemoteError(
            f"process {process.id}: has these labels here, but not in the store: {error}",
            "do it again when the store can be reached",
        ) from None
    if stored is None and not os.path.isdir(runtime.registry.home.process_dir(process.id)):
        raise NotFoundError(f"process {process.id}: isn't in {runtime.remote.url} any more", "somebody has deleted it")
    return replace(process, labels=labels)

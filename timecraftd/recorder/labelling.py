"""Labels of a process in a store: they are in its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from timecraftd.errors import NotFoundError, RemoteError
from timecraftd.labels import HOLD, Labels, merged
from timecraftd.model import ProcessId, ProcessRecord
from timecraftd.recorder.manifest import Manifest, decode_manifest, deleted_key, encode_manifest, manifest_key
from timecraftd.recorder.remote import ConflictError, RemoteStore

ATTEMPTS_MAX = 8


async def relabel_stored(
    store: RemoteStore, process_id: ProcessId, added: Mapping[str, str], removed: Iterable[str]
) -> Labels | None:
    """Changes labels in a manifest; what they are now, None if there is no manifest.

    What has the label `hold` after that isn't deleted: who deletes looks at the manifest after having said so, and we
    look for that after having put the manifest. Raises RemoteError, LogDamagedError, UsageError.
    """
    for _ in range(ATTEMPTS_MAX):
        try:
            data, etag = await store.get_tagged(manifest_key(process_id))
        except NotFoundError:
            return None
        manifest = decode_manifest(data, process_id)
        labels = merged(manifest.process.labels, added, removed)
        if labels != manifest.process.labels:
            process = replace(manifest.process, labels=labels)
            changed = replace(manifest, process=process, version=manifest.version + 1)
            try:
                await store.put(manifest_key(process_id), encode_manifest(changed), if_match=etag)
            except ConflictError:
                continue  # somebody else's, or our own, whose answer got lost
        if await store.head(deleted_key(process_id)) is not None:
            raise RemoteError(f"process {process_id}: is being deleted from {store.url}", "try again, in case it stays")
        return labels
    raise ConflictError(f"process {process_id}: its manifest changes all the time", "try again")


def sent_labels(process: ProcessRecord, manifest: Manifest | None) -> Labels:
    """Labels that an uploader writes: its own, and a hold that it finds, which somebody else may have put there."""
    held = None if manifest is None else manifest.process.held
    return process.labels if held is None else merged(process.labels, {HOLD: held})

"""Directories that a process has for itself: `/tmp`, and the way to what is mounted."""

from __future__ import annotations

import os
from collections.abc import Iterable

from timecraftd.registry.home import state_errors


def private_path(process_dir: str, guest: str) -> str:
    """Where what a process sees at `guest`, if that is its own, lies."""
    # A guest's name may be anything: what leads upwards stays below the root.
    return os.path.join(process_dir, "root", os.path.normpath("/" + guest).lstrip("/"))


def make_private(process_dir: str, guests: Iterable[str]) -> None:
    """Makes directories of a process, as far as they aren't there. Raises StateError."""
    for guest in guests:
        path = private_path(process_dir, guest)
        with state_errors(path):
            os.makedirs(path, mode=0o700, exist_ok=True)


def remove_private(process_dir: str) -> None:
    """Removes what a process had for itself, if anything."""
    root = private_path(process_dir, "/")
    if os.path.isdir(root):
        import shutil  # slow to import, and few processes have such

        shutil.rmtree(root, ignore_errors=True)

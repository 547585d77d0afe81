"""Files of a mount: times, folders, temporary files, names beyond ASCII, what open() refuses."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(sys.argv[1])

path = FOLDER / "naïve"
path.write_text("text")
os.utime(path, (5, 6))
assert (path.stat().st_atime, path.stat().st_mtime) == (5, 6)
path.touch()
assert abs(path.stat().st_mtime - time.time()) < 60
path.rename(FOLDER / "other")
assert os.listdir(FOLDER) == ["other"]
(FOLDER / "a" / "b").mkdir(parents=True)
shutil.copy(FOLDER / "other", FOLDER / "a" / "b")
assert [str(found.relative_to(FOLDER)) for found in sorted(FOLDER.rglob("*"))] == ["a", "a/b", "a/b/other", "other"]
shutil.rmtree(FOLDER / "a")
with tempfile.TemporaryDirectory(dir=FOLDER) as folder, tempfile.NamedTemporaryFile("w+", dir=folder) as file:
    file.write("x" * 100_000)
    file.seek(0)
    assert len(file.read()) == 100_000
os.remove(FOLDER / "other")
for name in ("/elsewhere", FOLDER / "missing"):
    try:
        Path(name).read_text()
    except OSError as error:
        print(error)
print("ok")

"""State directories with logs whose segments are made up, for what looks at segments from outside only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from random import Random

import crc32c

from timecraftd.errors import NotFoundError
from timecraftd.model import Digest, ObjectKind, ProcessId, ProcessRecord, ProcessState, new_process_id
from timecraftd.recorder.segments import FOOTER, HEADER
from timecraftd.recorder.uploader import LocalObject

SEGMENT_BYTES = 1000
RECORDS = 10


def segment_bytes(number: int, size: int = SEGMENT_BYTES, *, sealed: bool = True) -> bytes:
    """A segment of RECORDS records; what would be blocks is noise."""
    header = HEADER.pack(b"TCL1", 2, 64, b"p" * 16, number, 0, number * RECORDS, number * 100, 0, 0, 0)
    header = header[:-4] + crc32c.crc32c(header[:-4]).to_bytes(4, "little")
    body = Random(number).randbytes(size - HEADER.size - FOOTER.size - 8)
    if not sealed:
        return header + body
    index = b"TCLI\0\0\0\0"
    offset = HEADER.size + len(body)
    first, behind = number * RECORDS, (number + 1) * RECORDS
    footer = FOOTER.pack(b"TCLF", 2, 0, offset, 8, crc32c.crc32c(index), first, behind, number * 100, number * 100 + 99,
                         RECORDS, 0)  # fmt: skip
    return header + body + index + footer[:-4] + crc32c.crc32c(footer[:-4]).to_bytes(4, "little")


@dataclass
class FakeHome:
    """What an uploader needs of a state directory."""

    path: Path
    rows: dict[ProcessId, ProcessRecord] = field(default_factory=dict)
    recovered: list[ProcessId] = field(default_factory=list)

    def add(self, state: ProcessState = ProcessState.RUNNING, number: int = 0) -> ProcessId:
        """A process without a log."""
        process_id = new_process_id((1_700_000_000_000 + len(self.rows) + number) * 1_000_000, b"0123456789")
        (self.path / process_id / "log").mkdir(parents=True)
        digests = [self._object(name) for name in ("module", "config", "runtime")]
        self.rows[process_id] = ProcessRecord(
            process_id, "", digests[0], "x.wasm", digests[1], digests[2], state, 1, 1, pid=7, boot_id="b"
        )
        return process_id

    def end(self, process_id: ProcessId) -> None:
        """The process has exited."""
        self.rows[process_id] = replace(self.rows[process_id], state=ProcessState.EXITED, exit_code=0)

    def seal(self, process_id: ProcessId, *numbers: int, size: int = SEGMENT_BYTES, sealed: bool = True) -> None:
        """Writes segments."""
        for number in numbers:
            path = self.path / process_id / "log" / f"{number:06}.tcl"
            path.write_bytes(segment_bytes(number, size, sealed=sealed))

    def _object(self, name: str) -> Digest:
        data = json.dumps({"mounts": [], "name": name}).encode()
        digest = Digest(sha256(data).hexdigest())
        (self.path / digest).write_bytes(data)
        return digest

    def processes(self, *, recent_only: bool) -> list[ProcessRecord]:
        """As the protocol says; none is new."""
        return [row for row in self.rows.values() if not recent_only or row.state is ProcessState.RUNNING]

    def process(self, process_id: ProcessId) -> ProcessRecord:
        """As the protocol says."""
        if process_id not in self.rows:
            raise NotFoundError(process_id)
        return self.rows[process_id]

    def directory(self, process_id: ProcessId) -> str:
        """As the protocol says."""
        return str(self.path / process_id)

    def recover(self, process: ProcessRecord) -> None:
        """As the protocol says."""
        self.recovered.append(process.id)
        last = max((self.path / process.id / "log").glob("*.tcl"))
        last.write_bytes(segment_bytes(int(last.stem)))

    def objects(self, process: ProcessRecord) -> list[LocalObject]:
        """As the protocol says."""
        kinds = zip(("module", "config", "runtime"), (process.module, process.config, process.runtime), strict=True)
        return [
            LocalObject(ObjectKind(kind), digest, str(self.path / digest), (self.path / digest).stat().st_size)
            for kind, digest in kinds
        ]

"""Sizes of a log's blocks: as stored, before compression, and compressed by zstd instead. `recompress.py LOG_DIR`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import lz4.block
import zstandard

from timecraftd.recorder.reader import BLOCK_HEADER, CODEC_LZ4, INDEX_MAGIC, SEGMENT_HEADER


def blocks(log: Path) -> Iterator[tuple[bytes, bytes]]:
    """(as stored, decompressed) of each block."""
    for path in sorted(log.glob("**/*")):
        if not path.is_file() or path.stat().st_size < SEGMENT_HEADER.size:
            continue
        data = path.read_bytes()
        pos = SEGMENT_HEADER.size
        while data[pos : pos + 4] == b"TCB1" and data[pos : pos + 4] != INDEX_MAGIC:
            _, _, codec, _, stored_len, raw_len, *_ = BLOCK_HEADER.unpack_from(data, pos)
            stored = data[pos + BLOCK_HEADER.size : pos + BLOCK_HEADER.size + stored_len]
            body = lz4.block.decompress(stored, uncompressed_size=raw_len) if codec == CODEC_LZ4 else stored
            yield stored, body
            pos += BLOCK_HEADER.size + stored_len


def main() -> None:
    sizes = {"stored": 0, "raw": 0, "zstd": 0, "zstd_1m": 0}
    each, joined = zstandard.ZstdCompressor(level=3), bytearray()
    for stored, body in blocks(Path(sys.argv[1])):
        sizes["stored"] += BLOCK_HEADER.size + len(stored)
        sizes["raw"] += BLOCK_HEADER.size + len(body)
        sizes["zstd"] += BLOCK_HEADER.size + len(each.compress(body))
        joined += body
        if len(joined) >= 1 << 20:
            sizes["zstd_1m"] += BLOCK_HEADER.size + len(each.compress(bytes(joined)))
            joined.clear()
    sizes["zstd_1m"] += len(each.compress(bytes(joined)))
    print(json.dumps(sizes))


if __name__ == "__main__":
    main()

"""Damaged logs: found by their checksums, told with the records that they cost, stopped at or skipped by choice."""

import json
from pathlib import Path
from random import Random

import pytest

from tests.e2e.cli import Cli, guest
from timecraftd.errors import LogError
from timecraftd.recorder.reader import read_log

GOLDEN = Path(__file__).parents[1] / "golden"
BLOCK_AT = 64
HEADER_BYTES = 80
FLIPS = 300


def damage_second_block(segment: Path) -> tuple[int, int]:
    """Flips a bit of the second block's content; returns the numbers of its first record and of the one behind."""
    data = bytearray(segment.read_bytes())
    at = BLOCK_AT + HEADER_BYTES + int.from_bytes(data[BLOCK_AT + 8 : BLOCK_AT + 12], "little")
    first = int.from_bytes(data[at + 16 : at + 24], "little")
    count = int.from_bytes(data[at + 24 : at + 28], "little")
    data[at + HEADER_BYTES + 5] ^= 1
    segment.write_bytes(data)
    return first, first + count


def test_damage_is_told_and_stopped_at_or_skipped(cli: Cli):
    """`log verify` names the records; a trace ends there or leaves them out, and a replay stops."""
    process, _ = cli.run("--timeout", "300ms", "--record-batch-size", "4096", guest("spin_output"), code=137)
    whole, _ = cli.run(guest("hello"))
    sound = cli("log", "verify", "--all")
    assert sound.out.count("  ok  ") == 2
    first, behind = damage_second_block(cli.segments(process)[0])
    found = cli("log", "verify", process, code=1).out
    assert f"records {first} to {behind - 1}: " in found
    assert "corrupt crc" in found
    assert "--skip-damaged" in found
    checks = json.loads(cli("log", "verify", "--all", "-o", "json", code=1).out)
    damage = {check["id"]: check["damage"] for check in checks}
    assert damage[whole] == []
    assert [(gap["first_seq"], gap["next_seq"]) for gap in damage[process]] == [(first, behind)]

    stopped = cli("trace", "syscall", process, "-o", "json", code=125)
    assert "corrupt crc" in stopped.stderr
    skipped = cli("trace", "syscall", process, "-o", "json", "--skip-damaged")
    assert f"records {first} to {behind - 1} left out" in skipped.stderr
    numbers = [json.loads(line)["seq"] for line in skipped.out.splitlines()]
    assert [json.loads(line)["seq"] for line in stopped.out.splitlines()] == list(range(first))
    assert numbers == [*range(first), *range(behind, numbers[-1] + 1)]
    exported = cli("export", "log", process, "--skip-damaged")
    assert f"records {first} to {behind - 1} left out" in exported.stderr
    assert [json.loads(line)["seq"] for line in exported.out.splitlines()] == numbers
    cli("export", "log", process, code=125)
    assert "the log is damaged" in cli.replay(process, code=125).stderr


def test_a_damaged_mark_of_loss_is_told(cli: Cli):
    """Whether all is there can't be known then; what is there is good and replays, and it is told what to do."""
    process, _ = cli.run(guest("hello"))
    mark = cli.process_dir(process) / "log" / "lost"
    mark.write_bytes(b"\0\x04" + mark.read_bytes()[2:])
    found = cli("log", "verify", process, code=1).out
    assert f"{mark}: damaged" in found
    assert "remove the file" in found
    cli.replay(process)
    mark.unlink()
    cli("log", "verify", process)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_no_flipped_bit_misleads_the_python_reader(version: str, tmp_path: Path, random: Random):
    """Of golden logs: each is noticed, or makes no difference."""
    golden = GOLDEN / version / "lz4_segments"
    expected = list(read_log(golden))
    segments = sorted(golden.glob("*.tcl"))
    for segment in segments:
        (tmp_path / segment.name).write_bytes(segment.read_bytes())
    for _ in range(FLIPS):
        segment = random.choice(segments)
        data = bytearray(segment.read_bytes())
        bit = random.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        (tmp_path / segment.name).write_bytes(data)
        try:
            found = list(read_log(tmp_path))
        except LogError:
            found = expected
        assert found == expected, f"bit {bit % 8} of byte {bit // 8} of {segment.name}"
        (tmp_path / segment.name).write_bytes(segment.read_bytes())

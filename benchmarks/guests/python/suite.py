"""What Python programs compute, in small: prints `NAME microseconds us` for one round of each. `suite.py [SCALE]`."""

import json
import re
import sys
import time
from collections.abc import Callable

CHUNKS = 12
"""Of which the fastest counts: others may use the processor too."""


def measure(name: str, work: Callable[[int], object], rounds: int) -> None:
    work(1)
    fastest = float("inf")
    for _ in range(CHUNKS):
        begun = time.process_time()
        work(rounds)
        fastest = min(fastest, (time.process_time() - begun) / rounds)
    print(f"{name} {fastest * 1e6:.2f} us", flush=True)


# ---- json: a document of some 15 KB, written and read

DOCUMENT = {
    "users": [
        {"id": i, "name": f"user {i}", "admin": i % 7 == 0, "tags": ["a", "b", str(i)], "score": i * 0.37, "note": None}
        for i in range(200)
    ]
}


def json_round(rounds: int) -> None:
    for _ in range(rounds):
        json.loads(json.dumps(DOCUMENT))


# ---- regex: lines of a web server's log

LOG = "\n".join(
    f"2026-11-23T{hour:02}:{minute:02}:07 host{minute} app[{hour * minute}]: "
    f'GET /path/{hour}/{minute}?q={minute * hour} 200 {hour * minute * 17} "Mozilla/5.0 (X11)"'
    for hour in range(24)
    for minute in range(0, 60, 5)
)
PATTERNS = [
    re.compile(pattern)
    for pattern in (
        r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d) (\w+) (\w+)\[(\d+)\]: (GET|POST) (\S+) (\d{3}) (\d+)",
        r"[a-z]+://[^/]+|/path/(\d+)/(\d+)\?q=(\d+)",
        r"\b(?:host|app)\d*\b",
    )
]


def regex_round(rounds: int) -> None:
    for _ in range(rounds):
        for pattern in PATTERNS:
            for _found in pattern.finditer(LOG):
                pass


# ---- nbody: five bodies that attract one another, moved a hundred steps

STEP = 0.01


def nbody_round(rounds: int) -> None:
    bodies = [([i * 3.1, i * -1.7, i * 0.2], [i * 0.3, 0.1, i * -0.2], 39.5 / (1 + i * 9)) for i in range(5)]
    pairs = [(bodies[i], bodies[j]) for i in range(5) for j in range(i + 1, 5)]
    for _ in range(rounds * 100):
        for (at1, speed1, mass1), (at2, speed2, mass2) in pairs:
            x, y, z = at1[0] - at2[0], at1[1] - at2[1], at1[2] - at2[2]
            pull = STEP * (x * x + y * y + z * z) ** -1.5
            pull1, pull2 = mass1 * pull, mass2 * pull
            speed1[0] -= x * pull2
            speed1[1] -= y * pull2
            speed1[2] -= z * pull2
            speed2[0] += x * pull1
            speed2[1] += y * pull1
            speed2[2] += z * pull1
        for at, speed, _mass in bodies:
            for axis in range(3):
                at[axis] += STEP * speed[axis]


# ---- richards: tasks of several kinds that pass packets on, as an operating system would


class Packet:
    def __init__(self, number: int, kind: int) -> None:
        self.next: Packet | None = None
        self.kind = kind
        self.value = number
        self.data = [0] * 4


class Task:
    def __init__(self, number: int) -> None:
        self.number = number
        self.first: Packet | None = None
        self.last: Packet | None = None
        self.waiting = False

    def take(self, packet: Packet) -> "Task":
        if self.last is None:
            self.first = packet
        else:
            self.last.next = packet
        self.last = packet
        self.waiting = False
        return self

    def run(self, tasks: list["Task"]) -> "Task | None":
        packet = self.first
        if packet is None:
            self.waiting = True
            return None
        self.first = packet.next
        if self.first is None:
            self.last = None
        packet.next = None
        return self.handle(packet, tasks)

    def handle(self, packet: Packet, tasks: list["Task"]) -> "Task":
        raise NotImplementedError


class Worker(Task):
    def handle(self, packet: Packet, tasks: list[Task]) -> Task:
        for position in range(4):
            packet.value += 1
            packet.data[position] = packet.value % 26
        return tasks[(self.number + packet.value) % len(tasks)].take(packet)


class Device(Task):
    def handle(self, packet: Packet, tasks: list[Task]) -> Task:
        packet.kind = 1 - packet.kind
        return tasks[packet.kind].take(packet)


def richards_round(rounds: int) -> None:
    for _ in range(rounds):
        tasks: list[Task] = [Worker(0), Worker(1), Device(2), Device(3), Worker(4)]
        for number, task in enumerate(tasks):
            task.take(Packet(number, number & 1))
        current = tasks[0]
        for _step in range(2000):
            current = current.run(tasks) or tasks[(current.number + 1) % len(tasks)]


scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
measure("json", json_round, max(1, round(12 * scale)))
measure("regex", regex_round, max(1, round(5 * scale)))
measure("nbody", nbody_round, max(1, round(8 * scale)))
measure("richards", richards_round, max(1, round(5 * scale)))

"""What a compiled program says in its text: collectives and matrix products, loops multiplied.

XLA's own analysis counts the body of a loop once. Here every computation is counted as often as it
runs: that of a loop as often as its known number of trips says.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}

HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\b([a-z][a-z0-9\-]*)\((.*)$")
SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|true_computation|false_computation|branch_computations)"
    r"=\{?([^},\s]+(?:, %[^},\s]+)*)"
)
CHANNEL = re.compile(r"\bchannel_id=(\d+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")

Dims = tuple[int, ...]


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str  # of its result
    result: str
    kind: str  # such as `all-reduce`
    rest: str  # the operands and everything behind them


def collectives(text: str, trips: int | None = None) -> dict[str, tuple[int, int]]:
    """Return how often every kind of collective runs, and the bytes of its results per device.

    `trips` is that of loops that do not say how often they run, as XLA for TPU leaves them.
    """
    # A pipelined collective stands in several fusions, which share its channel.
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for times, _, instruction in _run(text, trips):
        kind = instruction.kind.removesuffix("-start")
        if kind in KINDS:
            channel = CHANNEL.search(instruction.rest)
            key = kind, channel[1] if channel else instruction.name
            found[key] = max(found.get(key, (0, 0)), (times, times * _result_bytes(instruction)))
    totals: dict[str, tuple[int, int]] = {kind: (0, 0) for kind in KINDS}
    for (kind, _), (count, size) in found.items():
        totals[kind] = totals[kind][0] + count, totals[kind][1] + size
    return totals


def product_flops(text: str) -> int:
    """Return the floating-point operations of all matrix products of one device."""
    total = 0
    for times, shapes, instruction in _run(text, None):
        if instruction.kind == "dot":
            first = instruction.rest.split(",")[0].split()[-1].lstrip("%").rstrip(")")
            summed = CONTRACTED.search(instruction.rest)
            over = [shapes[first][i] for i in _numbers(summed[1])] if summed else []
            total += times * 2 * math.prod(over) * math.prod(_dims(instruction.result)[0])
    return total


def _run(text: str, trips: int | None) -> Iterator[tuple[int, dict[str, Dims], Instruction]]:
    """Yield every instruction, with how often it runs and the shapes in its computation."""
    found, entry = computations(text)
    for name, times in _times(found, entry, trips).items():
        shapes = {i.name: dims[0] for i in found[name] if (dims := _dims(i.result))}
        yield from ((times, shapes, instruction) for instruction in found[name])


def computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Return the instructions of every computation, by its name, and the name of the first one."""
    found: dict[str, list[Instruction]] = {}
    current = entry = ""
    for line in text.splitlines():
        if header := HEADER.match(line):
            current = header[2]
            found[current] = []
            entry = current if header[1] else entry
        elif current and (instruction := INSTRUCTION.match(line)):
            found[current].append(Instruction(*instruction.groups()))
    return found, entry


def called(instruction: Instruction) -> list[str]:
    """Return the names of the computations that an instruction calls."""
    groups = CALLED.findall(instruction.rest)
    return [name.strip().lstrip("%") for group in groups for name in group.split(",")]


def _times(
    computations: dict[str, list[Instruction]], entry: str, trips: int | None
) -> Counter[str]:
    """Return how often every computation runs, from the calls of those that call it."""
    times: Counter[str] = Counter()

    def run(name: str, by: int) -> None:
        times[name] += by
        for instruction in computations[name]:
            often = _trips(instruction, trips) if instruction.kind == "while" else 1
            for callee in called(instruction):
                run(callee, by * often)

    run(entry, 1)
    return times


def _trips(loop: Instruction, otherwise: int | None) -> int:
    known = TRIPS.search(loop.rest)
    if known is None and otherwise is None:
        raise ValueError(
            f"`text` should say how often its loops run, got none for {loop.name!r}. Write the "
            "program with a static number of steps, as `jax.lax.scan` has, or pass `trips`."
        )
    return int(known[1]) if known else int(otherwise or 0)


def _result_bytes(instruction: Instruction) -> int:
    arrays = [
        BYTES[dtype] * math.prod(_numbers(dims))
        for dtype, dims in SHAPE.findall(instruction.result)
        if dtype in BYTES
    ]
    # What an asynchronous one returns begins with its operands, those of an all-reduce apart.
    twice = instruction.kind.endswith("-start") and instruction.kind != "all-reduce-start"
    return sum(arrays[len(arrays) // 2 :] if twice else arrays)


def _dims(result: str) -> list[Dims]:
    return [_numbers(dims) for _, dims in SHAPE.findall(result)]


def _numbers(text: str) -> Dims:
    return tuple(map(int, filter(None, text.split(","))))

"""What a compiled program sends between devices, read from its text.

XLA prints an optimised module as computations of one instruction a line. A collective may stand in the entry, in a
fusion, in an asynchronous pair (`all-gather-start`, `all-gather-done`) or in a loop's body, which runs many times.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_WIDTHS = {"pred": 1.0, "s4": 0.5, "u4": 0.5, "bf16": 2.0, "c64": 8.0, "c128": 16.0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<= ]*)\]")
_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*\)\s*->.*)?\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT\s+)?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r"known_trip_count\W+n\W+(\d+)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
      kind: one of KINDS.
      size: bytes of its full array: what is summed or gathered, on one device.
      group: devices that take part in it together.
      times: how often it runs.
    """

    kind: str
    size: float
    group: int
    times: int = 1

    @property
    def moved(self) -> float:
        """Bytes that each device sends, all runs together, by the ring algorithms (Chan et al. 2007, section 4)."""
        n = self.group
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0, "collective-broadcast": 1.0}
        return self.times * self.size * share.get(self.kind, (n - 1) / n)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    opcode: str
    shape: str
    rest: str


def collectives(text: str, trips: int = 1) -> list[Collective]:
    """Every collective among two devices or more that `compiled.as_text()` shows, loops taken into account.

    Args:
      trips: iterations of a loop whose length the text does not say.
    """
    computations, entry, devices = _computations(text)
    found: dict[Any, Collective] = {}
    for name, times in _executions(computations, entry, trips):
        for instruction in computations[name]:
            kind = instruction.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            group = _group(instruction.rest, devices)
            # the TPU compiler writes a reduce-scatter as a fusion of an all-reduce and a slice of it
            if kind == "all-reduce" and "all-reduce-scatter" in name:
                kind = "reduce-scatter"
                size = sum(_arrays(instruction.shape))
            else:
                size = _full_size(kind, instruction, group)
            if group == 1 and kind != "collective-permute":
                continue
            # one collective that is spread over several fusions, to overlap with their work, keeps its channel
            channel = re.search(r"channel_id=(\d+)", instruction.rest)
            key = int(channel[1]) if channel else (name, len(found))
            if key not in found or found[key].times < times:
                found[key] = Collective(kind, size, group, times)
    return list(found.values())


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str, int]:
    """`{name: instructions}`, the entry's name, and the number of devices."""
    computations: dict[str, list[_Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header and not line.startswith("HloModule"):
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if found and current is not None:
            shape, rest = _split_shape(found[2])
            opcode, _, rest = rest.partition("(")
            current.append(_Instruction(opcode.strip(), shape, rest))
    counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", text.partition("\n")[0])
    return computations, entry, max((int(n) for n in counts), default=1)


def _split_shape(text: str) -> tuple[str, str]:
    """An instruction's shape, which is a tuple where it begins with a parenthesis, and what follows."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: at + 1], text[at + 1 :].lstrip()
    return text, ""


def _executions(computations: dict[str, list[_Instruction]], entry: str, unknown: int) -> Iterator[tuple[str, int]]:
    """Computations that run, with how often; one that is called from two places comes twice."""
    waiting = [(entry, 1)]
    while waiting:
        name, times = waiting.pop()
        if name not in computations:
            continue
        yield name, times
        for instruction in computations[name]:
            if instruction.opcode in ("async-done", "async-update"):  # the work of their async-start
                continue
            trips = 1
            if instruction.opcode == "while":
                known = _TRIPS.search(instruction.rest)
                trips = int(known[1]) if known else unknown
            called = _CALLED.findall(instruction.rest)
            for branches in _BRANCHES.findall(instruction.rest):
                called += [branch.strip().lstrip("%") for branch in branches.split(",")]
            waiting += [(other, times * trips) for other in called]


def _arrays(shape: str) -> list[float]:
    """Bytes of each array in a shape; what is no array (tokens, contexts) is left out."""
    sizes = []
    for dtype, dimensions in _ARRAY.findall(shape):
        width = _WIDTHS.get(dtype)
        if width is None:
            bits = re.search(r"\d+", dtype)
            width = int(bits[0]) / 8 if bits else 0.0
        count = 1
        for length in re.findall(r"\d+", dimensions):
            count *= int(length)
        sizes.append(width * count)
    return sizes


def _full_size(kind: str, instruction: _Instruction, group: int) -> float:
    sizes = _arrays(instruction.shape)
    if instruction.opcode.endswith("-start") and instruction.shape.startswith("(") and kind != "all-reduce":
        # operands, results, then contexts that are scalars
        arrays = _arrays(re.sub(r"\w+\[\]", "", instruction.shape))
        half = len(arrays) // 2
        sizes = arrays[half : 2 * half] or sizes
    return sum(sizes) * (group if kind == "reduce-scatter" else 1)


def _group(rest: str, devices: int) -> int:
    """Devices in one replica group, in any of the three ways they are written; all where none is said."""
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest)
    if iota:
        return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if listed:
        return len(listed[1].split(","))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest)
    if named:
        sizes = dict(re.findall(r"'?(\w+)'?=(\d+)", named[1]))
        size = 1
        for axis in re.findall(r"\w+", named[2]):
            size *= int(sizes.get(axis, 1))
        return size
    return devices

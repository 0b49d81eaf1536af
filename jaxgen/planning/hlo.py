"""Reads from a compiled program's text what it sends between devices.

XLA prints an optimised module as computations of one instruction a line. A collective may stand in the entry, in a
fusion, in an asynchronous pair (`all-gather-start`, `all-gather-done`) or in a loop's body, which runs many times.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")

_WIDTHS = {"pred": 1.0, "s4": 0.5, "u4": 0.5, "bf16": 2.0, "c64": 8.0, "c128": 16.0}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<= ]*)\]")
_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*\)\s*->.*)?\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT\s+)?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_OPERAND = re.compile(r"%([\w.\-]+)")
_FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast")  # they touch no memory
_TRIPS = re.compile(r"known_trip_count\W+n\W+(\d+)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """Describes one collective of a program."""

    kind: str  # one of KINDS
    size: float  # bytes of its full array: what is summed or gathered, on one device
    group: int  # devices that take part in it together
    times: int = 1  # how often it runs

    @property
    def moved(self) -> float:
        """Returns the bytes that each device sends in all runs, by ring algorithms (Chan et al. 2007, section 4)."""
        n = self.group
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0, "collective-broadcast": 1.0}
        return self.times * self.size * share.get(self.kind, (n - 1) / n)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    opcode: str
    shape: str
    rest: str


def instructions(text: str) -> Iterator[tuple[str, str, str]]:
    """Yields (name, opcode, operands and attributes) of every instruction that `compiled.as_text()` shows."""
    for computation in _computations(text)[0].values():
        for each in computation:
            yield each.name, each.opcode, each.rest


def collectives(text: str, trips: int = 1) -> list[Collective]:
    """Returns every collective among two devices or more that `compiled.as_text()` shows, with how often its loops run.

    Args:
      trips: iterations of a loop whose length the text does not say.
    """
    computations, entry, devices = _computations(text)
    found: dict[int | tuple[str, int], Collective] = {}  # by channel, or by place
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
            key: int | tuple[str, int] = int(channel[1]) if channel else (name, len(found))
            if key not in found or found[key].times < times:
                found[key] = Collective(kind, size, group, times)
    return list(found.values())


def loops_factor(text: str, trips: int = 1) -> float:
    """Returns how many times more memory a program touches than a count that takes every loop's body once.

    It is weighed by the bytes that instructions outside fusions read and write. An array whose first axis is as long as
    the loop that contains it is a stack, of which an iteration takes, or fills, one layer.

    Args:
      trips: iterations of a loop whose length the text does not say.
    """
    computations, entry, _ = _computations(text)
    once = repeated = 0.0
    waiting = [(entry, 1, 1)]
    while waiting:
        name, times, length = waiting.pop()
        shapes = {instruction.name: instruction.shape for instruction in computations.get(name, [])}
        for instruction in computations.get(name, []):
            if instruction.opcode in _FREE:
                continue
            runs = instruction.opcode in ("while", "conditional", "call")
            called = _called(instruction, computations, trips) if runs else []
            if called:
                waiting += [(other, times * count, count if count > 1 else length) for other, count in called]
                continue
            operands = _OPERAND.findall(instruction.rest.partition(")")[0])
            arrays = [instruction.shape, *(shapes[operand] for operand in operands if operand in shapes)]
            touched = sum(_touched(shape, length) for shape in arrays)
            once += touched
            repeated += touched * times
    return repeated / once if once else 1.0


def _touched(shape: str, length: int) -> float:
    """Returns the bytes of a shape's arrays; of stacks of `length` layers it counts one layer."""
    total = 0.0
    for (_, dimensions), size in zip(_ARRAY.findall(shape), _arrays(shape), strict=True):
        first = re.match(r"\d+", dimensions)
        total += size / length if length > 1 and first and int(first[0]) == length else size
    return total


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str, int]:
    """Returns `{name: instructions}`, the entry's name, and the number of devices."""
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
            current.append(_Instruction(found[1], opcode.strip(), shape, rest))
    counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", text.partition("\n")[0])
    return computations, entry, max((int(n) for n in counts), default=1)


def _split_shape(text: str) -> tuple[str, str]:
    """Returns an instruction's shape, which is a tuple where it begins with a parenthesis, and what follows."""
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
    """Yields the computations that run, with how often; one that is called from two places comes twice."""
    waiting = [(entry, 1)]
    while waiting:
        name, times = waiting.pop()
        if name not in computations:
            continue
        yield name, times
        for instruction in computations[name]:
            if instruction.opcode in ("async-done", "async-update"):  # the work of their async-start
                continue
            waiting += [(other, times * count) for other, count in _called(instruction, computations, unknown)]


def _called(
    instruction: _Instruction, computations: dict[str, list[_Instruction]], unknown: int
) -> list[tuple[str, int]]:
    """Returns the computations that an instruction runs, with how often."""
    called = _CALLED.findall(instruction.rest)
    for branches in _BRANCHES.findall(instruction.rest):
        called += [branch.strip().lstrip("%") for branch in branches.split(",")]
    trips = _trips(instruction, computations, unknown) if instruction.opcode == "while" else 1
    return [(name, trips) for name in called]


def _trips(loop: _Instruction, computations: dict[str, list[_Instruction]], unknown: int) -> int:
    """Returns the iterations of a loop: what it says itself, or what its condition counts up to, from 0."""
    known = _TRIPS.search(loop.rest)
    if known:
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    inside = computations.get(condition[1], []) if condition else []
    bounds = [re.match(r"\d+", i.rest) for i in inside if i.opcode == "constant" and re.match(r"[su]\d+\[\]", i.shape)]
    below = [i for i in inside if i.opcode == "compare" and "direction=LT" in i.rest]
    return int(bounds[0][0]) if len(bounds) == 1 and bounds[0] and len(below) == 1 else unknown


def _arrays(shape: str) -> list[float]:
    """Returns the bytes of each array in a shape; what is no array (tokens, contexts) is left out."""
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
    """Returns the number of devices in one replica group, in any of its three notations; all where none is given."""
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

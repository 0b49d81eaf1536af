"""Reads a profiler's trace as time by operation: how long each instruction of a program took, and in what layer.

`jax.profiler` writes what ran on each device, or CPU thread, as events that name the program and the instruction. The
compiled program's text says of each instruction where in the network it comes from: Flax gives every module's work its
path, and differentiation marks the backward pass.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from etils import epath
from jax.profiler import ProfileData

from jaxgen.planning import hlo

Device = str | int  # a device's number, or the name of a plane of the trace that gives none

_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CONTAINERS = ("while", "conditional", "call")  # what runs inside has events of its own
_DERIVATIVE = re.compile(r"^(?:jvp|transpose|vmap)\((?:[a-z]+\()*([^()]*)\)+$")
# parts of a path that are the compiler's and not the network's
_PLUMBING = re.compile(r"^(while|body|cond|checkpoint|rematted_computation|closed_call|branch_\d+_fun|remat\d*|pjit)$")


@dataclasses.dataclass(frozen=True)
class Operation:
    """Describes one instruction of a compiled program and the time that it took."""

    name: str
    kind: str  # its opcode, or what a fusion's root computes
    layer: str  # path in the network; "" where it belongs to no layer
    backward: bool  # whether it belongs to the backward pass
    calls: float  # in one run, on one device
    seconds: float  # in one run, on one device


def operations(folder: epath.PathLike, texts: dict[str, str], runs: dict[str, int]) -> dict[str, list[Operation]]:
    """Returns the operations of each program with their times, the slowest first.

    Args:
      folder: the folder that `jax.profiler` wrote to.
      texts: `{module's name: compiled.as_text()}`.
      runs: `{module's name: number of traced runs}`.

    Returns:
      `{module's name: operations}`, empty lists where the trace tells nothing.
    """
    times: dict[tuple[str, str], float] = collections.defaultdict(float)
    calls: dict[tuple[str, str], int] = collections.defaultdict(int)
    devices: dict[str, set[Device]] = collections.defaultdict(set)
    for module, name, device, seconds in _events(folder):
        if module in texts:
            times[module, name] += seconds
            calls[module, name] += 1
            devices[module].add(device)
    found: dict[str, list[Operation]] = {}
    for module, text in texts.items():
        known = instructions(text)
        share = runs[module] * max(len(devices[module]), 1)
        mine = [(name, total) for (of, name), total in times.items() if of == module]
        found[module] = [
            Operation(name, *known.get(name, ("", "", False))[:3], calls[module, name] / share, total / share)
            for name, total in sorted(mine, key=lambda item: -item[1])
            if known.get(name, ("",))[0] not in _CONTAINERS
        ]
    return found


def instructions(text: str) -> dict[str, tuple[str, str, bool]]:
    """Returns `{instruction: (kind, layer, backward)}` of a compiled program's text."""
    found = {}
    for name, opcode, rest in hlo.instructions(text):
        named = _OP_NAME.search(rest)
        layer, last, backward = origin(named[1] if named else "")
        found[name] = (last if opcode in ("fusion", "custom-call") and last else opcode, layer, backward)
    return found


def origin(op_name: str) -> tuple[str, str, bool]:
    """Returns (layer, primitive, whether backward) of the name that JAX gives an operation.

    A name is such as `jit(update)/transpose(jvp(UNet))/down_0_block_0/conv_in/conv_general_dilated`. Where the compiler
    made one operation of many with different layers, the layer is "several layers".
    """
    each = [_origin(name) for name in _each(op_name)]
    layers = {layer for layer, _, _ in each}
    layer = layers.pop() if len(layers) == 1 else "several layers"
    return layer, each[0][1], any(backward for _, _, backward in each)


def _each(op_name: str) -> list[str]:
    """Returns the names that `a;b`, or `path/(a:b/(c:d))`, stands for."""
    if ";" in op_name:
        return [name for part in op_name.split(";") for name in _each(part)]
    start = op_name.find("/(")
    if start < 0 or not op_name.endswith(")"):
        return [op_name]
    found, depth, name = [], 0, ""
    for letter in op_name[start + 2 : -1]:
        depth += (letter == "(") - (letter == ")")
        if letter == ":" and not depth:
            found.append(name)
            name = ""
        else:
            name += letter
    return [whole for inner in (*found, name) for whole in _each(f"{op_name[:start]}/{inner}")]


def _origin(op_name: str) -> tuple[str, str, bool]:
    *parts, last = [part for part in op_name.split("/") if part] or [""]
    layer: list[str] = []
    for part in parts:
        wrapped = _DERIVATIVE.search(part)
        part = (wrapped[1] if wrapped else part).partition("._")[0]  # a private method is no layer
        if not part or "(" in part or "<" in part or _PLUMBING.match(part):
            continue
        if layer and layer[-1].partition(".")[0] == part.partition(".")[0]:  # a module, then one of its methods
            layer.pop()
        layer.append(part)
    return "/".join(layer), last, any("transpose(" in part for part in parts)


def _events(folder: epath.PathLike) -> Iterator[tuple[str, str, Device, float]]:
    """Yields (module, instruction, device, seconds) of every instruction that ran, on accelerators if there are any."""
    files = sorted(epath.Path(folder).glob("plugins/profile/*/*.xplane.pb"))
    planes = [plane for file in files[-1:] for plane in ProfileData.from_serialized_xspace(file.read_bytes()).planes]
    accelerators = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in accelerators or planes:
        starts: dict[Any, tuple[str, str, Any, Any]] = {}
        ends: dict[Any, float] = {}
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats and "hlo_module" in stats:
                    device = stats.get("device_ordinal", plane.name)
                    module = str(stats["hlo_module"]).partition("(")[0]
                    entry = (module, str(stats["hlo_op"]), device, event)
                    # a CPU's instruction may go on in other threads behind its own event, up to one that refers to it
                    starts[(stats["_pt"], stats["_p"]) if "_p" in stats else (line.name, event.start_ns)] = entry
                elif event.name.startswith("end: ") and "_c" in stats:
                    ends[(stats["_ct"], stats["_c"])] = event.end_ns
        for key, (module, name, device, event) in starts.items():
            last = max(event.end_ns, ends.get(key, 0))
            yield module, name, device, (last - event.start_ns) / 1e9

"""Counts multiplications and additions of a traced function's matrix products and convolutions, before any compiler.

Unlike a compiler's own count, this one knows how often the body of a scan runs, and it does not depend on how the
program is split over devices: it is the work of the mathematics alone.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend import core

AnyJaxpr = core.ClosedJaxpr | core.Jaxpr


def count(jaxpr: AnyJaxpr) -> int:
    """Returns the FLOPs, two for each multiply-add, of a (closed) jaxpr's `dot_general` and `conv_general_dilated`.

    The body of a scan counts as often as it runs, of a conditional the most expensive branch counts, and the body of a
    `while_loop`, whose length is unknown, counts once.
    """
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _product(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            total += max(count(branch) for branch in equation.params["branches"])
        else:
            times = equation.params["length"] if name == "scan" else 1
            total += times * sum(count(inner) for inner in _inner(equation.params))
    return total


def longest_scan(jaxpr: AnyJaxpr) -> int:
    """Returns the steps of the longest scan with products or convolutions, nested scans multiplied; 1 without one."""
    jaxpr = jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
    longest = 1
    for equation in jaxpr.eqns:
        inside = max((longest_scan(inner) for inner in _inner(equation.params)), default=1)
        works = equation.primitive.name == "scan" and count(equation.params["jaxpr"]) > 0
        longest = max(longest, inside * (equation.params["length"] if works else 1))
    return longest


def _inner(params: dict[str, Any]) -> list[AnyJaxpr]:
    """Returns the jaxprs among the parameters of an equation."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr | core.Jaxpr):
                found.append(item)
    return found


def _product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(left[d] for d in contracted)


def _shape(operand: core.Var | core.Literal) -> tuple[int, ...]:
    return operand.aval.shape  # type: ignore[attr-defined]  # products take and give arrays, which have shapes


def _convolution(equation: core.JaxprEqn) -> int:
    """Returns a convolution's FLOPs: padding counts as input, the zeros between a dilated array's values do not."""
    numbers = equation.params["dimension_numbers"]
    kernel = _shape(equation.invars[1])
    out = _shape(equation.outvars[0])
    inputs = kernel[numbers.rhs_spec[1]]  # of one feature group
    window = math.prod(kernel[d] for d in numbers.rhs_spec[2:])
    dilation = math.prod(equation.params["lhs_dilation"])
    return 2 * math.prod(out) * inputs * window // dilation // equation.params["batch_group_count"]

"""Writes numbers, counts and times as short text for people, and finds the ticks of an axis."""

from __future__ import annotations

import math


def number(value: float | None, digits: int = 3) -> str:
    """Returns a measured value with `digits` significant digits: 0.0213, 22.2, 1,230,000, 3.1e-05."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, decimals):,.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def short(value: float) -> str:
    """Returns an axis label: 0, 0.02, 1.5, 250, 12k, 1.2M, 3e-5. It is exact for ticks and rounded otherwise."""
    if value == 0:
        return "0"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    if abs(value) < 1e-4:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"


def share(part: float, whole: float) -> str:
    """Returns a part of a whole in percent, rounded down, so that "100%" means all of it."""
    thousandths = math.floor(1000 * part / whole + 1e-9)
    return f"{thousandths / 10:g}%"


def duration(seconds: float) -> str:
    """Returns seconds as 4.2 s, 2 min 5 s, 3 h 07 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Returns about `wanted` round numbers in [low, high], whose distance is 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns round numbers in [low, high] for a logarithmic axis: powers of ten, and 2 and 5 times these if few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{m}e{d}") for d in decades for m in (1, 2, 5) if low <= float(f"{m}e{d}") <= high]
    tens = [t for t in every if f"{t:e}".startswith("1.0")]
    if len(tens) < 3:
        return every
    return tens[:: math.ceil(len(tens) / 5)]

"""Draws error against evaluations of every deterministic solver, on data whose flow is known, as a chart.

    python -m studies.convergence --output=docs/gallery/convergence.svg

The data are a mixture of three Gaussians in the plane, whose denoiser has a closed form; the probability flow of the
continuous cosine schedule is followed from t = 0.95 to t = 0.05 in equal steps of log_snr, in float64. The error is
the root mean square distance from the result of 4000 Runge-Kutta steps. Prints a table with the order of each solver
between its last two points (minutes on two cores, most of them compiling).
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.samplers.dpmpp import DPMpp1S, DPMpp2M, DPMpp3M
from jaxgen.diffusion.samplers.ode import ODE
from jaxgen.diffusion.samplers.runge_kutta import RK4, Euler, Heun
from jaxgen.diffusion.samplers.unipc import UniPC
from jaxgen.diffusion.schedules import ContinuousCosine
from jaxgen.report.charts import Axis
from studies import harness

sys.path.append(str(harness.ROOT / "tests" / "diffusion"))
from mixture import denoiser, noised, samples  # noqa: E402

FIRST, LAST = 0.95, 0.05
EVALUATIONS = (8, 16, 32, 64, 128, 256, 512)
SCHEDULE = ContinuousCosine()

# name: solver, evaluations a step
SOLVERS: dict[str, tuple[Sampler, int]] = {
    "euler, ddim, dpmpp_1s order 1": (Euler(), 1),
    "heun": (Heun(), 2),
    "dpmpp_1s order 2": (DPMpp1S(order=2), 2),
    "dpmpp_1s order 3": (DPMpp1S(order=3), 3),
    "dpmpp_2m": (DPMpp2M(lower_order_final=False), 1),
    "dpmpp_3m, half curvature": (DPMpp3M(lower_order_final=False, half_curvature=True), 1),
    "dpmpp_3m": (DPMpp3M(lower_order_final=False), 1),
    "unipc order 2": (UniPC(lower_order_final=False), 1),
    "unipc order 3": (UniPC(order=3, lower_order_final=False), 1),
    "rk4": (RK4(), 4),
}
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)

COLOURS = "#888888 #d1495b #edae49 #66a182 #2e4057 #8d96a3 #00798c #9c528b #4f6d7a #b5651d #111111".split()
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 460, 64, 230, 16, 44


def times(steps: int) -> np.ndarray:
    return SCHEDULE.t_from_log_snr(np.linspace(SCHEDULE.log_snr(FIRST), SCHEDULE.log_snr(LAST), steps + 1))


def measure(count: int) -> dict[str, list[tuple[int, float]]]:
    """Returns `{name: [(evaluations, error), ...]}`."""
    denoise, keys = denoiser(SCHEDULE), jax.random.split(jax.random.key(0), count)
    x = noised(jax.random.key(1), SCHEDULE, FIRST, samples(jax.random.key(2), count).astype(jnp.float64))
    exact = RK4()(denoise, SCHEDULE, x, keys, times=times(4000))

    def error(result: jax.Array) -> float:
        return float(jnp.sqrt(jnp.square(result - exact).sum(-1).mean()))

    curves = {}
    for name, (sampler, stages) in SOLVERS.items():
        counts = [max(n // stages, 1) for n in EVALUATIONS]
        results = {stages * n: error(sampler(denoise, SCHEDULE, x, keys, times=times(n))) for n in counts}
        curves[name] = sorted(results.items())
    curves["ode (tsit5)"] = []
    for tolerance in TOLERANCES:
        found = ODE(5000, rtol=tolerance, atol=tolerance).solve(denoise, SCHEDULE, x, times=[FIRST, LAST])
        curves["ode (tsit5)"].append((int(found.evaluations), error(found.images)))
    return curves


def chart(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Draws a log-log chart as SVG, with each curve named at its end."""
    points = [p for curve in curves.values() for p in curve]
    across = Axis(min(p[0] for p in points), max(p[0] for p in points), LEFT, WIDTH - RIGHT, log=True)
    low, high = (np.log10([p[1] for p in points]).min(), np.log10([p[1] for p in points]).max())
    up = Axis(10 ** np.floor(low), 10 ** np.ceil(high), HEIGHT - BOTTOM, TOP, log=True)
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for power in range(int(np.floor(low)), int(np.ceil(high)) + 1, 2):
        y = float(up(10.0**power))
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    for value in EVALUATIONS:
        x = float(across(value))
        parts.append(f'<path d="M{x:.1f} {HEIGHT - BOTTOM}v5" stroke="#444"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value}</text>')
    parts.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#444"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">evaluations of the network</text>')
    ends = {name: float(up(curve[-1][1])) for name, curve in curves.items()}
    place = -np.inf
    for name in sorted(ends, key=ends.get):
        curve, colour = curves[name], COLOURS[list(curves).index(name)]
        line = "L".join(f"{float(across(a)):.1f} {float(up(b)):.1f}" for a, b in curve)
        dash = ' stroke-dasharray="5 3"' if "half" in name or name.startswith("ode") else ""
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
        place = max(place + 15, ends[name])
        x = float(across(curve[-1][0]))
        parts.append(f'<path d="M{x + 2:.1f} {ends[name]:.1f}L{WIDTH - RIGHT + 14} {place:.1f}" stroke="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 18}" y="{place + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    head += 'aria-label="Error against evaluations of the deterministic solvers" font-family="sans-serif" '
    return f'{head}font-size="12">{"".join(parts)}</svg>\n'


def curves_table(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Makes a table of errors: a row for each solver, a column for each number of evaluations, and the order at the
    last two.
    """
    rows = []
    for name, curve in curves.items():
        (n0, e0), (n1, e1) = curve[-2:]
        if name.startswith("ode"):
            rows.append([name, ", ".join(f"{n}: {e:.1e}" for n, e in curve)])
        else:
            order = np.log(e0 / e1) / np.log(n1 / n0)
            rows.append([name, *(f"{e:.1e}" for _, e in curve), f"{order:.2f}"])
    return harness.table(["solver", *EVALUATIONS, "order"], rows)


def main(
    output: Path = Path("docs/gallery/convergence.svg"),
    count: Annotated[int, "points that are followed"] = 256,
) -> None:
    with jax.enable_x64(True):
        curves = measure(count)
    print(curves_table(curves))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(chart(curves))
    print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(harness.run(main))

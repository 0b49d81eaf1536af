"""Measures what guidance by gradients costs inside a sampler's loop, and what a longer grid costs to compile.

    python -m benchmarks.guidance_cost

One process. In each round every function below runs once, in turn, so that what else the machine does meets all alike;
printed are medians over the rounds, and of ratios taken within a round, of wall seconds and of the seconds that all
the process's threads were at work.

    denoiser, classifier gradient        one call each, outside any loop: what a guided step must do
    guided step                          of a DDIM sampler under classifier guidance, whole run / steps
    universal gradient                   prediction and gradient through the denoiser, outside any loop
    universal step                       of a sampler under universal guidance

The steps are taken with `gradients_in_loops` and without. Then: seconds to trace and compile the classifier-guided
sampler at 10 and at 1000 steps.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion import schedules
from jaxgen.diffusion.guidance import Classifier as ClassifierGuidance
from jaxgen.diffusion.guidance import Guidance, GuidanceInputs, Universal
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import denoiser
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.networks.classifier import Classifier
from jaxgen.networks.layers.convolution import gradients_in_loops
from jaxgen.networks.unet import UNet
from jaxgen.networks.unet_encoder import UNetEncoder
from studies import harness


class Bench:
    """Holds networks with random weights, and the functions that are timed."""

    def __init__(self, size: int, channels: int, batch: int) -> None:
        shape = {"channels": channels, "channel_multipliers": (1, 2, 4), "blocks": 1, "norm_groups": 8}
        shape |= {"attention_resolutions": (size // 4,)}
        self.schedule = schedules.Cosine()
        self.network = UNet(out_channels=1, **shape)
        self.noisy, self.clean = UNetEncoder(num_classes=10, **shape), Classifier(num_classes=10)
        self.keys = jax.random.split(jax.random.key(0), batch)
        self.x = per_image_noise(self.keys, 0, (size, size, 1))
        self.label = jnp.arange(batch) % 10
        time_of = jnp.zeros(batch)
        inputs = {"denoiser": (self.network, time_of), "noisy": (self.noisy, time_of), "clean": (self.clean,)}
        self.params = {}
        for i, (name, (network, *rest)) in enumerate(inputs.items()):
            fresh = jax.jit(network.init)(jax.random.key(i), self.x, *rest)["params"]
            # the zeros that networks begin with would make trivial gradients
            leaves, tree = jax.tree.flatten(fresh)
            keys = jax.random.split(jax.random.key(i + 10), len(leaves))
            drawn = [a + 0.02 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
            self.params[name] = jax.tree.unflatten(tree, drawn)

    def means(self, params: dict, classifier: str, context: Callable) -> GuidanceInputs:
        def logits(x: jax.Array, t: jax.Array) -> jax.Array:
            if classifier == "clean":
                return self.clean.apply({"params": params["clean"]}, x)[0]
            return self.noisy.apply({"params": params["noisy"]}, x, self.schedule.conditioning(t))[0]

        def network(x: jax.Array, t: jax.Array) -> jax.Array:
            return self.network.apply({"params": params["denoiser"]}, x, t)

        denoise = denoiser(self.schedule, V(), network)
        return GuidanceInputs(context()(denoise), {}, classifier=context()(logits), label=self.label)

    def call(self) -> Callable:
        """Makes one call of the denoiser."""
        return jax.jit(lambda p, x, k: self.means(p, "noisy", plain).denoise(x, jnp.float32(0.5)).x0)

    def gradient(self) -> Callable:
        """Takes one gradient of the noise-aware classifier."""

        def log_p(x: jax.Array, p: dict) -> jax.Array:
            logits = self.means(p, "noisy", plain).classifier(x, jnp.full(len(x), 0.5))
            return jnp.take_along_axis(jax.nn.log_softmax(logits), self.label[:, None], axis=1).sum()

        return jax.jit(lambda p, x, k: jax.grad(log_p)(x, p))

    def once(self, guide: Guidance, classifier: str) -> Callable:
        """Makes one guided prediction, outside any loop."""
        return jax.jit(lambda p, x, k: guide(self.means(p, classifier, plain))(x, jnp.float32(0.5)).x0)

    def sampler(self, guide: Guidance, classifier: str, context: Callable, steps: int) -> Callable:
        def run(p: dict, x: jax.Array, keys: jax.Array) -> jax.Array:
            return DDIM(steps)(guide(self.means(p, classifier, context)), self.schedule, x, keys)

        return jax.jit(run)

    def seconds(self, function: Callable, repeats: int = 1) -> np.ndarray:
        """Returns wall and processor seconds."""
        start = clocks()
        for _ in range(repeats):
            jax.block_until_ready(function(self.params, self.x, self.keys))
        return (clocks() - start) / repeats

    def compile_seconds(self, steps: int) -> np.ndarray:
        function = self.sampler(ClassifierGuidance(), "noisy", gradients_in_loops, steps)
        start = clocks()
        function.lower(self.params, self.x, self.keys).compile()
        return clocks() - start


def clocks() -> np.ndarray:
    return np.asarray([time.perf_counter(), time.process_time()])


@contextlib.contextmanager
def plain():
    """Uses the form that networks have outside loops."""
    yield


def functions_of(bench: Bench, steps: int) -> dict[str, tuple[Callable, int]]:
    """Returns `{name: (function, denoiser calls in it)}`."""
    few = max(2, steps // 10)  # the slow ones
    classifier, universal = ClassifierGuidance(), Universal()
    return {
        "denoiser": (bench.call(), 1),
        "classifier gradient": (bench.gradient(), 1),
        "guided step": (bench.sampler(classifier, "noisy", gradients_in_loops, steps), steps),
        "guided step, plain": (bench.sampler(classifier, "noisy", plain, few), few),
        "universal gradient": (bench.once(universal, "clean"), 1),
        "universal step": (bench.sampler(universal, "clean", gradients_in_loops, steps), steps),
        "universal step, plain": (bench.sampler(universal, "clean", plain, few), few),
    }


def ratio(rounds: list[dict[str, np.ndarray]], of: str, to: str) -> str:
    """Says the ratio of two functions' seconds in words: the median over rounds, the least and the most."""
    ratios = np.asarray([r[of] / r[to] for r in rounds])
    (wall, work), (low, _), (high, _) = np.median(ratios, axis=0), ratios.min(0), ratios.max(0)
    return f"{wall:.2f} (from {low:.2f} to {high:.2f}), of processor time {work:.2f}"


def compare_compilation(bench: Bench, times: int) -> None:
    """Prints the seconds to trace and compile a sampler of 10 and of 1000 steps."""
    bench.compile_seconds(10)
    found: dict[int, list[np.ndarray]] = {10: [], 1000: []}
    for i in range(times):
        for steps in (10, 1000) if i % 2 else (1000, 10):
            found[steps].append(bench.compile_seconds(steps))
    short, long = (np.median(found[steps], axis=0) for steps in (10, 1000))
    print(f"trace and compile 10 steps: {short[0]:.2f} s, {short[1]:.2f} s of processors")
    print(f"1000 steps / 10 steps: {long[0] / short[0]:.3f}, of processor time {long[1] / short[1]:.3f}")


def main(
    size: int = 28,
    channels: int = 16,
    batch: int = 16,
    steps: int = 20,
    rounds: int = 7,
    compilations: Annotated[int, "compilations of each length; 0 for none"] = 6,
) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    bench = Bench(size, channels, batch)
    functions = functions_of(bench, steps)
    for function, _ in functions.values():
        bench.seconds(function)
    # a single call is short: repeated, so that a round's figure is not one moment's luck
    repeats = {name: steps // 2 if calls == 1 else 1 for name, (_, calls) in functions.items()}
    took = []
    for _ in range(rounds):
        row = {n: bench.seconds(function, repeats[n]) / calls for n, (function, calls) in functions.items()}
        took.append({**row, "sum": row["denoiser"] + row["classifier gradient"]})
    for name in took[0]:
        wall, work = 1e3 * np.median([r[name] for r in took], axis=0)
        print(f"{name:24s} {wall:9.2f} ms {work:9.2f} ms of processors")
    print(f"classifier-guided step / (denoiser + classifier gradient): {ratio(took, 'guided step', 'sum')}")
    print(f"    without gradients_in_loops: {ratio(took, 'guided step, plain', 'sum')}")
    print(f"universal step / universal gradient: {ratio(took, 'universal step', 'universal gradient')}")
    print(f"    without gradients_in_loops: {ratio(took, 'universal step, plain', 'universal gradient')}")
    if compilations:
        compare_compilation(bench, compilations)


if __name__ == "__main__":
    sys.exit(harness.run(main))

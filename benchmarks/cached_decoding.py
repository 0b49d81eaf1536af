"""Measures what the cache of keys and values saves when images are drawn token by token.

    python -m benchmarks.cached_decoding                          # the network of configs/autoregressive_shapes.py
    python -m benchmarks.cached_decoding --batch=16 --repeats=5

Draws the codes of a batch of images twice, by the same compiled scan over places: with the cache, as
`jaxgen.methods.autoregressive` does, and with a call on the whole sequence for each code. Weights are random, and the
same; codes are drawn greedily, so that both must choose the same ones. Both run in turns; prints one JSON line with the
largest difference of logits and the median seconds of a batch.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Array, Tree
from jaxgen.config import files
from jaxgen.entry_point import Parser, count, entry_point
from jaxgen.host import use_cpu_cores
from jaxgen.methods.autoregressive.autoregressive import Autoregressive
from jaxgen.methods.autoregressive.token_sampler import TokenSampler
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.runs.setup import make_method


def uncached(method: Autoregressive, params: Tree, tokens: Array) -> Array:
    """Returns codes `[B, N]`, each drawn greedily from a call on the whole sequence."""

    def step(codes: Array, place: Array) -> tuple[Array, None]:
        logits = method.logits(params, tokens, codes)[1]
        chosen = jax.lax.dynamic_index_in_dim(logits, place, 1, keepdims=False).argmax(axis=-1)
        return codes.at[:, place].set(chosen.astype(jnp.int32)), None

    codes, _ = jax.lax.scan(step, jnp.zeros((len(tokens), method.places), jnp.int32), jnp.arange(method.places))
    return codes


def cached(method: Autoregressive, params: Tree, tokens: Array, keys: Array) -> Array:
    """Returns the codes that the method draws."""
    return method.drawn(params, {"tokens": tokens}, keys)


def largest_gap(method: Autoregressive, params: Tree, tokens: Array, codes: Array) -> float:
    """Returns the largest difference of the logits of all codes, computed one by one with the cache and at once."""
    whole = method.logits(params, tokens, codes)[1]
    network, start = method.transformer, method._beginning(tokens)
    extend = functools.partial(apply_params, network, params["transformer"], method="extend")
    logits, past = extend(start, network.empty(len(tokens)), 0)

    def step(past: Tree, place: Array) -> tuple[Tree, Array]:
        ids = method.vocabulary + jax.lax.dynamic_slice_in_dim(codes, place - 1, 1, 1)
        logits, past = extend(ids, past, method.length + place)
        return past, method._of_codes(logits[:, 0])

    _, rest = jax.lax.scan(step, past, jnp.arange(1, method.places))
    one_by_one = jnp.concatenate([method._of_codes(logits[:, -1:]), rest.swapaxes(0, 1)], axis=1)
    return float(jnp.abs(whole - one_by_one).max())


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks.cached_decoding", description="Times decoding with and without a cache.")
    parser.add_argument("--config", default="configs/autoregressive_shapes.py")
    parser.add_argument("--batch", type=count("batch"), default=8, help="images that are drawn together")
    parser.add_argument("--repeats", type=count("repeats"), default=3)
    given = parser.parse_args(arguments)
    use_cpu_cores()
    config, _ = files.load_config(given.config)
    config.sampler.temperature, config.guidance.scale = 0.0, 1.0
    method = make_method(config)
    assert isinstance(method, Autoregressive) and isinstance(method.sampler, TokenSampler)
    sequence = jnp.zeros((1, method.length + method.places), jnp.int32)
    fresh = jax.jit(lambda key: init_params(method.transformer, key, sequence))(jax.random.key(0))
    random = np.random.default_rng(0)  # fresh weights say nearly the same of every code
    fresh = jax.tree.map(lambda x: x + 0.1 * random.normal(size=x.shape).astype(np.float32), fresh)
    params = {"transformer": fresh}
    tokens = jnp.asarray(random.integers(1, method.vocabulary, (given.batch, method.length)), jnp.int32)
    keys = jax.random.split(jax.random.key(1), given.batch)
    ways = {
        "cached": functools.partial(jax.jit(functools.partial(cached, method)), params, tokens, keys),
        "uncached": functools.partial(jax.jit(functools.partial(uncached, method)), params, tokens),
    }
    codes = {name: np.asarray(way()) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(way())
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    facts = {
        "batch": given.batch, "tokens": method.length + method.places, "codes": method.places,
        "same_codes": bool((codes["cached"] == codes["uncached"]).all()),
        "distinct_codes": len(np.unique(codes["cached"])),
        **{f"{name}_seconds": round(value, 4) for name, value in medians.items()},
        "ratio": round(medians["uncached"] / medians["cached"], 2),
    }  # fmt: skip
    facts["largest_gap_of_logits"] = largest_gap(method, params, tokens, jnp.asarray(codes["cached"]))
    print(json.dumps(facts))


if __name__ == "__main__":
    sys.exit(main())

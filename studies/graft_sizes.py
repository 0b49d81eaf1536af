"""Says what merging a low-rank update in bfloat16 costs, and how large the checkpoints of grafts are.

    python -m studies.graft_sizes --out=grafts.jsonl

First table: a layer of 320 x 320 whose weights are bfloat16, and an update of rank 4 of a given size |BA| / |W|
(Frobenius norms). What the update does to random inputs is compared with the same in float64; the numbers are relative
errors, |found - true| / |true|. "merged": the update is added to the weights, which are rounded to bfloat16 again.
"hook": the update is computed beside them, as `jaxgen.methods.grafts.low_rank` does, and rounded to bfloat16.
"output": the true sum of both, rounded to bfloat16 once: what rounding of the layer's output alone does in either case.

Second table: the state of grafts on the networks of Stable Diffusion 1.5 (parameters, their average, two moments of
Adam, all float32), with the size of the checkpoint on disk. The networks' own weights are not made.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxgen.diffusion import schedules
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.interop.diffusers_condition_unet import unet_shapes
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.base import Graft
from jaxgen.methods.grafts.leaves import Leaves
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.methods.grafts.token_rows import TokenRows
from jaxgen.networks.unet import UNet
from studies.harness import Rows, prepare, run, table

WIDTH, RANK, INPUTS = 320, 4, 1024
RATIOS = (0.1, 0.03, 0.01, 0.003, 0.001)
GRAFTS: dict[str, Graft] = {
    "a new word (token_rows, one vector)": TokenRows((0,), word="<new>"),
    "low_rank, rank 4, cross-attention": LowRank(where=r"cross_attention/(query|key|value|out)$"),
    "low_rank, rank 4, all attentions": LowRank(where=r"(self|cross)_attention/(query|key|value|out)$"),
    "low_rank, rank 128, all attentions": LowRank(where=r"(self|cross)_attention/(query|key|value|out)$", rank=128),
    "leaves, keys and values of cross-attention": Leaves(where=r"cross_attention/(key|value)/"),
}


def main(out: Annotated[Path, "where rows are kept"] = Path("grafts.jsonl")) -> None:
    """Prints both tables."""
    prepare()
    rows = Rows(out)
    errors = [rows.get({"ratio": ratio}, lambda r=ratio: rounding(r)) for ratio in RATIOS]
    columns = ("ratio", "merged", "hook", "output")
    print(table(list(columns), [[row[name] for name in columns] for row in errors]))
    sizes = [rows.get({"graft": name}, lambda g=graft: size(g)) for name, graft in GRAFTS.items()]
    columns = ("graft", "learned", "checkpoint_mb")
    print(table(list(columns), [[row[name] for name in columns] for row in sizes]))


def rounding(ratio: float) -> dict[str, float]:
    """Returns the relative errors of an update of this size."""
    chance = np.random.default_rng(0)
    weights = jnp.asarray(chance.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5, jnp.bfloat16)
    a, b = (jnp.asarray(chance.standard_normal(shape), jnp.float32) for shape in ((WIDTH, RANK), (RANK, WIDTH)))
    b = b * (ratio * jnp.linalg.norm(weights.astype(jnp.float32)) / jnp.linalg.norm(a @ b))
    x = jnp.asarray(chance.standard_normal((INPUTS, WIDTH)), jnp.bfloat16)
    graft, part = LowRank(rank=RANK), {"layer": {"a": a, "b": b}}
    (hook,) = graft._hooks(part).values()
    exact = {name: np.asarray(value, np.float64) for name, value in (("x", x), ("w", weights), ("a", a), ("b", b))}
    true, plain = exact["x"] @ exact["a"] @ exact["b"], exact["x"] @ exact["w"]
    together = graft.merged({"denoiser": {"layer": {"kernel": weights}}}, part)["denoiser"]["layer"]["kernel"]
    change = np.asarray(together.astype(jnp.bfloat16), np.float64) - exact["w"]
    found = {
        "merged": exact["x"] @ change,
        "hook": np.asarray(hook(jnp.zeros((INPUTS, WIDTH), jnp.bfloat16), x), np.float64),
        "output": np.asarray(jnp.asarray(plain + true, jnp.bfloat16), np.float64) - plain,
    }
    return {name: float(f"{np.linalg.norm(y - true) / np.linalg.norm(true):.2g}") for name, y in found.items()}


def size(graft: Graft) -> dict[str, float]:
    """Returns how many values a graft learns on Stable Diffusion 1.5, and the megabytes of its checkpoint."""
    unet = UNet(4, 320, (1, 2, 4, 4), 2, attention_levels=(0, 1, 2), heads=8, context_dim=768)
    text = {"token": {"embedding": jax.ShapeDtypeStruct((49408, 768), jnp.float32)}}
    method = DDPM(unet, schedules.Cosine(), DDIM(steps=2), (64, 64, 4))
    params = {"denoiser": unet_shapes(unet, 4), "text": text}
    part = jax.eval_shape(lambda given: graft.start("graft", jax.random.key(0), method, given, {}), params)
    learned = sum(leaf.size for leaf in jax.tree.leaves(part))
    chance = np.random.default_rng(0)
    state = [jax.tree.map(lambda leaf: chance.standard_normal(leaf.shape, np.float32), part) for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "state"
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
            writer.save(place, dict(zip(("params", "ema", "first", "second"), state, strict=True)))
        written = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return {"learned": learned, "checkpoint_mb": round(written / 1e6, 3)}


if __name__ == "__main__":
    sys.exit(run(main))

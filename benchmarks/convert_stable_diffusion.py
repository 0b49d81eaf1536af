"""Measures in what time and memory a folder of diffusers in the size of Stable Diffusion 1.5 is read and written.

    python -m benchmarks.convert_stable_diffusion --dtype=float32
    python -m benchmarks.convert_stable_diffusion --dtype=float16

Writes the folder into a temporary one, 4.3 or 2.1 GB of random weights in the shapes of its published configs, then, in
a process of its own, reads it as `--mode=sample` does, every tensor placed on the device, as float32 and once more as
the files have it, and writes it back. Prints one JSON line for each: seconds, bytes of the weights as they were kept,
the process's peak memory (resident, with Python and JAX) over them, and, for the way back, whether all tensors are the
same. `cpu_seconds`, of all threads, mean more than `seconds` where others are at work. Neither torch nor diffusers is
needed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import Epsilon
from jaxgen.files import write_json
from jaxgen.interop import diffusers_autoencoder, diffusers_condition_unet, diffusers_pipeline
from jaxgen.interop.clip import text_names
from jaxgen.interop.diffusers_files import MODEL, TEXT_MODEL, Entry, open_weights, save_weights
from jaxgen.interop.diffusers_scheduler import Noise, noise_to_diffusers
from jaxgen.networks.autoencoder_kl import AutoencoderKL
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet
from studies import harness

UNET = UNet(
    out_channels=4,
    channels=320,
    channel_multipliers=(1, 2, 4, 4),
    attention_levels=(0, 1, 2),
    heads=8,
    context_dim=768,
)
TEXT = TextTower(width=768, depth=12, heads=12, mlp_features=3072)
STEMS = {"unet": MODEL, "vae": MODEL, "text_encoder": TEXT_MODEL}


class Drawn:
    """Holds random numbers of a shape that are drawn when they are written."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.random.default_rng(self.shape).standard_normal(self.shape, np.float32) * np.float32(0.02)


def drawn(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: Drawn(leaf.shape), shapes)


def text_entries(params: Any) -> Iterator[Entry]:
    for ours, theirs, axes in text_names(TEXT.depth):
        leaf = params
        for part in ours.split("/"):
            leaf = leaf[part]
        yield Entry(theirs, leaf, tuple(axes.index(axis) for axis in range(len(axes))))


def make(folder: Path, dtype: str) -> None:
    """Writes the folder without a tokenizer, which is no weight."""
    autoencoder = AutoencoderKL()
    unet_config = diffusers_condition_unet.condition_unet_config(UNET, 4, 64) | {"use_linear_projection": False}
    configs = {
        "unet": unet_config,
        "vae": diffusers_autoencoder.autoencoder_config(autoencoder, 3),
        "text_encoder": diffusers_pipeline.clip.text_config(TEXT),
    }
    write_json(folder / diffusers_pipeline.INDEX, {"_class_name": "StableDiffusionPipeline"})
    noise = noise_to_diffusers(Noise(schedules.ScaledLinear(), Epsilon()))
    write_json(folder / "scheduler" / diffusers_pipeline.SCHEDULER, noise)
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    tokens = jax.ShapeDtypeStruct((1, 77), np.int32)
    key = jax.random.key(0)
    unet = drawn(diffusers_condition_unet.unet_shapes(UNET, 4))
    vae = drawn(jax.eval_shape(autoencoder.init, key, images)["params"])
    text = drawn(jax.eval_shape(TEXT.init, key, tokens)["params"])
    entries = {
        "unet": diffusers_condition_unet.condition_unet_to_diffusers(unet, UNET, linear=False),
        "vae": diffusers_autoencoder.autoencoder_to_diffusers(vae, autoencoder),
        "text_encoder": text_entries(text),
    }
    for part, config in configs.items():
        write_json(folder / part / "config.json", config)
        save_weights(folder / part / f"{STEMS[part]}.safetensors", entries[part], dtype)


def measure(folder: Path, dtype: str, back: str) -> None:
    """Reads the folder, and where `back` names another writes it there."""
    before = peak()
    start, cpu = time.perf_counter(), time.process_time()
    pipeline = diffusers_pipeline.read_pipeline(folder)
    params = diffusers_pipeline.read_params(folder, dtype, jax.device_put)
    jax.block_until_ready(params)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    told = {"what": f"read as {dtype or 'in the files'}", "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
    print(
        json.dumps(told | {"peak": peak(), "peak_over_weights": round(peak() / size, 3), "before": before}), flush=True
    )
    if not back:
        return
    start = time.perf_counter()
    diffusers_pipeline.save_pipeline(back, pipeline, params)
    seconds = time.perf_counter() - start
    same = all(
        np.array_equal(mine[name].view(np.uint8), theirs[name].view(np.uint8))
        and mine[name].dtype == theirs[name].dtype
        for part, stem in STEMS.items()
        for mine, theirs in [(open_weights(folder / part, stem), open_weights(Path(back) / part, stem))]
        for name in {*mine, *theirs}
    )
    print(json.dumps({"what": "written back", "seconds": round(seconds, 1), "peak": peak(), "same": same}), flush=True)


def peak() -> int:
    """Returns the most bytes that were resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(
    dtype: Annotated[str, "type of the files: float32, float16 or bfloat16"] = "float32",
    folder: Annotated[str, "measure this one, and make none"] = "",
    kept: Annotated[str, "with --folder: the type that weights are kept in"] = "float32",
    back: Annotated[str, "with --folder: write it here too"] = "",
) -> None:
    if folder:
        measure(Path(folder), kept, back)
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "folder"
        start = time.perf_counter()
        make(made, dtype)
        print(json.dumps({"what": "made", "seconds": round(time.perf_counter() - start, 1)}), flush=True)
        for type_, copy in (("float32", ""), ("", str(Path(scratch) / "back"))):
            command = [sys.executable, "-m", "benchmarks.convert_stable_diffusion"]
            subprocess.run([*command, f"--folder={made}", f"--kept={type_}", f"--back={copy}"], check=True)


if __name__ == "__main__":
    sys.exit(harness.run(main))

"""Says which short runs are made, and makes them and their images through the command line of a checkout."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from studies.same_bits import renames
from studies.same_bits.renames import RENAMES
from studies.same_bits.tiny_pipeline import NEGATIVE_PROMPT, PROMPTS

BATCH = 64  # train.batch_size of every case
DRAWN = 8  # images of each variant


@dataclasses.dataclass(frozen=True)
class Case:
    """Describes a short run.

    Attributes:
      name: the config's, in the old checkout.
      overrides: of config keys, in the old checkout's words.
      given: keys whose value is the folder of another case's run.
      variants: `{name: overrides}` of the images that are drawn.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"default": {}})


SOLVERS: dict[str, dict[str, Any]] = {
    "default": {},
    "dpmpp_2m": {"sampler.name": "dpmpp_2m", "sampler.steps": 10, "sampler.grid": "log_snr"},
}
CASES = (
    Case("ddpm_digits", variants=SOLVERS | {"ddpm": {"sampler.name": "ddpm", "sampler.steps": 20}}),
    Case("gan_digits"),
    Case("vae_digits"),
    # both stages are seen: the game begins at the 11th update
    Case("kl_autoencoder_digits", {"method.adversarial_start": 10 * BATCH}, variants={}),
    Case("latent_diffusion_digits", given={"init_from.autoencoder": "kl_autoencoder_digits"}, variants=SOLVERS),
    Case("dit_digits"),
)
STABLE_DIFFUSION = "stable_diffusion"
PIPELINE = {"sampler.steps": 5, "evaluate.batch_size": 2}
PIPELINE_VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "dpmpp_2m": {"sampler.name": "dpmpp_2m", "sampler.grid": "log_snr"},
}


class Checkout:
    """Drives a checkout of jaxgen through its main.py.

    Args:
      cache: folder of compiled programs. patched: whether renamed names have the keys of the old ones.
    """

    def __init__(self, folder: pathlib.Path, cache: pathlib.Path, patched: bool):
        self.folder, self.cache, self.patched = folder.resolve(), cache, patched
        self._keys: dict[str, str] = {}  # words of this checkout for keys and values, where not the old ones
        if not (self.folder / "main.py").exists():
            raise SystemExit(f"same_bits: {self.folder} is no checkout of jaxgen: it has no main.py.")

    def config_flag(self, name: str) -> str:
        """Returns the flag that names a config, by its new name where the old one does not exist."""
        there = (self.folder / "configs" / f"{name}.py").exists()
        return f"--config=configs/{name if there else RENAMES['configs'].get(name, name)}.py"

    def run(self, log: pathlib.Path, config: str, overrides: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
        """Runs main.py, with new words where it refuses old ones; its output goes to a file.

        Raises:
          RuntimeError: where it fails.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        launcher = [os.path.abspath(renames.__file__)] if self.patched else ["main.py"]
        while True:
            words = [self.config_flag(config), *self._override_flags(overrides), *self._plain_flags(flags)]
            with log.open("w") as file:
                found = subprocess.run(
                    [sys.executable, *launcher, *words],
                    cwd=self.folder,
                    env=self._environment(),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            if found.returncode == 0:
                return
            said = log.read_text()
            if not self._learn(overrides, said):
                tail = "\n".join(said.strip().splitlines()[-5:])
                raise RuntimeError(f"status {found.returncode}; {log} ends with\n{tail}")

    def _environment(self) -> dict[str, str]:
        fixed = {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",  # nothing is written into the checkout
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2",  # whatever the machine has
            "NPROC": "4",
            "JAX_COMPILATION_CACHE_DIR": str(self.cache),
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # else main.py would start itself again with it
        }
        return {**os.environ, **fixed}

    def _override_flags(self, overrides: Mapping[str, Any]) -> list[str]:
        words = []
        for key, value in overrides.items():
            value = self._keys.get(f"{key}={value}", value)
            words.append(f"--config.{self._keys.get(key, key)}={value}")
        return words

    def _plain_flags(self, flags: Mapping[str, Any]) -> list[str]:
        words = []
        for name, value in flags.items():
            many = value if isinstance(value, tuple) else (value,)
            words += [f"--{self._flag(name)}={each}" for each in many]
        return words

    def _flag(self, name: str) -> str:
        defined = f'"{name}"' in (self.folder / "main.py").read_text()
        return name if defined else RENAMES["flags"].get(name, name)

    def _learn(self, overrides: Mapping[str, Any], said: str) -> bool:
        """Returns whether an old word was refused that has a new one; the new one is used from now on."""
        learned = False
        for key, value in overrides.items():
            new_key, pair = RENAMES["config"].get(key), f"{key}={value}"
            refusals = (f"config.{key} does not exist", f"config.{key}: the method has no such", "names a section")
            unknown_key = any(refusal in said for refusal in refusals)
            if new_key and key not in self._keys and unknown_key:
                self._keys[key], learned = new_key, True
            unknown_value = f"config.{self._keys.get(key, key)}={value!r} is unknown" in said
            if pair in RENAMES["values"] and pair not in self._keys and unknown_value:
                self._keys[pair], learned = RENAMES["values"][pair], True
        return learned


def train_overrides(case: Case, seed: int, updates: int, runs: Mapping[str, pathlib.Path]) -> dict[str, Any]:
    """Returns the overrides of a case's training, in the old checkout's words."""
    return {
        "seed": seed,
        "train.batch_size": BATCH,
        "train.total_images": updates * BATCH,
        "train.log_every_images": BATCH,
        "train.checkpoint_every_images": 0,  # only the one at the end
        "train.sample_every_images": 0,
        "train.evaluate_every_images": 0,
        "train.tensorboard": False,
        "evaluate.at_end": False,
        "evaluate.batch_size": 2 * DRAWN,  # of the sampler
        **case.overrides,
        **{key: runs[name] for key, name in case.given.items()},
    }


def train(checkout: Checkout, case: Case, folder: pathlib.Path, overrides: Mapping[str, Any]) -> pathlib.Path:
    """Trains a case in `folder`; returns the run's folder."""
    run = folder / "run"
    checkout.run(folder / "train.log", case.name, overrides, {"workdir": run})
    return run


def draw(
    checkout: Checkout,
    case: Case,
    variant: str,
    folder: pathlib.Path,
    run: str,
    overrides: Mapping[str, Any],
    seed: int,
) -> pathlib.Path:
    """Draws a variant from the run `run` in `folder`; returns the folder of the images."""
    out = folder / f"samples_{variant}"
    flags = {"workdir": folder / run, "mode": "sample", "num": DRAWN, "seed": seed, "out": out}
    checkout.run(folder / f"samples_{variant}.log", case.name, {**overrides, **case.variants[variant]}, flags)
    return out


def draw_pipeline(
    checkout: Checkout, variant: str, folder: pathlib.Path, made: pathlib.Path, seed: int
) -> pathlib.Path:
    """Draws from the pipeline that `write_pipeline` wrote into `made`; returns the folder of the images."""
    out = folder / f"samples_{variant}"
    overrides = {"init_from.pretrained": made / "pipeline", **PIPELINE, **PIPELINE_VARIANTS[variant]}
    texts = {"prompt": PROMPTS, "negative_prompt": NEGATIVE_PROMPT, "latents": made / f"noise_{seed}.npy"}
    flags = {"mode": "sample", "num": len(PROMPTS), "seed": seed, "out": out, **texts}
    checkout.run(folder / f"samples_{variant}.log", STABLE_DIFFUSION, overrides, flags)
    return out

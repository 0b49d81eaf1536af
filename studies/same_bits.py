"""Shows that two checkouts of jaxgen train and draw the same bits, across renamings.

    python -m studies.same_bits --phase=before --before=OLD --out=DIR     # once: trains, draws, keeps
    python -m studies.same_bits --phase=after --after=NEW --out=DIR       # as often as wanted: compares; status 0 or 1

For each of `CASES` a short run logs every update. The second phase compares with the first

- `losses`: the text of every number of every line of metrics.jsonl, times and rates left out;
- `checkpoint`: the recorded checksums of all arrays of the last checkpoint;
- `samples <variant>`: the arrays of samples.npz, and pictures of the same name, drawn from the weights that the old
  checkout trained. For this they are put into a run folder of the new checkout (`convert`).

Last comes a tiny Stable Diffusion folder, which diffusers makes with random weights in the first phase (torch,
diffusers and transformers are needed there only), drawn from the same noise and texts.

The checkouts are driven through their command line alone, in processes of their own with the checkout as working
directory and PYTHONPATH, so that it does not matter which modules and functions have moved. What the script does know
of them stands in `RENAMES`, `FOLD`, `STATE_ITEMS` and the names of files. A renamed word is looked up only where the
old one is not found, so that either phase accepts old, new and half-renamed checkouts.

Random keys of a step are folded from its turn's name. With `--names=old`, the default, the new checkout therefore runs
through `--patched-main`, which gives renamed names the keys of the old ones; `--names=own` runs its main.py as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import logging
import os
import pathlib
import platform
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# What has another name in the new checkout, {old: new}.
RENAMES: dict[str, dict[str, str]] = {
    # groups, memory entries and turns: whole segments of the paths in checkpoints, of metrics' names, and random keys
    "names": {"critic": "discriminator", "bad": "nonfinite_count"},
    # metrics whose name changes beyond these segments, such as "critic/gap": "discriminator/difference"
    "metrics": {},
    # submodules: segments of the paths of parameters, which also enter flax's keys at initialisation
    "modules": {},
    # keys that the script sets, without "config."
    "config": {"sampler.grid": "sampler.spacing"},
    # values of such keys, "<old key>=<old value>": new value
    "values": {},
    # files in configs/, without .py
    "configs": {},
    # flags of main.py, without dashes
    "flags": {},
    # arrays in samples.npz
    "samples": {},
}
FOLD = "fold_name"  # the function that folds a turn's name into a key
STATE_ITEMS = ("params", "ema", "memory", "opt_state", "counters")  # folders of a checkpoint that hold arrays
TIMES = re.compile(r"seconds|_per_second")  # metrics that may differ

BATCH = 64  # train.batch_size of every case
DRAWN = 8  # images of each variant
LENGTH = 12  # tokens of a text of the tiny pipeline
PROMPTS, NEGATIVE_PROMPT = ("a red cat", "dog & CAT!"), "red dog"


@dataclasses.dataclass(frozen=True)
class Case:
    """A short run.

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


# -- a checkout and its command line


class Checkout:
    """A checkout of jaxgen, driven through its main.py.

    Args:
      cache: folder of compiled programs. patched: whether renamed names have the keys of the old ones.
    """

    def __init__(self, folder: pathlib.Path, cache: pathlib.Path, patched: bool):
        self.folder, self.cache, self.patched = folder.resolve(), cache, patched
        self._keys: dict[str, str] = {}  # words of this checkout for keys and values, where not the old ones
        if not (self.folder / "main.py").exists():
            raise SystemExit(f"same_bits: {self.folder} is no checkout of jaxgen: it has no main.py.")

    def config_flag(self, name: str) -> str:
        """The flag that names a config, under its new name where the old one is not there."""
        there = (self.folder / "configs" / f"{name}.py").exists()
        return f"--config=configs/{name if there else RENAMES['configs'].get(name, name)}.py"

    def run(self, log: pathlib.Path, config: str, overrides: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
        """Runs main.py, with new words where it refuses old ones; what it says goes to a file.

        Raises:
          RuntimeError: where it fails.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        launcher = [os.path.abspath(__file__), "--patched-main"] if self.patched else ["main.py"]
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
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # what main.py would begin anew for
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
        """Whether the refusal was of an old word for which there is a new one, which is taken from now on."""
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


def patched_main(arguments: Sequence[str]) -> None:
    """Runs main.py of the working directory with renamed turns and modules having the old ones' random keys."""
    here = pathlib.Path.cwd()
    sys.path[0] = str(here)
    _patch_turns(here)
    if RENAMES["modules"]:
        _patch_modules()
    sys.argv = ["main.py", *arguments]
    runpy.run_path("main.py", run_name="__main__")


def _patch_turns(checkout: pathlib.Path) -> None:
    files = [f for f in (checkout / "jaxgen").rglob("*.py") if f"def {FOLD}(" in f.read_text()]
    if len(files) != 1:
        raise SystemExit(f"same_bits: {FOLD} is defined in {len(files)} files of {checkout}; adapt FOLD.")
    name = ".".join(files[0].relative_to(checkout).with_suffix("").parts)
    module = importlib.import_module(name)  # before any other takes the function from it
    original, old = getattr(module, FOLD), {new: old for old, new in RENAMES["names"].items()}
    setattr(module, FOLD, lambda key, name: original(key, old.get(name, name)))


def _patch_modules() -> None:
    from flax.core import scope

    original, old = scope._fold_in_static, {new: old for old, new in RENAMES["modules"].items()}
    scope._fold_in_static = lambda rng, data: original(rng, tuple(old.get(x, x) for x in data))


# -- what is run


def train_overrides(case: Case, seed: int, updates: int, runs: Mapping[str, pathlib.Path]) -> dict[str, Any]:
    """The overrides of a case's training, in the old checkout's words."""
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


def write_noise(made: pathlib.Path, seed: int) -> None:
    """The noise that the pipeline starts from: standard normals of a seed, in diffusers' layout."""
    noise = np.random.default_rng(seed).standard_normal((len(PROMPTS), 4, 8, 8)).astype(np.float32)
    np.save(made / f"noise_{seed}.npy", noise)


def write_pipeline(made: pathlib.Path) -> None:
    """A tiny Stable Diffusion by diffusers and transformers alone, as in tests/parity/test_stable_diffusion.py."""
    import diffusers
    import torch
    import transformers

    vocabulary = write_tokenizer(made / "tokenizer")
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.6,
        sample_size=16,
    )
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        steps_offset=1,
        skip_prk_steps=True,
    )
    encoder = transformers.CLIPTextModel(text)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():  # weights so large that no part is close to the identity, or to nothing
        for weight in (w for network in (vae, encoder, unet) for w in network.parameters()):
            weight += torch.randn(weight.shape, generator=chance) * (0.2 if weight.ndim == 1 else 0.05)
    diffusers.StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=encoder.eval(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(made / "tokenizer"),
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(made / "pipeline", safe_serialization=True)


def write_tokenizer(folder: pathlib.Path) -> int:
    """CLIP's files with printable bytes and a few merges, as in tests/tiny_pipeline.py; returns the number of ids."""
    letters, merges = [chr(byte) for byte in range(ord("!"), ord("~") + 1)], ["r e", "re d</w>", "c a", "ca t</w>"]
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    settings = {"model_max_length": LENGTH, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(entries)


# -- old weights in a run folder of the new checkout


def new_word(old: str, there: Iterable[str], exact: Mapping[str, str] | None = None) -> str:
    """A name or a path `a/b/c` as it is called among those that are there: as before, or with renamed segments."""
    words = {**RENAMES["names"], **RENAMES["modules"]}
    renamed = "/".join(words.get(part, part) for part in old.split("/"))
    return next((name for name in (old, (exact or {}).get(old), renamed) if name in there), renamed)


def convert(old_run: pathlib.Path, new_run: pathlib.Path, target: pathlib.Path, rewrite: bool = False) -> None:
    """Writes a run folder with the new run's layout and the old run's arrays.

    It is a copy of `new_run`, which the new checkout made with the same config. Folders of arrays whose paths did not
    change are copied from the old run as they are; others are read and written anew by Orbax under the new paths. The
    record's checksums are the old run's under the new paths, so that the new code, which verifies them, finds a wrong
    conversion.

    Args:
      rewrite: read and write every folder, also those that could be copied.

    Raises:
      ValueError: where a new array has no old one.
    """
    shutil.copytree(new_run, target)
    old, new = last_checkpoint(old_run), last_checkpoint(target)
    for other in new.parent.iterdir():
        if other.name.isdigit() and other != new:
            shutil.rmtree(other)
    old_sums, record = read_record(old)["sums"], read_record(new)
    for item in STATE_ITEMS:
        paths = [path for path in record["sums"] if path.startswith(f"{item}/")]
        if (new / item).exists():
            names = {new_word(path, paths): path for path in old_sums if path.startswith(f"{item}/")}
            if set(names) != set(paths):
                raise ValueError(f"{item} of {new_run} and {old_run} differ in {sorted(set(names) ^ set(paths))[:6]}")
            _convert_item(old / item, new / item, names, rewrite)
            record["sums"] |= {path: old_sums[before] for path, before in names.items()}
    (new / "meta" / "metadata").write_text(json.dumps(record))


def _convert_item(old: pathlib.Path, new: pathlib.Path, names: Mapping[str, str], rewrite: bool) -> None:
    """Replaces a folder of arrays; `names` is {new path: old path}, both beginning with the folder's name."""
    if all(path == before for path, before in names.items()) and not rewrite:
        shutil.rmtree(new)
        shutil.copytree(old, new)
        return
    import jax
    import orbax.checkpoint as ocp

    def flat(tree: Any) -> dict[str, Any]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

    arrays = flat({old.name: _read_item(old)})
    layout = {new.name: _read_item(new)}
    paths = list(flat(layout))
    changed = jax.tree.unflatten(jax.tree.structure(layout), [arrays[names[path]] for path in paths])
    shutil.rmtree(new)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(new.absolute(), args=ocp.args.StandardSave(changed[new.name]))


def _read_item(item: pathlib.Path) -> Any:
    import jax
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of a file that such folders do not have

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(item.absolute()).item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(item.absolute(), ocp.args.PyTreeRestore(restore_args=as_numpy))


def last_checkpoint(run: pathlib.Path) -> pathlib.Path:
    """The folder of a run's newest checkpoint."""
    steps = [p for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    return max(steps, key=lambda p: int(p.name))


def read_record(checkpoint: pathlib.Path) -> dict[str, Any]:
    """What a checkpoint says beside its arrays, with `sums`, the checksum of each of them by path."""
    return json.loads((checkpoint / "meta" / "metadata").read_text())


# -- comparing; each function returns what is equal, in words, and what differs


Found = tuple[str, list[str]]


def compare_losses(old_run: pathlib.Path, new_run: pathlib.Path, updates: int) -> Found:
    """The text of all numbers of metrics.jsonl but times and rates."""
    old, new = metric_rows(old_run), metric_rows(new_run)
    differing: list[str] = []
    if not len(old) == len(new) == updates:
        differing.append(f"there are {len(old)} and {len(new)} lines, not {updates}")
    names: dict[str, None] = {}
    for before, after in zip(old, new, strict=False):
        words = {name: new_word(name, after, RENAMES["metrics"]) for name in before}
        names |= dict.fromkeys(words.values())
        step = before["step"]
        differing += [f"update {step}: {name} is only new" for name in after if name not in words.values()]
        for name, word in words.items():
            if before[name] != after.get(word):
                differing.append(f"update {step}: {name} was {before[name]} and {word} is {after.get(word)}")
    return f"{len(old)} updates, {len(names)} numbers each", differing


def metric_rows(run: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times and rates, numbers as their text."""
    rows = [json.loads(line, parse_float=str, parse_int=str) for line in (run / "metrics.jsonl").open()]
    return [{name: value for name, value in row.items() if not TIMES.search(name)} for row in rows]


def compare_checkpoints(old_run: pathlib.Path, new_run: pathlib.Path) -> Found:
    """The checksums of all arrays of the last checkpoints."""
    old, new = (
        {path: value for path, value in read_record(last_checkpoint(run))["sums"].items() if path != "meta"}
        for run in (old_run, new_run)
    )
    words = {path: new_word(path, new) for path in old}
    differing = [f"{path} is only new" for path in new if path not in words.values()]
    differing += [f"{path} is not {word}" for path, word in words.items() if old[path] != new.get(word)]
    return f"{len(old)} arrays", differing


def compare_samples(old: pathlib.Path, new: pathlib.Path) -> Found:
    """The arrays of samples.npz, and the bytes of pictures that both folders have."""
    before, after = np.load(old / "samples.npz"), np.load(new / "samples.npz")
    words = {name: new_word(name, after.files, RENAMES["samples"]) for name in before.files}
    differing = [f"{name} is only new" for name in after.files if name not in words.values()]
    differing += [_array_difference(name, before[name], after[word]) for name, word in words.items() if word in after]
    differing += [f"{name} is missing" for name, word in words.items() if word not in after]
    pictures = sorted(p.name for p in old.iterdir() if p.suffix in (".png", ".gif") and (new / p.name).exists())
    differing += [f"{name} differs" for name in pictures if (old / name).read_bytes() != (new / name).read_bytes()]
    alone = sorted(p.name for p in old.iterdir() if p.suffix in (".png", ".gif") and p.name not in pictures)
    missing = f" (not compared, as they are only old: {', '.join(alone)})" if alone else ""
    return f"{len(before['images'])} images, {len(pictures)} pictures{missing}", [d for d in differing if d]


def _array_difference(name: str, old: np.ndarray, new: np.ndarray) -> str:
    if old.dtype != new.dtype or old.shape != new.shape:
        return f"{name} was {old.dtype} {old.shape} and is {new.dtype} {new.shape}"
    if old.tobytes() == new.tobytes():
        return ""
    return f"{name}: {(old != new).mean():.1%} of the values differ"


# -- the phases


@dataclasses.dataclass
class Results:
    """The comparisons so far, told as they come.

    Attributes:
      entries: `{case: {check: {"equal": bool, "what": words, "differing": [words]}}}`.
    """

    entries: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def add(self, case: str, check: str, compare: Callable[[], Found]) -> None:
        """Takes one comparison down; one that breaks counts as a difference."""
        try:
            what, differing = compare()
        except Exception as error:
            what, differing = "not compared", [f"{type(error).__name__}: {error}"]
        entry = {"equal": not differing, "what": what, "differing": differing}
        self.entries.setdefault(case, {})[check] = entry
        print(f"{case:24} {check:20} {'DIFFERS' if differing else 'equal':8} {what}", flush=True)
        for line in differing[:3]:
            print(f"    {line}")
        if len(differing) > 3:
            print(f"    and {len(differing) - 3} more")

    @property
    def equal(self) -> bool:
        return all(entry["equal"] for checks in self.entries.values() for entry in checks.values())


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Attributes:
    training: config.seed of all runs. sampling: the flag --seed, and that of the pipeline's noise.
    """

    training: int = 0
    sampling: int = 3


def before(checkout: Checkout, out: pathlib.Path, cases: Sequence[str], seeds: Seeds, updates: int) -> None:
    """Makes the reference in `out`/before."""
    start, seconds = time.monotonic(), {}
    runs: dict[str, pathlib.Path] = {}
    for case in chosen(cases):
        began, folder = time.monotonic(), fresh(out / "before" / case.name)
        overrides = train_overrides(case, seeds.training, updates, runs)
        runs[case.name] = train(checkout, case, folder, overrides)
        for variant in case.variants:
            draw(checkout, case, variant, folder, "run", overrides, seeds.sampling)
        seconds[case.name] = round(time.monotonic() - began, 1)
        print(f"{case.name:24} made in {seconds[case.name]} s", flush=True)
    if STABLE_DIFFUSION in cases:
        began, folder = time.monotonic(), fresh(out / "before" / STABLE_DIFFUSION)
        folder.mkdir(parents=True)
        write_pipeline(folder)
        write_noise(folder, seeds.sampling)
        for variant in PIPELINE_VARIANTS:
            draw_pipeline(checkout, variant, folder, folder, seeds.sampling)
        seconds[STABLE_DIFFUSION] = round(time.monotonic() - began, 1)
        print(f"{STABLE_DIFFUSION:24} made in {seconds[STABLE_DIFFUSION]} s", flush=True)
    record = {"commit": commit(checkout.folder), "seeds": dataclasses.asdict(seeds), "updates": updates}
    write_json(out / "before" / "record.json", {**record, "machine": machine(), "seconds": seconds})
    print(f"the reference is in {out / 'before'}; {time.monotonic() - start:.0f} s")


def after(checkout: Checkout, out: pathlib.Path, cases: Sequence[str], seeds: Seeds, rewrite: bool) -> int:
    """Compares with the reference in `out`/before; returns 0 where all is equal, else 1."""
    start, results = time.monotonic(), Results()
    record = read_reference(out)
    updates = record["updates"]
    for name, value in machine().items():
        if record["machine"].get(name) != value:
            print(f"warning: {name} was {record['machine'].get(name)!r} and is {value!r}; bits may differ for that.")
    runs: dict[str, pathlib.Path] = {}
    for case in chosen(cases):
        began = time.monotonic()
        old, folder = out / "before" / case.name, fresh(out / "after" / case.name)
        try:
            overrides = train_overrides(case, seeds.training, updates, runs)
            new_run = train(checkout, case, folder, overrides)
        except (RuntimeError, KeyError) as error:
            results.add(case.name, "losses", failing(f"training failed: {error}"))
            continue
        results.add(case.name, "losses", lambda o=old, n=new_run: compare_losses(o / "run", n, updates))
        results.add(case.name, "checkpoint", lambda o=old, n=new_run: compare_checkpoints(o / "run", n))
        try:
            convert(old / "run", new_run, folder / "converted", rewrite)
        except Exception as error:
            results.add(case.name, "conversion", failing(f"{type(error).__name__}: {error}"))
            continue
        runs[case.name] = folder / "converted"
        for variant in case.variants:
            drawn = (checkout, case, variant, folder, "converted", overrides, seeds.sampling)
            where = old / f"samples_{variant}"
            results.add(case.name, f"samples {variant}", lambda d=drawn, w=where: compare_samples(w, draw(*d)))
        print(f"{case.name:24} {time.monotonic() - began:.0f} s", flush=True)
    if STABLE_DIFFUSION in cases:
        made, folder = out / "before" / STABLE_DIFFUSION, fresh(out / "after" / STABLE_DIFFUSION)
        write_noise(made, seeds.sampling)
        for variant in PIPELINE_VARIANTS:
            drawn, where = (checkout, variant, folder, made, seeds.sampling), made / f"samples_{variant}"
            compare = lambda d=drawn, w=where: compare_samples(w, draw_pipeline(*d))  # noqa: E731
            results.add(STABLE_DIFFUSION, f"samples {variant}", compare)
    seconds = round(time.monotonic() - start, 1)
    told = {
        "before": record,
        "commit": commit(checkout.folder),
        "seeds": dataclasses.asdict(seeds),
        "equal": results.equal,
    }
    write_json(out / "after" / "result.json", {**told, "seconds": seconds, "cases": results.entries})
    print(f"{'ALL EQUAL' if results.equal else 'NOT EQUAL'}; {seconds:.0f} s; {out / 'after' / 'result.json'}")
    return 0 if results.equal else 1


def read_reference(out: pathlib.Path) -> dict[str, Any]:
    """What `before` wrote down of the reference."""
    path = out / "before" / "record.json"
    if not path.exists():
        raise SystemExit(f"same_bits: there is no {path}; run --phase=before first.")
    return json.loads(path.read_text())


def failing(text: str) -> Callable[[], Found]:
    """A comparison that could not be made."""
    return lambda: ("not compared", [text])


def chosen(names: Sequence[str]) -> list[Case]:
    """The cases of these names, and before them those whose runs they are given."""
    needed = {given for case in CASES if case.name in names for given in case.given.values()}
    return [case for case in CASES if case.name in names or case.name in needed]


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """A folder in which nothing is left of an earlier call."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def machine() -> dict[str, str]:
    """What bits depend on besides the code."""
    from importlib.metadata import version

    lines = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = re.search(r"model name\s*: (.*)", lines)
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    return {"cpu": model[1] if model else platform.processor(), "python": platform.python_version(), **versions}


def commit(folder: pathlib.Path) -> str:
    """The checkout's commit, with a plus where files differ from it; empty where git knows none."""
    found = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty=+"], capture_output=True, text=True
    )
    return found.stdout.strip()


def write_json(path: pathlib.Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, or 1 where something differs."""
    if arguments[:1] == ["--patched-main"]:
        patched_main(arguments[1:])
        return 0
    names = [*(case.name for case in CASES), STABLE_DIFFUSION]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=("before", "after", "both"), default="both")
    parser.add_argument("--before", type=pathlib.Path, help="the old checkout; not needed for --phase=after")
    parser.add_argument("--after", type=pathlib.Path, help="the new checkout; not needed for --phase=before")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="before/, after/ and xla/ are made there")
    parser.add_argument("--only", default=",".join(names), help="names of cases, with commas")
    parser.add_argument("--seed", type=int, help="config.seed of all runs; by default 0, and later what `before` had")
    parser.add_argument("--sample-seed", type=int, help="of all images; by default 3, and later what `before` had")
    parser.add_argument("--updates", type=int, default=50, help="of each run, in --phase=before")
    parser.add_argument("--names", choices=("old", "own"), default="old", help="whose turns' names make random keys")
    parser.add_argument("--rewrite", action="store_true", help="convert by Orbax also what could be copied")
    given = parser.parse_args(arguments)
    cases, out = given.only.split(","), given.out.resolve()
    if unknown := set(cases) - set(names):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for phase in ("before", "after"):
        if given.phase in (phase, "both") and getattr(given, phase) is None:
            parser.error(f"--{phase}=<checkout> is needed for --phase={given.phase}")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    asked = {"training": given.seed, "sampling": given.sample_seed}
    asked = {purpose: seed for purpose, seed in asked.items() if seed is not None}
    if given.phase in ("before", "both"):
        checkout = Checkout(given.before, out / "xla", patched=False)
        before(checkout, out, cases, Seeds(**asked), given.updates)
    if given.phase == "before":
        return 0
    checkout = Checkout(given.after, out / "xla", patched=given.names == "old")
    return after(checkout, out, cases, Seeds(**{**read_reference(out)["seeds"], **asked}), given.rewrite)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

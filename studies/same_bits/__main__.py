"""Shows that two checkouts of jaxgen train and draw the same bits, across renamings.

    python -m studies.same_bits --phase=before --before=OLD --out=DIR     # once: trains, draws, keeps
    python -m studies.same_bits --phase=after --after=NEW --out=DIR       # as often as wanted: compares; status 0 or 1

For each case of `runs.CASES` a short run logs every update. The second phase compares with the first:

- `losses` are the text of every number in every line of metrics.jsonl, without times and rates;
- `checkpoint` is the recorded checksums of all arrays of the last checkpoint;
- `samples <variant>` are the arrays of samples.npz and the pictures, drawn from the weights that the old checkout
  trained. For this `conversion.convert` puts the weights into a run folder of the new checkout.

The last case is a tiny Stable Diffusion folder, from which both phases draw with the same noise and texts. The first
phase makes it with random weights and is the only one that needs torch, diffusers and transformers.

The checkouts are used through their command line alone, in processes of their own with the checkout as working
directory and PYTHONPATH, so that modules and functions may move. What the study knows of them is in `renames.RENAMES`,
`renames.FOLD`, `conversion.STATE_ITEMS` and the names of files. A new word is tried only where the old one is not
found, so that either phase accepts old, new and partly renamed checkouts.

The random keys of a step are folded from its turn's name. With `--names=old`, the default, the new checkout therefore
runs through `renames.py`, which gives renamed names the keys of the old ones; `--names=own` runs its main.py as it is.

"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from studies.same_bits.comparison import Found, compare_checkpoints, compare_losses, compare_samples
from studies.same_bits.conversion import convert
from studies.same_bits.runs import (
    CASES,
    PIPELINE_VARIANTS,
    STABLE_DIFFUSION,
    Case,
    Checkout,
    draw,
    draw_pipeline,
    train,
    train_overrides,
)
from studies.same_bits.tiny_pipeline import write_noise, write_pipeline


@dataclasses.dataclass
class Results:
    """Holds the comparisons so far and prints each as it comes.

    Attributes:
      entries: `{case: {check: {"equal": bool, "what": words, "differing": [words]}}}`.
    """

    entries: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def add(self, case: str, check: str, compare: Callable[[], Found]) -> None:
        """Adds one comparison; one that fails counts as a difference."""
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
    """Holds the seeds of all runs.

    Attributes:
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
            print(f"warning: {name} was {record['machine'].get(name)!r} and is {value!r}, so bits may differ.")
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
    """Returns what `before` recorded of the reference."""
    path = out / "before" / "record.json"
    if not path.exists():
        raise SystemExit(f"same_bits: there is no {path}; run --phase=before first.")
    return json.loads(path.read_text())


def failing(text: str) -> Callable[[], Found]:
    """Returns a comparison that could not be made."""
    return lambda: ("not compared", [text])


def chosen(names: Sequence[str]) -> list[Case]:
    """Returns the cases of these names, and before them those whose runs they need."""
    needed = {given for case in CASES if case.name in names for given in case.given.values()}
    return [case for case in CASES if case.name in names or case.name in needed]


def fresh(folder: pathlib.Path) -> pathlib.Path:
    """Returns a folder after it has removed what an earlier call left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def machine() -> dict[str, str]:
    """Returns what the bits depend on other than the code."""
    from importlib.metadata import version

    lines = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    model = re.search(r"model name\s*: (.*)", lines)
    versions = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    return {"cpu": model[1] if model else platform.processor(), "python": platform.python_version(), **versions}


def commit(folder: pathlib.Path) -> str:
    """Returns the checkout's commit, with a plus where files differ from it; "" where git knows none."""
    found = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty=+"], capture_output=True, text=True
    )
    return found.stdout.strip()


def write_json(path: pathlib.Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, or 1 where something differs."""
    names = [*(case.name for case in CASES), STABLE_DIFFUSION]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=("before", "after", "both"), default="both")
    parser.add_argument("--before", type=pathlib.Path, help="the old checkout; not needed for --phase=after")
    parser.add_argument("--after", type=pathlib.Path, help="the new checkout; not needed for --phase=before")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="before/, after/ and xla/ are made there")
    parser.add_argument("--only", default=",".join(names), help="names of cases, with commas")
    parser.add_argument("--seed", type=int, help="config.seed of all runs; by default 0, and later what `before` had")
    parser.add_argument("--sample-seed", type=int, help="seed of all images; by default 3, and later what `before` had")
    parser.add_argument("--updates", type=int, default=50, help="updates of each run, in --phase=before")
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

"""Holds what has another name in the new checkout, and runs its main.py with the random keys of the old names.

`python studies/same_bits/renames.py ...` does what `python main.py ...` does in the working directory, except that
renamed turns and modules have the keys of the old ones. It is started by its path and imports nothing of the studies,
since PYTHONPATH names the checkout that it runs.
"""

from __future__ import annotations

import importlib
import pathlib
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence

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
    "flags": {"latents": "noise"},
    # arrays in samples.npz
    "samples": {},
}
FOLD = "fold_name"  # the function that folds a turn's name into a key


def new_word(old: str, there: Iterable[str], exact: Mapping[str, str] | None = None) -> str:
    """Returns what a name or path `a/b/c` is called among those in `there`: as before, or with renamed segments."""
    words = {**RENAMES["names"], **RENAMES["modules"]}
    renamed = "/".join(words.get(part, part) for part in old.split("/"))
    return next((name for name in (old, (exact or {}).get(old), renamed) if name in there), renamed)


def patched_main(arguments: Sequence[str]) -> None:
    """Runs main.py of the working directory; renamed turns and modules have the random keys of their old names."""
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


if __name__ == "__main__":
    patched_main(sys.argv[1:])

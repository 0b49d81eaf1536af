"""Writes the card of a published run: a README.md with the front matter that the hub reads."""

from __future__ import annotations

import ast
import json
import pathlib
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config.trust import foreign, texts
from jaxgen.methods.base import Method
from jaxgen.sampling.publishing.portable import public_text

LIBRARY = "jaxgen"
NOT_MEASURED = "These weights were not evaluated, so that the folder has no numbers."


def make_card(
    config: ConfigDict,
    method: Method,
    run: Mapping[str, Any],
    numbers: Mapping[str, Any],
    *,
    name: str,
    place: str,
    licence: str,
    step: int,
    images: int,
    pictured: bool,
) -> str:
    """Returns the card.

    Args:
      config: the published config.
      method: its method.
      run: what `run.json` of the folder says.
      numbers: those of its `metrics.json`; empty where there is none.
      name: the title.
      place: what a command names to sample from it: `hf:owner/name`, or "FOLDER" for the folder wherever it lies.
      licence: the licence's identifier.
      step, images: updates and training images of the weights.
      pictured: whether there is a samples.png.
    """
    summary, paper = str(run.get("summary") or ""), str(run.get("paper") or "")
    parameters = run.get("parameters") or {}
    parts = [_front(config, method, licence), f"# {name}"]
    parts += [f"{summary}."] if summary else []
    parts += ["![Samples](samples.png)"] if pictured else []
    parts.append(
        f"A model of the method `{config.method.name}` of {LIBRARY}, after {step:,} updates and {images:,} "
        "training images. The weights are averages over training where the run kept them."
    )
    facts = [f"- Paper: {paper}"] if paper else []
    facts.append(f"- Data: `{config.data.source}`, split `{config.data.split}`, {_size(config)}")
    facts.append(f"- Licence: {licence}")
    facts += [f"- Parameters: {', '.join(f'{group} {int(n):,}' for group, n in parameters.items())}"] * bool(parameters)
    parts.append("\n".join(facts))
    parts += ["## Numbers", _numbers(numbers)]
    parts += ["## Sample from it", *_sampling(config, method, place)]
    parts += ["## Train it", *_training(run)]
    return "\n\n".join(parts) + "\n"


def _front(config: ConfigDict, method: Method, licence: str) -> str:
    task = pipeline_tag(method)
    tags = [LIBRARY, "jax", "flax", str(config.method.name)]
    entries: dict[str, Any] = {"library_name": LIBRARY, "license": licence, "tags": tags}
    entries |= {"pipeline_tag": task} if task else {}
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items()]  # JSON is YAML
    return "\n".join(["---", *lines, "---"])


def pipeline_tag(method: Method) -> str:
    """Returns the hub's name for what a model does; "" where it has none."""
    given = {*method.conditions}
    if method.gives == "video":
        return "text-to-video" if "tokens" in given else ""
    if method.gives == "tokens":
        return "image-to-text" if "image" in given else ""
    if method.gives == "mask":
        return "image-segmentation"
    if method.gives != "image" or not method.has_sampler:
        return ""
    if "tokens" in given:
        return "text-to-image"
    return "unconditional-image-generation" if not given - {"label"} else "image-to-image"


def _size(config: ConfigDict) -> str:
    sides = config.data.resolution
    height, width = sides if isinstance(sides, tuple | list) else (sides, sides)
    classes = f", {config.data.num_classes} classes" if config.data.num_classes else ""
    return f"{height}x{width}x{config.data.channels}{classes}"


def _numbers(numbers: Mapping[str, Any]) -> str:
    """Returns a table of what `metrics.json` has, each number with n, floor and reference."""
    rows = []
    for name, entry in numbers.items():
        if name.startswith("_") or "@" in name or not isinstance(entry, Mapping):  # "@": points of curves
            continue
        cells = [name, *(_number(entry.get(key)) for key in ("value", "n", "floor", "excess"))]
        rows.append([*cells, str(entry.get("reference") or "-"), str(entry.get("network") or "-")])
    if not rows:
        return NOT_MEASURED
    head = ["number", "value", "n", "floor", "excess", "reference", "network"]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
    return (
        f"{table}\n\nThe *floor* is the same number for real images, and *excess* is 0 at the floor and 1 for noise. "
        "`metrics.json` has all of them with all digits."
    )


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _sampling(config: ConfigDict, method: Method, place: str) -> list[str]:
    packages = dict.fromkeys(module.partition(".")[0] for _, text in texts(config) if (module := foreign(text)))
    trust = "".join(f" --trust={package}" for package in packages)
    start = f"python main.py --workdir={shlex.quote(place)}"
    install = "jaxgen[hub]" if place.startswith("hf:") else "jaxgen"
    told = [
        f'It needs `pip install "{install}"`, or a checkout of {LIBRARY}; with the package, `main.py` is `-m jaxgen`.'
    ]
    if place == "FOLDER":
        told[0] += " FOLDER is this folder, wherever you keep it."
    if not method.has_sampler:
        where = f"config.init_from.<group>={place}"
        return [*told, f"The model draws nothing; a run is given its weights by `{where}`."]
    more = ' --prompt="..."' if "tokens" in method.conditions else ""
    more += " --image=FILE" if "image" in method.conditions else ""
    others = sorted({*method.conditions} - {"tokens", "image", "label"})
    told.append(f"```\n{start} --mode=sample{trust}{more} --num=16 --seed=0 --out=DIR\n{start} --mode=demo{trust}\n```")
    if others:
        told.append(
            f"It also reads {', '.join(f'`{name}`' for name in others)}, from files by `--input=<entry>=<file>` or, "
            "without, from held-out data of the source above."
        )
    if packages:
        told.append("`--trust` lets the config name classes of that package, whose code then runs.")
    return told


def _training(run: Mapping[str, Any]) -> list[str]:
    command = str(run.get("command") or "")
    versions = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items())
    told = [f"```\n{command}\n```"] if command else ["The command was not recorded; `config.json` has every key."]
    return [*told, f"Versions: {versions}."] if versions else told


def _words(command: str) -> list[str]:
    """Returns the words of a recorded command; none where its quotes do not close."""
    try:
        return shlex.split(command)
    except ValueError:
        return []


def public_command(command: str, name: str) -> str:
    """Returns a recorded command of training without the user's folders: `--workdir=runs/<name>`, and of every other
    path its last name, or the part from `configs/` on.
    """
    found = []
    for word in _words(command):
        key, equals, value = word.partition("=")
        if key.lstrip("-") == "workdir":
            found.append(f"--workdir=runs/{name}")
            continue
        if key.lstrip("-") in ("out", "mode"):
            continue
        text = value if equals else key
        own = re.search(r"(?:^|/)(configs/[^/]+\.py.*)$", text)
        text = own[1] if own else public_text(text)
        found.append(f"{key}={text}" if equals else text)
    return shlex.join(found)


def paper_of(command: str) -> str:
    """Returns what the line `Paper:` says in the docstring of the config file that a command names, which is read and
    not run; "" where there is none.
    """
    named = [word.partition("=")[2] for word in _words(command) if word.startswith("--config=")]
    path = pathlib.Path(re.sub(r"\.py:.*$", ".py", named[0])) if named else None
    if path is None or not path.is_file() or path.suffix != ".py":
        return ""
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, ValueError, SyntaxError):
        return ""
    found = re.search(r"^Paper: (.+?)\.?$", text, re.M)
    return found[1] if found else ""

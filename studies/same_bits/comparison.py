"""Compares two runs and their images; each function returns in words what was compared, and what differs."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import numpy as np

from studies.same_bits.conversion import last_checkpoint, read_record
from studies.same_bits.renames import RENAMES, new_word

TIMES = re.compile(r"seconds|_per_second")  # metrics that may differ
ADDED = re.compile(r"/learning_rate$")  # metrics that only the new checkout logs, on purpose
Found = tuple[str, list[str]]


def compare_losses(old_run: pathlib.Path, new_run: pathlib.Path, updates: int) -> Found:
    """Compares the text of all numbers of metrics.jsonl but times and rates."""
    old, new = metric_rows(old_run), metric_rows(new_run)
    differing: list[str] = []
    if not len(old) == len(new) == updates:
        differing.append(f"there are {len(old)} and {len(new)} lines, not {updates}")
    names: dict[str, None] = {}
    for before, after in zip(old, new, strict=False):
        words = {name: new_word(name, after, RENAMES["metrics"]) for name in before}
        names |= dict.fromkeys(words.values())
        step = before["step"]
        only_new = [name for name in after if name not in words.values() and not ADDED.search(name)]
        differing += [f"update {step}: {name} is only new" for name in only_new]
        for name, word in words.items():
            if before[name] != after.get(word):
                differing.append(f"update {step}: {name} was {before[name]} and {word} is {after.get(word)}")
    return f"{len(old)} updates, {len(names)} numbers each", differing


def metric_rows(run: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl without times and rates; numbers are their text."""
    rows = [json.loads(line, parse_float=str, parse_int=str) for line in (run / "metrics.jsonl").open()]
    return [{name: value for name, value in row.items() if not TIMES.search(name)} for row in rows]


def compare_checkpoints(old_run: pathlib.Path, new_run: pathlib.Path) -> Found:
    """Compares the checksums of all arrays of the last checkpoints."""
    old, new = (
        {path: value for path, value in read_record(last_checkpoint(run))["sums"].items() if path != "meta"}
        for run in (old_run, new_run)
    )
    words = {path: new_word(path, new) for path in old}
    differing = [f"{path} is only new" for path in new if path not in words.values()]
    differing += [f"{path} is not {word}" for path, word in words.items() if old[path] != new.get(word)]
    return f"{len(old)} arrays", differing


def compare_samples(old: pathlib.Path, new: pathlib.Path) -> Found:
    """Compares the arrays of samples.npz, and the bytes of pictures that both folders have."""
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

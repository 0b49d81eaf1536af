"""Whatever the files of a run hold, none of it becomes markup of the report."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.report import images, page
from jaxgen.report.page import write_report

EVIL = "\"'><evil onload=alert(1)>{0.__class__}{script}&lt;evil&gt;</script><evil>%s"
PROGRAM = {
    "name": "train", "images": 8, "work": 1e9, "flops": 1e9, "traffic": 1e6, "memory": {"weights": 5, "total": 9},
    "collectives": {"all-reduce": {"count": 1, "bytes": 2, "moved": 3}}, "seconds": 0.1, "runs": 3,
    "estimate": {"compute": 1, "memory": 2, "network": 3, "least": 1, "most": 2, "bound": "memory"},
    "operations": [{"seconds": 0.1, "calls": 2, "kind": "dot", "layer": "unet", "name": "dot.1", "backward": True}],
}  # fmt: skip
SCORE = {"value": 1.5, "n": 10, "reference": "digits/test", "floor": 1.0, "noise": 9.0, "excess": 0.1, "note": "so",
         "better": "lower", "network": "digits", "digest": "ab", "resize": "clean", "std": 0.1, "floor_n": 5,
         "published": True}  # fmt: skip
FILES: dict[str, Any] = {
    "run.json": {
        "command": "python", "method": "ddpm", "summary": "s", "started": "2026-03-01T12:30:05+00:00",
        "other": {"a": "b"}, "versions": {"jax": "0.10"}, "hardware": {"cpu": "c"}, "parameters": {"denoiser": 5},
        "events": [{"time": "2026-03-01T12:31:00+00:00", "event": "e", "detail": {"a": "b"}}],
    },
    "config.json": {"method": {"name": "ddpm", "list": [{"a": "b"}], "plain": ["c"]}, "train": {"total_images": 640}},
    "metrics.jsonl": {"step": 1, "images": 64, "seconds": 0.5, "denoiser/loss": 0.5, "denoiser/lost": None},
    "metrics.json": {"frechet": SCORE, "loss_by_time@0.5": {"value": 2.0}, "_meta": {"headline": "frechet", "a": "b"}},
    "metrics_best.json": {"kid": SCORE},
    "plan.json": {
        "mesh": {"data": 1}, "fits": False, "topology": "cpu:1", "device": "cpu", "batch_size": 8, "parameters": 5,
        "state": {"params": 5}, "programs": [PROGRAM], "assumptions": ["none"], "batches": {"8": True},
        "suggestions": [{"fits": True, "overrides": {"train.accumulate": "2"}, "total": 5}],
    },
    "profile.json": {"mesh": {"data": 1}, "device": "cpu", "data": "digits", "programs": [PROGRAM], "notes": ["none"]},
    "samples/captions.json": {"panel_x": "caption"},
    "samples/seen.json": {"near": {"title": "t", "text": "t", "scores": [1.0, None]}},
}  # fmt: skip


class Tags(HTMLParser):
    """The names of a page's elements and of their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.found |= {tag, *(f"{tag} {name}" for name, _ in attributes)}


def write(folder: pathlib.Path, files: dict[str, Any]) -> None:
    (folder / "samples").mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value) + "\n")


def replaced(value: Any) -> Iterator[Any]:
    """A JSON value with one text, number or key in the place of which EVIL stands; each in turn."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {(EVIL if k == key else k): v for k, v in value.items()}
            yield {**value, f"{key} {EVIL}": inner}
            yield from ({**value, key: other} for other in replaced(inner))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in replaced(inner))
    else:
        yield EVIL


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run")
    write(folder, FILES)
    for name in ("step_64", "panel_x", "near"):
        images.save_png(folder / f"samples/{name}.png", np.zeros((8, 8, 1), np.uint8))
    return folder


def clean(run: pathlib.Path) -> set[str]:
    write(run, FILES)
    return Tags(page.write_report(run).read_text()).found


def test_the_run_fills_every_section(run):
    clean(run)
    text = (run / "report.html").read_text()
    wanted = {"samples", "panels", "numbers", "best", "seen", "profiles", "curves", "plan", "timing", "config"}
    assert wanted <= set(re.findall(r'<section id="(\w+)"', text))


@pytest.mark.parametrize("name", FILES)
def test_nothing_in_a_file_becomes_markup(name, run):
    known, shown = clean(run), 0
    for value in replaced(copy.deepcopy(FILES[name])):
        write(run, {**FILES, name: value})
        (run / "report.html").unlink(missing_ok=True)
        try:
            page.write_report(run)
        except UserError:  # of another type than it should be, which the page says in its place
            assert (run / "report.html").exists()
        except Exception:
            assert not (run / "report.html").exists()
            continue
        text = (run / "report.html").read_text()
        assert Tags(text).found <= known and "<evil" not in text
        shown += "&lt;evil onload" in text
    assert shown, "nowhere in this file does a text reach the page"


@pytest.mark.parametrize("name", [f"panel_{EVIL.replace('/', '')}.png", f"{EVIL.replace('/', '')}.gif"])
def test_no_name_of_a_picture_becomes_markup(name, run):
    known = clean(run)
    save = images.save_gif if name.endswith("gif") else images.save_png
    save(run / "samples" / name, np.zeros((2, 8, 8, 1)[name.endswith("png") :], np.uint8))
    try:
        text = page.write_report(run).read_text()
    finally:
        (run / "samples" / name).unlink()
    assert "<evil" not in text and "&lt;evil onload" in text.lower()
    assert Tags(text).found - known <= {"picture", "source", "source media", "source srcset"}


@pytest.mark.parametrize("name", ["step_64.png", "panel_x.png", "x.gif"])
def test_a_pipe_among_the_pictures_is_refused_and_not_waited_for(tmp_path, name):
    (tmp_path / "samples").mkdir()
    os.mkfifo(tmp_path / "samples" / name)
    with pytest.raises(UserError, match=f"{name} is a pipe"):
        page.write_report(tmp_path)


@pytest.mark.parametrize(
    ("file", "key", "value", "named"),
    [
        ("metrics.json", "kid", {"value": 10**400}, "number that cannot be read"),
        ("metrics.json", "loss_by_time@0.5", None, "loss_by_time@0.5"),
        ("metrics.json", "loss_by_time@0.5", {"value": "1"}, "loss_by_time@0.5.value"),
        ("metrics.json", "loss_by_time@x", {"value": 1}, "'@'"),
        ("metrics.json", "kid", {"value": 1, "excess": []}, "kid.excess"),
        ("run.json", "parameters", {"denoiser": "many"}, "parameters.denoiser"),
        ("run.json", "events", [3], "events"),
        ("plan.json", "assumptions", None, "--mode=plan"),
        ("profile.json", "notes", [1], "--mode=profile"),
    ],
)
def test_an_entry_of_another_type_is_named(file, key, value, named, tmp_path):
    (tmp_path / file).write_text(json.dumps({key: value}))
    with pytest.raises(UserError, match=named.replace(".", "[.]")) as caught:
        write_report(tmp_path)
    assert file in str(caught.value) and "\n" not in str(caught.value)

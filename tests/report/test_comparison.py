"""The page that compares runs: what it reads, what it marks, and that no text of a run becomes markup."""

from __future__ import annotations

import html
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny
from etils import epath
from tiny_methods import ddpm_config

from jaxgen.config import to_json
from jaxgen.errors import UserError
from jaxgen.report.comparison.curves import chart, metric_groups
from jaxgen.report.comparison.page import Drawn, page
from jaxgen.report.comparison.runs import MISSING, differing_keys, names, read_runs

EVIL = "\"'><evil onload=alert(1)>{0}{script}&lt;evil&gt;</script><evil>%s"
SCORE = {"value": 1.5, "n": 10, "reference": "digits/test", "floor": 1.0, "noise": 9.0, "excess": 0.1,
         "better": "lower", "network": "digits", "digest": "ab", "resize": "clean"}  # fmt: skip


class Tags(HTMLParser):
    """The names of the elements of a page and of their attributes; those that are not closed in order are an error."""

    def __init__(self, text: str):
        super().__init__()
        self.found: set[str] = set()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found |= {tag, *(name for name, _ in attributes)}
        if tag not in ("meta", "img", "br", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag


def write_run(folder, value=1.5, text="plain", rate=1.0, **more):
    """A run of five logged lines, whose loss is 100 / images and whose step takes a second for `rate` images."""
    folder.mkdir(parents=True)
    record = {"command": f"python {text}", "method": text, "summary": text, "versions": {"jax": text},
              "hardware": {"cpu": text}, "parameters": {text: 5}, "started": text}  # fmt: skip
    rows = [{"step": i, "images": 10 * i, "seconds": 10 * i / rate, f"{text}/loss": 10 / i, f"{text}/x": None}
            for i in range(1, 6)]  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps({"method": {"name": text, text: 1}, "train": {"total_images": 50}}))
    (folder / "metrics.json").write_text(json.dumps({"fid": {**SCORE, "value": value, "note": text, **more}}))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def test_the_best_is_marked_and_what_differs_is_told(tmp_path):
    runs = read_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b", 1.25), write_run(tmp_path / "c", 2.0)])
    text = page(runs, [Drawn("a", np.zeros((4, 4, 3), np.uint8)), Drawn("b", None, "No samples: none")], "Asked.")
    Tags(text)
    assert re.findall(r'class="best">([^<]*)<', text) == ["1.25 ◂ best"]
    assert "data:image/png;base64" in text and "No samples: none" in text and "Asked." in text
    assert "There is no difference." in text and not re.findall(r'(?:src|href)="(?!data:|#)', text)


@pytest.mark.parametrize("other", [{"n": 20}, {"reference": "x"}, {"network": "inception"}, {"digest": "cd"}])
def test_numbers_that_were_not_measured_alike_have_no_best(other, tmp_path):
    runs = read_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b", 1.25, **other)])
    text = page(runs, [], "")
    assert 'class="best"' not in text and "cannot be compared" in text


def test_higher_may_be_better_and_floors_may_differ(tmp_path):
    runs = read_runs([write_run(tmp_path / "a", better="higher"),
                      write_run(tmp_path / "b", 1.25, better="higher", floor=0.5)])  # fmt: skip
    text = page(runs, [], "")
    assert re.findall(r'class="best">([^<]*)<', text) == ["1.5 ◂ best"]
    assert "real data 0.5<" in text and "real data 1<" in text


def test_a_text_of_a_run_is_no_markup(tmp_path):
    plain = page(read_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b")]), [], "")
    runs = read_runs([write_run(tmp_path / "c", text=EVIL), write_run(tmp_path / f"<evil>{EVIL[:9]}", text=EVIL)])
    text = page(runs, [Drawn(EVIL, None, EVIL)], EVIL)
    assert Tags(text).found - {"evil"} >= Tags(plain).found and not {"evil", "onload"} & Tags(text).found


def test_lines_are_where_the_values_are(tmp_path):
    """Both runs have the same losses after the same images, one in half of the time."""
    runs = read_runs([write_run(tmp_path / "a"), write_run(tmp_path / "b", rate=2.0)])
    assert metric_groups(runs) == {"plain": ["plain/loss", "plain/x"]}
    paths = {
        against: [
            np.array([float(n) for n in re.findall(r"[\d.]+", path)]).reshape(-1, 2)
            for path in re.findall(r'class="line line\d" d="([^"]*)"', chart("plain/loss", runs, against))
        ]
        for against in ("images", "seconds")
    }
    np.testing.assert_array_equal(paths["images"][0], paths["images"][1])
    slow, fast = paths["seconds"]
    left = 48  # of the drawing's axis
    np.testing.assert_allclose(slow[:, 0] - left, 2 * (fast[:, 0] - left), atol=0.2)
    np.testing.assert_array_equal(slow[:, 1], fast[:, 1])
    assert (np.diff(slow[:, 1]) > 0).all()  # the losses fall
    hover = re.search(r'data-points="([^"]*)"', chart("plain/loss", runs, "images"))[1]
    points = json.loads(html.unescape(hover))
    assert points[0][2] == "a 10 · b 10 · at 10 images" and len(points) == 5
    assert "finite" in chart("plain/x", runs, "images")


def test_keys_and_names():
    differ, equal = differing_keys([{"a": 1, "b": {"c": 2, "d": []}}, {"a": 1, "b": {"c": 3}}])
    assert equal == 1 and differ == {"b.c": [2, 3], "b.d": [[], MISSING]}
    runs = [epath.Path(f"/x/{name}") for name in ("a/run", "b/run", "b/two")]
    assert names(runs) == ["a/run", "b/run", "b/two"]
    assert names([epath.Path("/x/a"), epath.Path("/x/a")]) == ["a (1)", "a (2)"]


def test_what_cannot_be_compared(tmp_path):
    one = write_run(tmp_path / "a")
    (tmp_path / "none").mkdir()
    for folders, named in (([one], "two to 8"), ([one] * 9, "two to 8"), ([one, tmp_path / "none"], "holds no run")):
        with pytest.raises(UserError, match=named):
            read_runs(folders)
    (one / "metrics.json").write_text('{"fid": {"value": "high"}}')
    with pytest.raises(UserError, match="metrics.json"):
        read_runs([one, one])


def test_the_command_without_a_checkpoint_and_with_a_strangers_class(tmp_path, capsys):
    for name in ("one", "two"):
        config = ddpm_config()
        if name == "two":
            config.method.network = "stranger:run"
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(to_json(config))
    words = ["--mode=compare", f"--workdirs={tmp_path / 'one'},{tmp_path / 'two'}"]
    assert tiny.call(*words, f"--out={tmp_path / 'out'}") == 0
    text = (tmp_path / "out" / "comparison.html").read_text()
    assert "no finished checkpoint" in text and "--trust=stranger" in text and "stranger" not in sys.modules
    assert "method.network" in text
    for more, named in (([], "--out"), (["--out=x", "--config.seed=1"], "--config"), (["--out=x", "--num=0"], "--num"),
                        (["--out=x", "--workdir=x"], "--workdir"), (["--out=x", "--num=a"], "give a whole number"),
                        (["--out=x", "--checkpoint=lst"], "--checkpoint=lst is neither last"),
                        (["--out=x", "--workdirs=a,"], "one of its commas")):  # fmt: skip
        capsys.readouterr()
        assert tiny.call(*words, *more) == 2 and named in tiny.Result(2, *capsys.readouterr()).complaint
    assert tiny.call("--mode=compare", f"--workdirs={tmp_path / 'none'},x", "--out=x") == 2

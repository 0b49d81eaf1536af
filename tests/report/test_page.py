from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.report import __main__ as command
from jaxgen.report import images, page, pictures

VOID = {"meta", "img", "br", "input", "source"}
EVIL = '<script>alert("1")</script>&\'"><img src=http://x>'


class Page(HTMLParser):
    """Reads a page; fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID and not (tag == "path" or tag == "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def sections(self):
        return {attributes["id"] for attributes in self.all("section")}


def report(folder):
    return Page(page.write_report(folder).read_text())


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(step, **values):
    return {"step": step, "images": 64 * step, "seconds": 0.5 * step, **values}


@pytest.fixture
def workdir(tmp_path):
    rng = np.random.default_rng(0)
    files.write_json(
        tmp_path / "run.json",
        {
            "command": f"python main.py {EVIL}",
            "method": f"ddpm {EVIL}",
            "summary": f"Digits. {EVIL}",
            "versions": {"jax": "0.10.2"},
            "hardware": {"cpu": f"Some {EVIL}"},
            "started": "2026-03-01T12:30:05+00:00",
            "parameters": {"denoiser": 162401},
            "events": [{"time": "2026-03-01T12:31:00+00:00", "event": "resumed", "detail": f"at step 40 {EVIL}"}],
        },
    )
    files.write_json(
        tmp_path / "config.json",
        {
            "seed": 0,
            "train": {"total_images": 12800},
            "method": {"name": "ddpm", EVIL: [EVIL, 1]},
            "empty": {},
        },
    )
    history = [row(s, **{"denoiser/loss": 1 / (s + 1), f"{EVIL}/x": 1.0}) for s in range(0, 101, 10)]
    (tmp_path / "metrics.jsonl").write_text(lines(*history))
    files.write_json(
        tmp_path / "metrics.json",
        {
            "frechet": {
                "value": 22.25, "n": 1000, "reference": f"digits/test {EVIL}", "floor": 9.9, "noise": 456.0,
                "excess": 0.0277, "better": "lower", "note": EVIL,
            },
            "_meta": {"weights": EVIL},
        },
    )  # fmt: skip
    for number in range(0, 12801, 400):
        images.save_png(tmp_path / f"samples/step_{number:08d}.png", images.grid(rng.normal(size=(4, 8, 8, 1))))
    images.save_gif(tmp_path / "samples/trajectory.gif", images.animation(rng.normal(size=(5, 4, 8, 8, 3))))
    images.save_png(tmp_path / "samples/panel_two_by_two.png", images.grid(rng.normal(size=(4, 8, 8, 3))))
    return tmp_path


def test_the_page_is_whole_and_loads_nothing(workdir):
    found = report(workdir)
    assert found.sections() == {"samples", "panels", "numbers", "curves", "config", "reproduce", "events"}
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
    assert len(found.all("script")) == 1 and "src" not in found.all("script")[0]
    text = (workdir / "report.html").read_text()
    styles = re.search("<style>(.*)</style>", text, re.S)[1]
    assert "url(" not in styles and "@import" not in styles
    assert all(image.get("alt") for image in found.all("img"))
    assert {link["href"][1:] for link in found.all("a")} == found.sections()


def test_what_came_from_files_is_text(workdir):
    found = report(workdir)
    # title, heading, summary, command, hardware, event, config key and value, reference, note, meta, metric.
    assert found.text.count(EVIL) >= 11
    assert not any("http://x" in str(attributes.get("src")) for attributes in found.all("img"))


def test_the_header_says_how_far_how_long_how_good(workdir):
    found = report(workdir)
    for words in ("22.25", "n = 1,000", "6,400", "50% of 12.8k", "50 s", "100 steps", "128 images a second"):
        assert words in found.text, words


def test_samples_are_thinned_evenly_with_the_ends(workdir):
    found = report(workdir)
    captions = [b["data-caption"] for b in found.all("button") if "data-caption" in b]
    counts = [int(re.search("After ([0-9,]+)", c)[1].replace(",", "")) for c in captions]
    assert len(counts) == pictures.FRAMES and counts[0] == 0 and counts[-1] == 12800
    assert set(np.diff(counts)) <= {400, 800}
    assert f"{pictures.FRAMES} of 33" in found.text


def test_embedded_pictures_are_the_files(workdir):
    text = page.write_report(workdir).read_text()
    for name in ("samples/step_00012800.png", "samples/trajectory.gif", "samples/panel_two_by_two.png"):
        assert base64.b64encode((workdir / name).read_bytes()).decode() in text


def test_large_pictures_are_reduced_and_large_animations_give_their_last_frame(workdir, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST_PICTURE", 200)
    monkeypatch.setattr(pictures, "LARGEST_ANIMATION", 200)
    monkeypatch.setattr(pictures, "REDUCED_SIDE", 32)
    found = report(workdir)
    assert all(image["src"].startswith("data:image/jpeg") for image in found.all("img"))
    assert "reduced" in found.text and "samples/trajectory.gif" in found.text


def test_captions_explain_panels(workdir):
    files.write_json(workdir / "samples/captions.json", {"panel_two_by_two": "Four of a kind."})
    assert "Four of a kind." in report(workdir).text


@pytest.mark.parametrize("part", ["run.json", "config.json", "metrics.jsonl", "metrics.json", "samples"])
def test_each_part_alone_makes_a_page(workdir, tmp_path_factory, part):
    alone = tmp_path_factory.mktemp("alone")
    (workdir / part).rename(alone / part)
    sections = {
        "run.json": {"reproduce", "events"}, "config.json": {"config"}, "metrics.jsonl": {"curves"},
        "metrics.json": {"numbers"}, "samples": {"samples", "panels"},
    }  # fmt: skip
    assert report(alone).sections() == sections[part]
    assert report(workdir).sections() & sections[part] == set()


def test_a_run_that_has_only_begun(tmp_path):
    files.write_json(tmp_path / "run.json", {"method": "vae"})
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "samples").mkdir()
    assert "Nothing has been logged yet" in report(tmp_path).text
    (tmp_path / "metrics.jsonl").write_text(lines(row(0, **{"loss": None})))
    assert "not finite" in report(tmp_path).text


def test_history_keeps_the_last_value_of_a_step_and_forgives_a_cut_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = lines(row(1, a=1.0, b=5.0), row(2, a=2.0), row(3, a=3.0), row(2, a=20.0), row(1, b=None))
    path.write_text(text + '{"step": 4, "ima')
    assert files.read_metrics(path) == [row(1, a=1.0, b=None), row(2, a=20.0), row(3, a=3.0)]
    path.write_text(text + '{"step": 4, "images": 256, "seconds": 2, "a": 4.0}')
    assert files.read_metrics(path)[-1]["a"] == 4.0


@pytest.mark.parametrize(
    "bad",
    ['{"step": 2, "ima', "[1]", '{"step": 2}', '{"step": 2, "images": 1, "seconds": 1, "a": "x"}', "\xff"],
)
@pytest.mark.parametrize("after", [lines(row(3, a=1.0)), ""])
def test_any_other_damaged_line_is_named(tmp_path, bad, after):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(row(1, a=1.0)).encode() + bad.encode("latin1") + b"\n" + after.encode())
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        page.write_report(tmp_path)


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.json"])
def test_a_damaged_file_is_named_and_the_page_says_so_in_its_place(workdir, name):
    page.write_report(workdir)
    for text, words in (('{"a": 1,\n "b": ', "is not valid JSON: .* at line 2"), ("[]", "an object")):
        (workdir / name).write_text(text)
        with pytest.raises(UserError, match=rf"{name}.*{words}.*; this is said in its place in .*report\.html"):
            page.write_report(workdir)
        assert re.search(rf'class="notice">[^<]*{name}', (workdir / "report.html").read_text())


def test_a_damaged_picture_takes_its_own_section_only(workdir):
    page.write_report(workdir)
    (picture,) = sorted((workdir / "samples").glob("step_*.png"))[:1]
    data = bytearray(picture.read_bytes())
    data[len(data) // 2] ^= 16
    picture.write_bytes(data)
    with pytest.raises(UserError, match=rf"{picture.name} is damaged .*; this is said in its place"):
        page.write_report(workdir)
    text = (workdir / "report.html").read_text()
    assert re.search(rf'<section id="samples"><h2>Samples</h2><p class="help">[^<]*{picture.name}', text)
    assert '<section id="curves">' in text and '<section id="config">' in text


def test_wrong_entries_are_named(workdir):
    for entry in (3.0, {"n": 1}, {"value": "low"}):
        files.write_json(workdir / "metrics.json", {"kid": entry})
        with pytest.raises(UserError, match=r"metrics\.json.*'kid"):
            page.write_report(workdir)


def test_a_damaged_picture_is_named(workdir):
    path = workdir / "samples/step_00012800.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="step_00012800.png"):
        page.write_report(workdir)


def test_throughput_comes_from_neighbouring_lines(tmp_path):
    history = [{"step": s, "images": 100 * s, "seconds": 0.25 * s} for s in range(5)]
    (tmp_path / "metrics.jsonl").write_text(lines(*history))
    found = report(tmp_path)
    charts = [svg["aria-label"] for svg in found.all("svg")]
    assert charts == ["images per second against images seen: from 400 to 400 at 400 images"]


def test_last_frame_is_shown_where_motion_is_not_wished(tmp_path):
    frames = np.stack([np.full((1, 4, 4, 1), v) for v in (-1.0, 0.0, 1.0)])
    images.save_gif(tmp_path / "samples/trajectory.gif", images.animation(frames, pad=0))
    source = report(tmp_path).all("source")[0]
    assert "reduced-motion" in source["media"]
    still = Image.open(io.BytesIO(base64.b64decode(source["srcset"].partition(",")[2])))
    assert np.asarray(still.convert("L")).min() == 255


def test_the_command(workdir, tmp_path, capsys):
    assert command.main([str(workdir)]) == 0
    assert capsys.readouterr().out.strip() == str(workdir / "report.html")
    (tmp_path / "empty").mkdir()
    for wrong in ("missing", "empty"):
        assert command.main([str(tmp_path / wrong)]) == 2
        output = capsys.readouterr()
        assert wrong in output.err and output.err.count("\n") == 1 and not output.out


def test_numbers_at_places_are_one_curve_and_no_rows_of_the_table(tmp_path):
    def entry(value):
        return {"value": value, "n": 10, "reference": "digits/test", "floor": None, "noise": None, "excess": None}

    points = {f"denoising_loss_by_time@{x}": entry(y) for x, y in ((0.9, 0.01), (0.1, 0.5), (0.5, 0.04))}
    files.write_json(tmp_path / "metrics.json", {"accuracy": entry(0.9), **points, "_meta": {}})
    found = report(tmp_path)
    assert "@" not in found.text and "fine detail" in found.text and "profiles" in found.sections()
    charts = [svg["aria-label"] for svg in found.all("svg")]
    assert charts == ["denoising loss against time: from 0.5 to 0.01 at 0.9 time"]


def test_the_record_of_a_number_is_shown_and_only_a_fid_of_50k_is_called_so(tmp_path):
    entry = {
        "value": 3.5, "n": 50_000, "reference": "cifar10/test (10000)", "network": "inception", "std": 0.25,
        "digest": "0a1b2c3d4e5f6071", "resize": "legacy", "published": True, "better": "lower",
    }  # fmt: skip
    files.write_json(tmp_path / "metrics.json", {"fid": entry})
    found = report(tmp_path)
    for words in ("FID-50k", "50,000", "0a1b2c3d4e5f6071", "legacy", "Standard deviation 0.25", "cifar10/test (10000)"):
        assert words in found.text, words
    for change in ({"n": 49_999}, {"published": False}):
        files.write_json(tmp_path / "metrics.json", {"fid": {**entry, **change}})
        found = report(tmp_path)
        assert "FID-50k" not in found.text and "FID" in found.text


def test_numbers_of_a_network_are_explained_as_their_kind_is(tmp_path):
    entries = {"inception_score_digits": {"value": 7.0}, "recall_digits": {"value": 0.5}}
    files.write_json(tmp_path / "metrics.json", entries)
    found = report(tmp_path)
    assert "how varied" in found.text and "Share of real images that lie near samples" in found.text


def test_what_the_numbers_saw_is_text_and_pictures(tmp_path):
    images.save_png(tmp_path / "samples/best.png", images.grid(np.zeros((4, 8, 8, 1))))
    files.write_json(
        tmp_path / "samples/seen.json", {"best": {"title": EVIL, "text": EVIL, "scores": [2.5, None, 0.5]}}
    )
    found = report(tmp_path)
    assert found.sections() == {"seen"} and found.text.count(EVIL) == 2
    assert "2.5, infinite, 0.5" in found.text and len(found.all("img")) == 1
    for wrong in ({"best": {"title": "a"}}, {"best": 3}):
        files.write_json(tmp_path / "samples/seen.json", wrong)
        with pytest.raises(UserError, match="seen.json.*'best'"):
            report(tmp_path)

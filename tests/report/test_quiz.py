"""The quiz's Python side: what a page holds, what a saved file says, and the interval against scipy's."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.human import Answers, fool_rate, wilson_interval
from jaxgen.report import quiz
from jaxgen.report.answers import FORMAT, read_answers
from jaxgen.report.page import POLICY

EVIL = '</script><script>alert("1")</script>&\'"<!--'


def images(count, seed, *, bright=False, shape=(8, 8, 1)):
    """Dark ones, or bright ones: so that one look tells real from generated."""
    noise = np.random.default_rng(seed).integers(0, 100, (count, *shape), dtype=np.uint8)
    return noise + np.uint8(150 if bright else 0)


def page(tmp_path, samples=None, real=None, **options):
    samples = images(9, 1) if samples is None else samples
    real = images(12, 2, bright=True) if real is None else real
    return quiz.write_quiz(tmp_path / "quiz.html", samples, real, **options).read_text()


def data(text):
    return json.loads(re.search('<script type="application/json" id="quiz">(.*?)</script>', text, re.S)[1])


def pixels(found, name):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found["pictures"][name]))))


def truth(found):
    """Whether the first image of each pair is real, by its brightness."""
    return [pixels(found, a).mean() > 125 for a, _ in found["pairs"]]


def test_each_pair_has_one_of_each_kind_and_no_image_is_shown_twice(tmp_path):
    found = data(page(tmp_path, pairs=7))
    assert len(found["pairs"]) == 7 and len(found["pictures"]) == 14
    for a, b in found["pairs"]:
        assert (pixels(found, a).mean() > 125) != (pixels(found, b).mean() > 125)
    assert sorted(name for pair in found["pairs"] for name in pair) == list(found["pictures"])


@pytest.mark.parametrize("shape", [(8, 8, 1), (6, 10, 3)])
def test_the_pictures_are_the_images_exactly(tmp_path, shape):
    samples, real = images(3, 1, shape=shape), images(3, 2, bright=True, shape=shape)
    found = data(page(tmp_path, samples, real))
    shown = {pixels(found, name).tobytes() for name in found["pictures"]}
    assert shown == {image.tobytes() for image in (*samples, *real)}
    assert (found["height"], found["width"]) == shape[:2]


def test_floats_are_shown_as_their_nearest_levels(tmp_path):
    samples, real = images(4, 1), images(4, 2, bright=True)
    exact = data(page(tmp_path, samples, real))["pictures"]
    assert data(page(tmp_path, samples / 127.5 - 1, real / 127.5 - 1))["pictures"] == exact


def test_there_are_no_more_pairs_than_either_side_has(tmp_path):
    for samples, real in ((5, 12), (12, 5)):
        found = data(page(tmp_path, images(samples, 1), images(real, 2, bright=True), pairs=50))
        assert len(found["pairs"]) == 5


def test_the_seed_decides_everything(tmp_path):
    assert page(tmp_path, seed=3) == page(tmp_path, seed=3)
    one, other = data(page(tmp_path, seed=3)), data(page(tmp_path, seed=4))
    assert one["pairs"] != other["pairs"] and one["digest"] != other["digest"]


def test_sides_are_random_and_the_pad_hides_them(tmp_path):
    found = data(page(tmp_path, images(400, 1), images(400, 2, bright=True), pairs=400))
    first = np.asarray(truth(found))
    assert binomtest(int(first.sum()), 400).pvalue > 1e-3
    assert binomtest(int((first[1:] == first[:-1]).sum()), 399).pvalue > 1e-3
    pad, sealed = (np.asarray([int(digit, 16) for digit in found[key]]) for key in ("pad", "sealed"))
    np.testing.assert_array_equal((pad ^ sealed) & 1, first)
    for bit in range(4):  # either string alone says nothing
        for digits in (pad, sealed):
            assert binomtest(int(((digits >> bit) & 1 == first).sum()), 400).pvalue > 1e-3
    ranks = {name: i for i, name in enumerate(found["pictures"])}
    earlier = [(ranks[a] < ranks[b]) == real for (a, b), real in zip(found["pairs"], first, strict=True)]
    assert binomtest(int(np.sum(earlier)), 400).pvalue > 1e-3


def test_the_page_loads_nothing_and_text_stays_text(tmp_path):
    text = page(tmp_path, title=EVIL, details={EVIL: EVIL, "steps": np.int64(3)})
    assert POLICY in text and not re.search(r'(src|href)="(?!data:)', text)
    assert text.count("<script") == text.count("</script>") == 2
    assert "alert(&quot;1&quot;)" in text
    assert data(text)["details"] == {EVIL: EVIL, "steps": 3} and data(text)["title"] == EVIL


@pytest.mark.parametrize(
    ("samples", "real", "options", "message"),
    [
        (images(3, 1), images(3, 2, shape=(9, 8, 1)), {}, r"\(8, 8, 1\).*\(9, 8, 1\)"),
        (images(3, 1), images(3, 2, shape=(8, 8, 3)), {}, "number of channels"),
        (images(3, 1)[:0], images(3, 2), {}, r"\(0, 8, 8, 1\)"),
        (images(3, 1), images(3, 2)[:0], {}, r"\(0, 8, 8, 1\)"),
        (images(3, 1)[0], images(3, 2), {}, r"\[N, H, W, C\]"),
        (images(3, 1), images(3, 2), {"pairs": 0}, "at least one pair"),
        (images(3, 1), images(3, 2), {"limit_ms": -1}, "limit"),
    ],
)
def test_bad_quizzes_are_named_and_leave_no_page(tmp_path, samples, real, options, message):
    with pytest.raises(UserError, match=message):
        quiz.write_quiz(tmp_path / "quiz.html", samples, real, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_the_interval_is_scipys(confidence):
    for successes, trials in ((0, 1), (1, 1), (0, 50), (3, 7), (25, 50), (22, 50), (50, 50), (999, 1000), (10, 100000)):
        wanted = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
        np.testing.assert_allclose(wilson_interval(successes, trials, confidence), wanted, atol=1e-13)


def test_bad_shares_are_named():
    for arguments in ((0, 0), (3, 2), (-1, 2), (1, 2, 0.0), (1, 2, 1.0)):
        with pytest.raises(UserError):
            wilson_interval(*arguments)


def answers(fooled, **options):
    """Answers with times 1, 2, ... seconds."""
    return Answers(np.asarray(fooled, bool), 1000.0 * np.arange(1, len(fooled) + 1), **options)


def test_people_are_pooled_pair_by_pair():
    rate = fool_rate([answers([1, 0, 0], name="ann"), answers([1] * 5 + [0] * 2, name="bob")])
    assert (rate.fooled, rate.pairs, rate.value, rate.median_ms) == (6, 10, 0.6, 3000.0)
    assert (rate.low, rate.high) == wilson_interval(6, 10)
    assert fool_rate(answers([1, 0, 0])).value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ({"details": {"run": "a", "step": 1}}, {"details": {"run": "a", "step": 2}}, "ann and bob.*step: 1 and 2"),
        ({"limit_ms": 0}, {"limit_ms": 500}, "0 and 500 ms"),
        ({"quiz": "x"}, {"quiz": "x"}, "the same answers"),
    ],
)
def test_what_cannot_be_pooled_is_named(one, other, message):
    with pytest.raises(UserError, match=message):
        fool_rate([answers([1, 0], name="ann", **one), answers([1, 0], name="bob", **other)])
    with pytest.raises(UserError, match="no answers"):
        fool_rate([])


def saved(path, fooled, **quiz_options):
    real = ["b" if yes else "a" for yes in fooled]
    entries = [{"a": "0", "b": "1", "chosen": "a", "real": side, "ms": 1000 + i} for i, side in enumerate(real)]
    about = {"title": "", "details": {"run": "r"}, "seed": 0, "digest": "d", "limit_ms": 0, **quiz_options}
    path.write_text(json.dumps({"format": FORMAT, "quiz": about, "answers": entries, "summary": {"fool_rate": 0.9}}))
    return path


def test_a_saved_file_is_read_and_its_summary_is_not_believed(tmp_path):
    found = read_answers(saved(tmp_path / "a.json", [1, 0, 0, 1], limit_ms=250))
    np.testing.assert_array_equal(found.fooled, [True, False, False, True])
    np.testing.assert_array_equal(found.milliseconds, [1000, 1001, 1002, 1003])
    assert (found.details, found.quiz, found.limit_ms) == ({"run": "r"}, "d", 250)
    assert fool_rate(found).value == 0.5


def spoilt(path, change):
    found = json.loads(saved(path, [1, 0]).read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(format="other"), "no answers of a quiz"),
        (lambda f: f.update(answers=[]), "length >= 1"),
        (lambda f: f.update(answers={}), "a list"),
        (lambda f: f.update(quiz=3), "'quiz' is 3, where an object"),
        (lambda f: f["quiz"].update(details=3), "'quiz.details'"),
        (lambda f: f["quiz"].update(limit_ms="x"), "'quiz.limit_ms'"),
        (lambda f: f["answers"].append(3), "'answers.2.' is 3, where an object"),
        (lambda f: f["answers"][1].update(chosen="c"), "'answers.1..chosen'"),
        (lambda f: f["answers"][0].pop("real"), "'real' is missing in 'answers.0.'"),
        (lambda f: f["answers"][0].update(ms=-1), "'answers.0..ms'"),
        (lambda f: f["answers"][0].update(ms=float("nan")), "'answers.0..ms'"),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, change, message, capsys):
    path = tmp_path / "a.json"
    spoilt(path, change)
    with pytest.raises(UserError, match=rf"a\.json.*{message}"):
        read_answers(path)
    assert quiz.main([str(path)]) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and not output.out


def test_no_file_and_no_json_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*missing\.json"):
        read_answers(tmp_path / "missing.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json .* line 1"):
        read_answers(tmp_path / "a.json")


def test_the_command_pools_files(tmp_path, capsys):
    one, two = saved(tmp_path / "one.json", [1, 1, 0, 0]), saved(tmp_path / "two.json", [0] * 6)
    assert quiz.main([str(one)]) == 0
    assert capsys.readouterr().out.startswith("fool rate 0.500, 95 % interval 0.150 to 0.850 (2 of 4 pairs")
    assert quiz.main([str(one), str(two)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith(str(one)) and lines[1].startswith(str(two))
    assert lines[2].startswith("all 2: fool rate 0.200, 95 % interval 0.057 to 0.510 (2 of 10 pairs")

"""Tests the numbers of samples with hints on pictures whose numbers are known. That a run draws, running it shows."""

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.errors import UserError
from studies import qr
from studies.control import COLUMNS, NAMES, Asked, f_score


def line(column):
    found = np.zeros((12, 12), bool)
    found[:, column] = True
    return found


def test_the_f_score_forgives_one_pixel_and_no_more():
    assert f_score(line(5), line(5)) == f_score(line(5), line(6)) == 1 and f_score(line(5), line(8)) == 0
    assert f_score(line(5) | line(9), line(5)) == pytest.approx(2 / 3)  # half of what is drawn, and all that is asked
    empty = np.zeros((12, 12), bool)
    assert f_score(empty, empty) == 1 and f_score(empty, line(3)) == f_score(line(3), empty) == 0


def test_true_images_keep_to_the_hint_and_images_of_the_text_follow_the_text():
    rows = open_source("concept_shapes", "test", 32, 3).take(range(24))
    asked = Asked(rows["image"], rows["attributes"][:, COLUMNS], [str(text) for text in rows["caption"]])
    assert asked.measured(asked.images)["f_score"] == 1 and asked.measured(asked.images)["hint_rmse"] == 0
    hint, text = asked.conflict(asked.images), asked.conflict(np.roll(asked.images, -1, axis=0))
    for name in NAMES:
        assert hint[f"{name} of hint"] > 0.9 and text[f"{name} of text"] > 0.9, name
        assert hint[f"{name} of text"] < 0.1 and text[f"{name} of hint"] < 0.1, name
    assert text["f_score"] < 0.6


def test_codes_are_refused_by_name_without_their_program_and_counted_by_module(monkeypatch):
    code = np.where(np.random.default_rng(0).random((24, 24)) < 0.5, 255, 0).astype(np.uint8)
    colours = np.where(code[..., None] > 0, (240, 225, 40), (40, 70, 225)).astype(np.uint8)
    said = iter(["A", "B", "", "A"])
    monkeypatch.setattr(qr, "read", lambda image: next(said))
    found = qr.judged(np.stack([colours] * 3), [code], ["A"])
    assert found == {"read": 0.3333, "wrong": 0.3333, "modules": 1, "colour": found["colour"]} and found["colour"] > 0.5
    assert qr.judged(255 - colours[None], [code], ["A"])["modules"] == 0
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="apt-get install qrencode"):
        qr.code_of("A", 32)

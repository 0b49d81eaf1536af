"""Images of two folders are paired by their names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.metrics import command
from jaxgen.metrics.partners import partners

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)


def folder(path, names, images=IMAGES):
    for name, image in zip(names, images, strict=False):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / name)
    return path


def call(capsys, *arguments):
    status = command.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("num", [[], ["--num=5"]])
def test_numbers_with_and_without_leading_zeros_are_one_name(tmp_path, capsys, num):
    a = folder(tmp_path / "a", [f"img_{i}.png" for i in range(1, 13)])
    b = folder(tmp_path / "b", [f"img_{i:02d}.bmp" for i in range(1, 13)])
    for pair in ((a, b), (b, a)):
        status, out, err = call(capsys, *pair, "--metrics=l1,ssim", *num)
        assert status == 0, err
        assert json.loads(out)["l1"]["value"] == 0 and json.loads(out)["ssim"]["value"] == pytest.approx(1)
    assert "pairs by name: img_01.bmp with img_1.png" in err


def test_names_that_do_not_match_are_told_and_order_can_be_asked_for(tmp_path, capsys):
    a, b = folder(tmp_path / "a", ["1.png", "2.png"]), folder(tmp_path / "b", ["2.png", "3.png"])
    status, out, err = call(capsys, a, b, "--metrics=l1")
    assert status == 2 and out == "" and len(err.strip().splitlines()) == 1
    assert f"1 of 2 files of '{a}' (1.png) and 1 of 2 files of '{b}' (3.png) have no partner" in err
    assert "--pairs=order" in err
    status, out, err = call(capsys, a, b, "--metrics=l1", "--pairs=order")
    assert status == 0 and json.loads(out)["l1"]["value"] == 0 and "pairs by order: 1.png with 2.png" in err
    status, out, err = call(capsys, a, b, "--metrics=frechet", "--network=digits", "--pairs=order")
    assert status == 2 and "--pairs=order is of metrics of pairs" in err


def test_more_files_on_one_side_are_told(tmp_path, capsys):
    a, b = folder(tmp_path / "a", ["1.png", "2.png"]), folder(tmp_path / "b", ["1.png", "2.png", "3.png"])
    for pair in ((a, b), (b, a)):
        status, _, err = call(capsys, *pair, "--metrics=l1")
        assert status == 2 and f"1 of 3 files of '{b}' (3.png) have no partner" in err


def test_rows_of_an_archive_are_paired_by_order_and_it_is_told(tmp_path, capsys):
    a = folder(tmp_path / "a", ["1.png", "2.png"])
    np.savez(tmp_path / "b.npz", images=IMAGES[:2])
    status, out, err = call(capsys, a, tmp_path / "b.npz", "--metrics=l1")
    assert status == 0 and json.loads(out)["l1"]["value"] == 0
    assert "pairs by order: 1.png with row 0, 2.png with row 1" in err


def test_equal_names_come_before_alike_ones():
    assert partners("a", ["1.png", "01.png"], "b", ["01.jpg", "1.jpg"]) == {"1.png": "1.jpg", "01.png": "01.jpg"}
    assert partners("a", ["x/7.png"], "b", ["x/007.png"]) == {"x/7.png": "x/007.png"}
    assert partners("a", ["0.png", "10.png"], "b", ["00.png", "010.png"]) == {"0.png": "00.png", "10.png": "010.png"}
    with pytest.raises(UserError, match=r"'1.png' and '01.png' of 'a' have one name"):
        partners("a", ["1.png", "01.png"], "b", ["1.png", "2.png"])
    with pytest.raises(UserError, match=r"'a.jpg' and 'a.png' of 'b' have one name"):
        partners("a", ["a.png"], "b", ["a.jpg", "a.png"])

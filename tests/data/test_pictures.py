"""Only the formats that are meant are opened, by content: the imaging library starts programs for some others."""

from __future__ import annotations

import io
import os
import pathlib
import re
import stat

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import open_source
from jaxgen.data.images import decode
from jaxgen.errors import UserError
from jaxgen.files.pictures import FORMATS, load_image, open_image
from jaxgen.metrics.sets import open_set
from jaxgen.report import page

ROOT = pathlib.Path(__file__).resolve().parents[2]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(%pipe%touch ran) (w) file\nshowpage\n%%EOF\n"
HOSTILE = {
    "PostScript": EPS,
    "PostScript behind a blank line": b"\n" + EPS,
    "PostScript with a preview": b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + bytes(22) + EPS,
    "PDF": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
    "XML": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    "WMF": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(200),
    "a GRIB": b"GRIB" + bytes(200),
    "text": b"no image",
    "nothing": b"",
}
UNMEANT = ("ICO", "PCX", "TGA", "SGI", "DDS", "JPEG2000", "ICNS", "SPIDER", "IM", "MSP")


def encoded(format: str, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.full((side, side, 3), 99, np.uint8))
    image.convert({"MSP": "1", "SPIDER": "F"}.get(format, "RGB")).save(buffer, format)
    return buffer.getvalue()


@pytest.fixture
def ghost(tmp_path, monkeypatch) -> pathlib.Path:
    """A Ghostscript that leaves a file where it is started, the first one in PATH."""
    from PIL import EpsImagePlugin

    folder, left = tmp_path / "bin", tmp_path / "started"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\ntouch {left}\nexit 0\n")
    (folder / "gs").chmod((folder / "gs").stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return left


def photos(folder: pathlib.Path, name: str, data: bytes) -> pathlib.Path:
    folder.mkdir()
    for i in range(3):
        (folder / f"good{i}.png").write_bytes(encoded("PNG"))
    (folder / name).write_bytes(data)
    return folder


def test_this_ghostscript_is_found_by_the_imaging_library(ghost):
    """So that the tests below would see it start."""
    with pytest.raises(OSError):
        Image.open(io.BytesIO(EPS)).load()
    assert ghost.exists()


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_picture_is_refused_by_name_and_nothing_is_started(kind, ending, tmp_path, ghost):
    folder = photos(tmp_path / "photos", f"x.{ending}", HOSTILE[kind])
    with pytest.raises(UserError, match=rf"x\.{ending}' cannot be read as an image, since .*; make it PNG, ") as caught:
        open_source(f"folder:{folder}", "all", 8, 3)
    assert not ghost.exists() and "\n" not in str(caught.value)
    if kind.startswith("PostScript"):
        assert "its content is PostScript" in str(caught.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_nor_by_metrics_of_a_folder(kind, tmp_path, ghost):
    with pytest.raises(UserError, match=r"x\.png' cannot be read as an image"):
        open_set(os.fspath(photos(tmp_path / "photos", "x.png", HOSTILE[kind])))
    assert not ghost.exists()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ["step_64.png", "panel_x.png", "x.gif"])
def test_nor_by_a_report(kind, name, tmp_path, ghost):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / name).write_bytes(HOSTILE[kind])
    with pytest.raises(UserError, match=rf"{re.escape(name)} cannot be read as an image"):
        page.write_report(tmp_path)
    written = (tmp_path / "report.html").read_text()
    assert not ghost.exists() and "cannot be read as an image" in written and "data:image" not in written


@pytest.mark.parametrize("format", UNMEANT)
def test_formats_that_are_not_meant_are_refused(format):
    with pytest.raises(UserError, match="x.png cannot be read as an image"):
        open_image(encoded(format, 32), "x.png")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_the_content_counts_and_not_the_name(format, name):
    found = open_image(encoded(format), name)
    assert found.size == (8, 8) and found.format == format


def test_a_report_embeds_what_its_page_says_that_it_is(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "step_64.png").write_bytes(encoded("TIFF"))
    with pytest.raises(UserError, match=r"step_64\.png .*; make it PNG, or remove it"):
        page.write_report(tmp_path)


def test_a_picture_with_too_many_pixels_is_one_sentence(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for read in (open_image, load_image, lambda data, where: decode(data, (8, 8), 3, where)):
        with pytest.raises(UserError, match=r"^x\.png has too many pixels to be opened \(.*\); shrink or remove it\.$"):
            read(encoded("PNG", 64), "x.png")


@pytest.mark.parametrize("format", ["PNG", "GIF", "JPEG", "WEBP", "TIFF"])
def test_a_truncated_picture_is_one_sentence(format):
    data = encoded(format, 64)
    for end in range(1, len(data) - 1, max(1, len(data) // 40)):
        try:
            load_image(data[:end], "x")
        except UserError as error:
            assert str(error).startswith("x ") and "\n" not in str(error)


def test_pictures_are_opened_in_one_place():
    """`Image.open`, also by another name, stands in `jaxgen/files/pictures.py` and nowhere else."""
    found = {}
    for folder in ("jaxgen", "studies", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            name = os.fspath(path.relative_to(ROOT))
            found[name] = len(re.findall(r"Image\.open\b|from PIL\.Image import|imread\(|imageio|cv2\.", text))
    assert {name: count for name, count in found.items() if count} == {"jaxgen/files/pictures.py": 1}

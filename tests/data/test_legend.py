"""Legends: what a painted layout becomes, and what is said of colours that nobody explained."""

from __future__ import annotations

import io

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxgen.colours import class_colours
from jaxgen.data.legend import legend_text, read_legend
from jaxgen.errors import UserError

TEXT = """\
// painted by hand
#4682b4 0 sky above all
128,64,128 3 road

#ff0000 3
"""
SKY, ROAD, RED = (0x46, 0x82, 0xB4), (128, 64, 128), (255, 0, 0)


def written(tmp_path, text=TEXT):
    path = epath.Path(tmp_path) / "legend.txt"
    path.write_text(text)
    return path


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def painted():
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2], pixels[2:, :3], pixels[2:, 3:] = SKY, ROAD, RED
    return Image.fromarray(pixels)


def test_a_painted_layout_becomes_classes(tmp_path):
    legend = read_legend(written(tmp_path), 4)
    classes = np.array([[0] * 6] * 2 + [[3] * 6] * 2)
    for image in (painted(), painted().convert("RGBA"), painted().quantize(8)):
        found = legend.decode(encoded(image), (4, 6), "map.png")
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, classes)
    larger = legend.decode(encoded(painted()), (8, 8), "map.png")
    np.testing.assert_array_equal(larger, [[0] * 8] * 4 + [[3] * 8] * 4)  # cropped in the centre, and no class between


def test_numbers_are_levels_or_indices(tmp_path):
    legend = read_legend(written(tmp_path, "7 1 field\n200 0\n"), 2)
    levels = np.array([[7, 200], [200, 7]], np.uint8)
    palette = Image.fromarray(levels).convert("P")
    palette.putdata(levels.ravel().tolist())
    palette.putpalette([9, 80, 3] * 256)
    for image in (Image.fromarray(levels), palette):
        np.testing.assert_array_equal(legend.decode(encoded(image), (2, 2), "map.png"), [[1, 0], [0, 1]])
    with pytest.raises(UserError, match="is coloured, and the legend .* has numbers"):
        legend.decode(encoded(painted()), (4, 6), "map.png")
    with pytest.raises(UserError, match="a pixel that the legend .* does not know, such as 8 in row 1, column 0; the "
                                        "nearest it has is 7, class 1"):  # fmt: skip
        legend.decode(encoded(Image.fromarray(np.array([[7], [8]], np.uint8))), (2, 1), "map.png")


def test_the_text_of_a_legend_is_read_back(tmp_path):
    colours = class_colours(20)
    legend = read_legend(written(tmp_path, legend_text(colours)), 20)
    image = Image.fromarray(colours[None])
    np.testing.assert_array_equal(legend.decode(encoded(image), (1, 20), "map.png"), [range(20)])


def test_a_colour_without_a_class_is_refused_with_its_place(tmp_path):
    image = np.array(painted())
    image[3, 4] = (250, 3, 1)
    image[3, 5] = (251, 3, 1)
    said = r"map.png has 2 pixels .* such as #fa0301 in row 3, column 4; the nearest it has is #ff0000, class 3"
    with pytest.raises(UserError, match=said):
        read_legend(written(tmp_path), 4).decode(encoded(Image.fromarray(image)), (4, 6), "map.png")
    smooth = painted().resize((32, 32), Image.Resampling.BILINEAR)
    with pytest.raises(UserError, match="paint without smooth edges"):
        read_legend(written(tmp_path), 4).decode(encoded(smooth), (4, 6), "map.png")
    clear = painted().convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 9))
    with pytest.raises(UserError, match="map.png is partly transparent"):
        read_legend(written(tmp_path), 4).decode(encoded(clear), (4, 6), "map.png")
    with pytest.raises(UserError, match="map.png"):
        read_legend(written(tmp_path), 4).decode(encoded(painted())[:60], (4, 6), "map.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no colours"),
        ("#4682b4\n", "line 1 of .*, #4682b4, gives no class"),
        ("#4682b4 sky\n", "gives no class"),
        ("#4682b 0\n", "begins with #4682b, which is no colour"),
        ("1,2 0\n", "begins with 1,2, which is no colour"),
        ("1,2,256 0\n", "which is no colour"),
        ("#4682b4 4\n", "has class 4, and this model knows 0 to 3"),
        ("#4682b4 0\n\n70,130,180 1\n", "line 3 of .* gives 70,130,180 the class 1, and a line above 0"),
        ("#4682b4 0\n7 1\n", "has colours and numbers"),
    ],
)
def test_what_is_no_legend_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_legend(written(tmp_path, text), 4)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="--legend"):
        read_legend(epath.Path(tmp_path) / "none.txt", 4)

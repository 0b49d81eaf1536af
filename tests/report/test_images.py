from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.report import images


def decode(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count, columns, pad, scale", [(7, 3, 2, 3), (1, 1, 0, 1), (4, None, 1, 2), (5, 9, 1, 1)])
def test_every_pixel_is_where_reading_order_puts_it(channels, count, columns, pad, scale):
    height, width = 2, 3
    pictures = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)
    out = images.grid(pictures, columns=columns, pad=pad, scale=scale)
    columns = columns or {4: 2}[count]
    rows = -(-count // columns)
    assert out.dtype == np.uint8
    assert out.shape == (pad + rows * (height * scale + pad), pad + columns * (width * scale + pad), 3)
    drawn = np.zeros(out.shape[:2], bool)
    for i in range(count):
        row, column = divmod(i, columns)
        for y in range(height * scale):
            for x in range(width * scale):
                at = pad + row * (height * scale + pad) + y, pad + column * (width * scale + pad) + x
                np.testing.assert_array_equal(out[at], np.broadcast_to(pictures[i, y // scale, x // scale], 3))
                drawn[at] = True
    assert len(np.unique(out[~drawn])) <= 1  # one colour between the cells and where there is none


def test_small_images_are_magnified_until_readable_and_large_ones_are_left():
    assert images.grid(np.zeros((1, 8, 8, 1)), pad=0).shape == (48, 48, 3)
    assert images.grid(np.zeros((1, 28, 28, 1)), pad=0).shape == (56, 56, 3)
    assert images.grid(np.zeros((1, 64, 64, 1)), pad=0).shape == (64, 64, 3)


def test_a_grid_is_as_wide_as_tall_or_wider_by_default():
    for count in range(1, 20):
        height, width, _ = images.grid(np.zeros((count, 4, 4, 1)), scale=1).shape
        assert height <= width


def test_floats_run_from_minus_one_to_one_and_invert_the_training_scale():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_array_equal(images.to_rgb(levels / 127.5 - 1)[..., :1], levels)
    np.testing.assert_array_equal(images.to_rgb((levels / 127.5 - 1).astype(np.float32))[..., :1], levels)
    assert images.to_rgb(np.full((1, 1, 1), -7.0)).max() == 0
    assert images.to_rgb(np.full((1, 1, 1), 7.0)).min() == 255


def test_bfloat16_is_a_float():
    import ml_dtypes

    assert images.to_rgb(np.ones((1, 1, 3), ml_dtypes.bfloat16)).min() == 255


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_seen(bad):
    picture = np.zeros((2, 2, 1))
    picture[0, 1] = bad
    out = images.to_rgb(picture)
    assert tuple(out[0, 1]) == images.NOT_FINITE
    assert (out[0, 0] == out[1, 1]).all() and tuple(out[0, 0]) != images.NOT_FINITE


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((8, 8, 1)), "shape"),
        (np.zeros((2, 2, 8, 8, 1)), "shape"),
        (np.zeros((2, 8, 8, 2)), "channels"),
        (np.zeros((2, 8, 8, 1), np.int32), "int32"),
        (np.zeros((2, 8, 8, 1), bool), "bool"),
        (np.zeros((0, 8, 8, 1)), "nothing"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(array, words):
    with pytest.raises(UserError, match=words):
        images.grid(array)


def test_rgba_is_drawn_over_white():
    pixels = np.asarray([[[[0, 100, 255, 255], [0, 100, 255, 0], [0, 100, 255, 51]]]], np.uint8)
    wanted = [[[0, 100, 255], [255, 255, 255], [204, 224, 255]]]  # a fifth of the colour and four fifths of white
    np.testing.assert_array_equal(images.to_rgb(pixels)[0], wanted)
    np.testing.assert_array_equal(images.to_rgb(pixels.astype(np.float32) / 127.5 - 1)[0], wanted)
    assert images.grid(pixels).shape[-1] == 3


def test_sizes_below_their_minimum_are_refused():
    for wrong in ({"columns": 0}, {"scale": 0}, {"pad": -1}):
        with pytest.raises(UserError):
            images.grid(np.zeros((1, 2, 2, 1)), **wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip_is_exact(tmp_path, channels):
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, channels), np.uint8)
    images.save_png(tmp_path / "new" / "a.png", picture)
    np.testing.assert_array_equal(decode(tmp_path / "new" / "a.png"), np.broadcast_to(picture, (5, 6, 3)))
    with pytest.raises(UserError, match="grid"):
        images.save_png(tmp_path / "b.png", picture[None])


@pytest.mark.parametrize("channels", [1, 3])
def test_gif_round_trip(tmp_path, channels):
    frames = np.random.default_rng(0).uniform(-1, 1, (6, 4, 5, 5, channels))
    images.save_gif(tmp_path / "a.gif", images.animation(frames, scale=1), ms=50, hold_last_ms=700)
    gif = Image.open(io.BytesIO((tmp_path / "a.gif").read_bytes()))
    assert gif.n_frames == 6 and gif.info["loop"] == 0
    times = []
    for i in range(6):
        gif.seek(i)
        times.append(gif.info["duration"])
        if channels == 1:
            np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), images.grid(frames[i], scale=1))
    assert times == [50] * 5 + [700]


def test_gif_refuses_times_that_browsers_do_not_keep(tmp_path):
    with pytest.raises(UserError, match="20 ms"):
        images.save_gif(tmp_path / "a.gif", np.zeros((2, 4, 4, 3), np.uint8), ms=5)
    with pytest.raises(UserError, match="animation"):
        images.save_gif(tmp_path / "a.gif", np.zeros((2, 3, 4, 4, 3), np.uint8))


def test_mp4_round_trip(tmp_path):
    import av

    ramp = np.linspace(0, 255, 33).astype(np.uint8)
    frames = np.stack([np.roll(np.broadcast_to(ramp[None, :, None], (21, 33, 3)), shift, axis=1) for shift in range(5)])
    images.save_mp4(tmp_path / "a.mp4", frames, ms=50)
    with av.open(tmp_path / "a.mp4") as video:
        stream = video.streams.video[0]
        seen = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        assert stream.average_rate == 20 and stream.codec_context.pix_fmt == "yuv420p"
    assert len(seen) == 5 and seen[0].shape == (22, 34, 3)  # sides are even
    off = np.abs(np.stack(seen)[:, :21, :33].astype(int) - frames)
    assert off.mean() < 3  # levels of 255; another frame of the five is off by at least 15
    with pytest.raises(UserError, match="frames"):
        images.save_mp4(tmp_path / "b.mp4", frames[0])


def test_without_pyav_an_mp4_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "can_write_mp4", lambda: False)
    with pytest.raises(UserError, match=r"jaxgen\[video\]"):
        images.save_mp4(tmp_path / "a.mp4", np.zeros((2, 4, 4, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_write_that_is_cut_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    images.save_png(path, np.zeros((2, 2, 1)))
    before = path.read_bytes()

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", cut)
    with pytest.raises(KeyboardInterrupt):
        images.save_png(path, np.ones((2, 2, 1)))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]

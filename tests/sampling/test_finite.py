"""Images that are not finite are counted and never shown or judged as if they were black."""

from __future__ import annotations

import json
import logging
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_methods import tiny_config

from jaxgen.data import Arrays
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.report.images import NOT_FINITE
from jaxgen.runs.setup import make_method
from jaxgen.sampling.finite import NotFinite
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.latents import encoded
from jaxgen.sampling.outputs import write_panels, write_samples

CONFIG = '''"""Digits whose samples have holes."""

from tiny_methods import tiny_config


def get_config():
    config = tiny_config("Holed", holes={holes})
    config.data.num_classes = 10
    config.train.update(total_images=32, sample_every_images=16, evaluate_every_images=16)
    config.evaluate.update(num=20, batch_size=8, metrics=("frechet",), network="digits")
    return config
'''


def generator(holes):
    config = tiny_config("Holed", holes=holes)
    config.data.num_classes = 10
    params = {"net": {"out": {"kernel": np.zeros(3, np.float32)}}}
    return Generator(make_method(config), config), Model(params, {})


def colour(path: pathlib.Path, cell: int) -> tuple[int, ...]:
    """The colour of the value at (2, 3) of a cell in the first row of a grid of 8x8 images."""
    with Image.open(path) as picture:
        return picture.convert("RGB").getpixel((1 + cell * 49 + 3 * 6 + 2, 1 + 2 * 6 + 2))


def test_the_images_that_are_not_finite_are_counted_and_drawn_in_magenta(tmp_path, caplog):
    made, model = generator(holes=(1, 2))
    with caplog.at_level(logging.WARNING, "jaxgen"):
        drawn = made.images(model, 0, 25)
    assert "6 of 25 images are not finite" in drawn.told and drawn.told in caplog.messages
    np.testing.assert_array_equal(drawn.finite, ~np.isin(np.arange(25) % 10, (1, 2)))
    # label k is the grey k / 5 - 1 in [-1, 1], which is the level 25.5 k
    levels = 25.5 * np.array([0, 3, 4, 5, 6, 7, 8, 9])
    np.testing.assert_allclose(drawn.images[drawn.finite][:8, 0, 0, 0], levels, atol=0.5)
    write_samples(tmp_path, drawn)
    np.testing.assert_array_equal(np.load(tmp_path / "samples.npz")["finite"], drawn.finite)
    assert [colour(tmp_path / "samples.png", cell) for cell in (1, 2)] == [NOT_FINITE, NOT_FINITE]
    assert [colour(tmp_path / "samples.png", cell)[0] for cell in (0, 4)] == [0, 102]
    with pytest.raises(NotFinite, match="6 of 25 images are not finite.*; no quiz"):
        drawn.need_finite("no quiz is made")


def test_a_panel_that_is_not_finite_is_counted(tmp_path, caplog):
    made, model = generator(holes=(1,))
    with caplog.at_level(logging.WARNING, "jaxgen"):
        write_panels(tmp_path, made, model, 0)
    assert any("2 of 16 pictures of the panel 'greys' are not finite" in text for text in caplog.messages)
    assert colour(tmp_path / "panel_greys.png", 1) == NOT_FINITE


def test_a_sound_model_is_told_nothing_about(tmp_path, caplog):
    made, model = generator(holes=())
    drawn = made.images(model, 0, 12)
    assert drawn.finite.all() and drawn.told == "" and drawn.need_finite("") is drawn and not caplog.messages
    assert drawn.pictures is drawn.images
    write_samples(tmp_path, drawn)
    assert "finite" not in np.load(tmp_path / "samples.npz")


def test_where_no_image_is_finite_the_sentence_names_the_weights():
    made, model = generator(holes=tuple(range(10)))
    with pytest.raises(UserError, match="^8 of 8 images are not finite.*the weights are finite"):
        made.images(model, 0, 8)
    model.params["net"]["out"]["kernel"][1] = np.inf
    with pytest.raises(UserError, match="The image is not finite.*the weights of net hold values"):
        made.images(model, 0, 1)


def test_latents_that_are_not_finite_are_not_written():
    images = np.zeros((5, 4, 4, 1), np.uint8)
    images[3] = 255
    source = Arrays({"image": images})
    with pytest.raises(UserError, match="1 of 5 images of 'arrays' have latents that are not finite"):
        encoded(source, lambda params, x: jnp.where(x > 0, jnp.inf, x) * params, jnp.float32(1), 2)
    found = encoded(source, lambda params, x: x * params, jnp.float32(2), 2)
    np.testing.assert_allclose(found["moments"][:, 0, 0, 0], [-2, -2, -2, 2, -2], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("holes, status", [((7,), 0), (tuple(range(10)), 2)])
def test_commands_on_a_run_whose_samples_are_not_finite(tmp_path, capfd, caplog, holes, status):
    """Training goes on; nothing is measured of such samples; a command that draws nothing sound ends with status 2."""
    (tmp_path / "holed.py").write_text(CONFIG.replace("{holes}", repr(holes)))
    run, out = tmp_path / "run", tmp_path / "out"
    share = "{} of {} images are not finite".format

    def call(*arguments):
        caplog.clear()
        found = tiny.call(*arguments)
        text = capfd.readouterr().err + "\n".join(caplog.messages)
        assert "Traceback" not in text
        return found, text

    found, text = call(f"--config={tmp_path / 'holed.py'}", f"--workdir={run}")
    assert found == status and share(6 if status == 0 else 64, 64) in text
    assert list((run / "checkpoints").iterdir())
    assert (run / "samples" / "step_0000000016.png").exists() == (status == 0)
    assert (run / "report.html").exists()
    scores = json.loads((run / "metrics.json").read_text()) if status == 0 else {}
    assert not any(name.startswith("frechet") for name in scores)

    trust = "--trust=tiny_methods"
    found, text = call("--mode=sample", f"--workdir={run}", f"--out={out}", "--num=10", trust)
    assert found == status and share(1 if status == 0 else 10, 10) in text
    assert (out / "samples.png").exists() == (status == 0)

    found, text = call("--mode=evaluate", f"--workdir={run}", trust)
    assert found == status and share(2 if status == 0 else 20, 20) in text

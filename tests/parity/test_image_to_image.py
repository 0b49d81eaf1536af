"""A Stable Diffusion folder begins with pictures: the same pictures, noise and words give the images of diffusers."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_edits import NEGATIVE, PROMPTS, SCALE, STEPS, photos, quiet, without_chance, write_inputs

pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as peer  # noqa: E402

from jaxgen.config.files import load_config  # noqa: E402
from jaxgen.editing.edited import given_pictures  # noqa: E402
from jaxgen.sampling.prompts import TextRequest  # noqa: E402
from jaxgen.sampling.restore import pretrained  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline, two pictures, a mask and a noise."""
    return write_inputs(tmp_path_factory.mktemp("made"), known=5)


def theirs(folder, strength, monkeypatch):
    """Images [2, 16, 16, 3] in [0, 1]; latents are the posterior's mean, in place of a sample from it."""
    without_chance(peer, folder, monkeypatch)
    place = folder / "pipeline"
    pipe = quiet(diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(place, safety_checker=None))
    images = [Image.open(file) for file in photos(folder)]
    return pipe(
        PROMPTS, images, strength, STEPS, guidance_scale=SCALE, negative_prompt=[NEGATIVE] * 2, output_type="np"
    ).images


@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_pictures_become_those_of_diffusers(folder, strength, monkeypatch):
    wanted = theirs(folder, strength, monkeypatch)
    config, _ = load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    config.init_from.pretrained = str(folder / "pipeline")
    config.sampler.update(steps=STEPS, guidance_scale=SCALE)
    trained = pretrained(config, TextRequest(PROMPTS, NEGATIVE, folder / "noise.npy", 2))
    files = photos(folder)
    trained, _ = given_pictures(trained, {"image": files}, strength, 2)
    batch = {**trained.generator.given, "edit_image": trained.generator.given["edit_image"] / np.float32(127.5) - 1}
    with jax.default_matmul_precision("highest"):
        keys = jax.random.split(jax.random.key(0), 2)
        found = jax.jit(trained.generator.method.sample)(trained.model, keys, batch)
    given = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    assert wanted.std() > 0.05 and np.abs(wanted - given).mean() > 0.05
    np.testing.assert_allclose(np.clip(np.asarray(found) / 2 + 0.5, 0, 1), wanted, atol=1e-3)


def test_the_command_keeps_what_a_mask_keeps(folder, tmp_path):
    words = ["--config=configs/stable_diffusion.py", f"--config.init_from.pretrained={folder / 'pipeline'}"]
    words += ["--mode=sample", "--prompt=a red cat", f"--image={folder / 'photos'}", f"--mask={folder / 'mask.png'}"]
    assert tiny.call(*words, "--config.sampler.steps=2", f"--out={tmp_path / 'out'}") == 0
    for name in "ab":
        places = folder / "photos", tmp_path / "out" / "images"
        photo, drawn = (np.asarray(Image.open(place / f"{name}.png")) for place in places)
        np.testing.assert_array_equal(drawn[:, :5], photo[:, :5])
        assert (drawn[:, 5:] != photo[:, 5:]).mean() > 0.8

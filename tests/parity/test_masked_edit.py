"""A Stable Diffusion folder changes a part of pictures: equal latents and noise give the images of diffusers."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_edits import NEGATIVE, PROMPTS, SCALE, STEPS, photos, quiet, without_chance, write_inputs

pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as peer  # noqa: E402

from jaxgen.config.files import load_config  # noqa: E402
from jaxgen.editing.edited import given_pictures  # noqa: E402
from jaxgen.sampling.prompts import TextRequest  # noqa: E402
from jaxgen.sampling.restore import pretrained  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pipeline, two pictures, a mask whose border is one of latents, and a noise."""
    return write_inputs(tmp_path_factory.mktemp("made"), known=6)


def theirs(folder, strength, monkeypatch):
    """Images [2, 16, 16, 3] in [0, 1]; latents are the posterior's mean, in place of a sample from it."""
    without_chance(peer, folder, monkeypatch)
    whole = diffusers.StableDiffusionPipeline.from_pretrained(folder / "pipeline", safety_checker=None)
    pipe = quiet(diffusers.StableDiffusionInpaintPipeline(**whole.components, requires_safety_checker=False))
    assert pipe.unet.config.in_channels == 4
    images = [Image.open(file) for file in photos(folder)]
    return pipe(
        PROMPTS, images, [Image.open(folder / "mask.png")] * 2, height=16, width=16, strength=strength,
        num_inference_steps=STEPS, guidance_scale=SCALE, negative_prompt=[NEGATIVE] * 2, output_type="np",
    ).images  # fmt: skip


@pytest.mark.parametrize("strength", [0.4, 0.8])
def test_what_a_mask_frees_becomes_that_of_diffusers(folder, strength, monkeypatch):
    wanted = theirs(folder, strength, monkeypatch)
    config, _ = load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    config.init_from.pretrained = str(folder / "pipeline")
    config.sampler.update(steps=STEPS, guidance_scale=SCALE)
    files = {"image": photos(folder), "mask": [folder / "mask.png"]}

    def ours(noise):
        trained = pretrained(config, TextRequest(PROMPTS, NEGATIVE, noise, 2))
        trained, _ = given_pictures(trained, files, strength, 2)
        given = trained.generator.given
        image, mask = given["edit_image"] / np.float32(127.5) - 1, np.repeat(given["edit_mask"], 2, axis=0)
        batch = {**given, "edit_image": image, "edit_mask": mask}
        with jax.default_matmul_precision("highest"):
            keys = jax.random.split(jax.random.key(0), 2)
            found = jax.jit(trained.generator.method.sample)(trained.model, keys, batch)
        return np.clip(np.asarray(found) / 2 + 0.5, 0, 1)

    found, given = ours(folder / "noise.npy"), np.stack([np.asarray(Image.open(f)) for f in files["image"]]) / 255
    np.testing.assert_allclose(found[:, :, 6:], wanted[:, :, 6:], atol=1e-3)
    np.testing.assert_allclose(found[:, :, :6], given[:, :, :6], atol=1e-6)
    assert np.abs(wanted - given)[:, :, 6:].mean() > 0.05
    assert np.abs(ours("") - wanted)[:, :, 6:].max() > 0.05  # another noise gives another image

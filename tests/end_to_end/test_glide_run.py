"""GLIDE from the command line: a base under a text, guidance by another run's CLIP, a fine-tuning that fills holes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.config import files, image_shape
from jaxgen.methods.base import Model
from jaxgen.runs.comparison import compare
from jaxgen.runs.setup import make_method

pytestmark = pytest.mark.slow

SMALL = """
def small(config):
    config.data.update(source="caption_shapes:phrases", resolution=8, channels=3)
    config.optimizer.update(learning_rate=0.02, warmup_images=0, decay_images=32)
    config.train.update(batch_size=8, total_images=32, log_every_images=8, checkpoint_every_images=0,
                        sample_every_images=0, ema_decay=0.5, tensorboard=False)
    config.evaluate.update(num=8, batch_size=8, metrics=(), at_end=False)
    return config
"""
BASE = '''"""GLIDE's base at a tiny size.

Paper: none; it exists to be tested.
"""

from configs import glide_shapes


def get_config():
    config = small(glide_shapes.get_config())
    config.method.network.update(channels=8, channel_multipliers=(1,), attention_levels=(0,), heads=2, norm_groups=4)
    config.method.network.update(vector_dim=8, context_dim=8)
    config.method.parts.text.network.update(width=8, depth=1, heads=2, mlp_features=8)
    config.sampler.steps = 3
    return config
'''
CLIP = '''"""A tiny CLIP of noisy images.

Paper: none; it exists to be tested.
"""

from jaxgen.config import defaults, section

IMAGE = dict(name="image_tower", size=8, patch=4, width=8, depth=1, heads=2, mlp_features=8, projection=8, timed=True)
TEXT = dict(name="text_tower", vocabulary=56, length=16, width=8, depth=1, heads=2, mlp_features=8, end=1, projection=8)


def get_config():
    config = small(defaults())
    config.method = section(name="clip", image=section(**IMAGE), text=section(**TEXT), schedule="cosine")
    return config
'''
GUIDED = '''"""The base, guided by the CLIP.

Paper: none; it exists to be tested.
"""

import tiny_glide_base
import tiny_glide_clip
from jaxgen.config import section


def get_config():
    config = tiny_glide_base.get_config()
    towers = dict(image=section(**tiny_glide_clip.IMAGE), text=section(**tiny_glide_clip.TEXT))
    config.guidance = section(name="clip", scale=SCALE, **towers)
    for group in ("image", "text", "scale"):
        config.init_from[f"clip_{group}"] = f"HERE/clip#{group.replace('scale', 'logit_scale')}"
    return config
'''
FILLS = '''"""The base, taught to fill holes.

Paper: none; it exists to be tested.
"""

from configs import glide_shapes_inpainting


def get_config():
    config = small(glide_shapes_inpainting.get_config())
    config.init_from.pretrained = "HERE/base"
    return config
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained base, a trained CLIP, configs that use them, and a picture with its mask."""
    place = tmp_path_factory.mktemp("glide")
    for name, text in {"tiny_glide_base": BASE, "tiny_glide_clip": CLIP, "fills": FILLS}.items():
        (place / f"{name}.py").write_text(text.replace("HERE", str(place)) + SMALL)
    for scale in ("0.0", "1000.0"):
        text = GUIDED.replace("HERE", str(place)).replace("SCALE", scale)
        (place / f"guided_{scale[0]}.py").write_text(text)
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    mask = np.repeat([[0] * 4 + [255] * 4], 8, 0).astype(np.uint8)
    for name, levels in {"photo": picture, "mask": mask}.items():
        Image.fromarray(levels).save(place / f"{name}.png")
    for name in ("base", "clip"):
        assert tiny.call(f"--config={place / f'tiny_glide_{name}.py'}", f"--workdir={place / name}") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        yield place


def drawn(out, *words):
    assert tiny.call("--mode=sample", "--num=4", f"--out={out}", *words) == 0
    return np.load(out / "samples.npz")["images"].astype(int)


def test_another_run_s_clip_leads_to_the_prompt(place, tmp_path):
    images = {}
    for name in ("guided_0", "guided_1"):
        for prompt in ("a red disc in the middle", "a blue star at the top"):
            words = (f"--config={place / name}.py", f"--workdir={place / 'base'}", f"--prompt={prompt}")
            images[name, prompt[2]] = drawn(tmp_path / f"{name}{prompt[2]}", *words)
    assert np.abs(images["guided_1", "r"] - images["guided_0", "r"]).mean() > 10
    told, led = (np.abs(images[name, "r"] - images[name, "b"]).mean() for name in ("guided_0", "guided_1"))
    assert led > 3 * told  # of the text, beside what the hardly trained model makes of it


def test_without_its_weights_the_missing_group_is_named(place, tmp_path, capsys):
    words = (f"--config={place / 'guided_1.py'}", f"--workdir={place / 'base'}", f"--out={tmp_path / 'o'}", "--num=1")
    assert tiny.call(*words, "--mode=sample", "--config.init_from.clip_scale=") == 2
    assert "config.init_from.clip_scale" in capsys.readouterr().err and not (tmp_path / "o").exists()


@pytest.mark.nightly
def test_a_run_that_fills_holes_resumes_to_the_bit_and_keeps_what_is_known(place, tmp_path):
    run = [f"--config={place / 'fills.py'}", f"--workdir={place / 'fills'}"]
    assert tiny.call(*run) == 0
    for images in (16, 32):
        parts = [run[0], f"--workdir={tmp_path / 'parts'}", f"--config.train.total_images={images}"]
        assert tiny.call(*parts) == 0
    assert compare(place / "fills", tmp_path / "parts") == []
    given = [run[1], f"--image={place / 'photo.png'}", f"--mask={place / 'mask.png'}"]
    red = drawn(tmp_path / "red", *given, "--prompt=a red disc in the middle")
    blue = drawn(tmp_path / "blue", *given, "--prompt=a blue star at the top")
    photo = np.asarray(Image.open(place / "photo.png")).astype(int)
    assert (red[:, :, :4] == photo[:, :4]).all() and (red[:, :, 4:] != photo[:, 4:]).any()
    assert (red[:, :, 4:] != blue[:, :, 4:]).any()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt=a plaid disc",), "plaid"),
        (("--prompts=many.txt",), "give --num=2000"),
        (("--image=photo.png",), "give --mask"),
        (("--image=prompts.txt", "--mask=mask.png"), "prompts.txt"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(place, tmp_path, capsys, words, said):
    (place / "prompts.txt").write_text("a red disc in the middle\n")
    (place / "many.txt").write_text("a red disc in the middle\n" * 2000)
    words = [word.replace("photo", f"{place}/photo").replace("=prompts", f"={place}/prompts") for word in words]
    words = [word.replace("=m", f"={place}/m") for word in words]
    run = "fills" if any("image" in word for word in words) else "base"
    assert tiny.call(f"--workdir={place / run}", "--mode=sample", "--num=1", f"--out={tmp_path / 'o'}", *words) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_a_long_prompt_is_cut_with_a_word(place, tmp_path, caplog):
    drawn(tmp_path / "long", f"--workdir={place / 'base'}", f"--prompt={'a red disc in the middle ' * 8}")
    assert "15" in caplog.text and "in the middle" in caplog.text


def test_the_shipped_inpainting_is_that_of_the_shipped_base():
    fills, _ = files.load_config(tiny.ROOT / "configs" / "glide_shapes_inpainting.py")
    base, _ = files.load_config(tiny.ROOT / "configs" / "glide_shapes.py")
    assert fills.init_from.pretrained == "runs/glide_shapes"
    assert (fills.data.source, fills.data.resolution) == (base.data.source, base.data.resolution)


def test_the_shipped_guidance_fits_the_shipped_model_and_its_control():
    config, _ = files.load_config(tiny.ROOT / "configs" / "glide_shapes_clip.py")
    method = make_method(config)
    assert set(method.required_groups) == set(config.init_from) == {"clip_image", "clip_text", "clip_scale"}
    assert method.guidance.image.sees_time
    image = jnp.zeros((1, *image_shape(config)))
    batch = {"image": image, "tokens": jnp.zeros((1, 16), int)}

    def sampled(method):
        given, _ = method.untrained(jax.random.key(0), batch)
        learned, _ = method.init(jax.random.key(0), batch, 0, given, {}, {})
        return method.sample(Model({**given, **learned}, {}), jax.random.split(jax.random.key(1), 1), batch)

    assert jax.eval_shape(lambda: sampled(method)).shape == image.shape
    config.guidance.image.timed = False
    for name in ("clip", "universal_clip"):
        config.guidance.name = name
        assert jax.eval_shape(lambda: sampled(make_method(config))).shape == image.shape

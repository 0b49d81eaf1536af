"""A DDPM that is told a text and a picture: trained, resumed, and drawn from by --prompt and --image."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from PIL import Image

TEXT = '''"""A tiny text-guided upsampler of captioned shapes.

Paper: none; it exists to be tested.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(name="unet", channels=8, channel_multipliers=(1,), blocks=1, attention_resolutions=(8,),
                        middle_attention=False, norm_groups=4, context_dim=8),
        schedule="cosine",
        parts=section(
            text=section(
                name="text",
                network=section(name="text_encoder", vocabulary=28, length=8, width=8, depth=1, heads=2),
                dropout=0.1,
            ),
            image=section(name="image"),
        ),
    )
    config.sampler = section(name="ddim", steps=2)
    config.guidance = section(name="classifier_free", scale=2.0)
    config.data.update(source="caption_shapes", resolution=8, channels=3)
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    config.optimizer.update(name="adam", learning_rate=0.02)
    config.train.update(batch_size=8, total_images=64, log_every_images=8, checkpoint_every_images=32,
                        sample_every_images=0, ema_decay=0.0, tensorboard=False)
    config.evaluate.update(num=8, batch_size=8, metrics=(), at_end=False)
    return config
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "told.py").write_text(TEXT)
    words = (f"--config={folder / 'told.py'}", f"--workdir={folder / 'run'}")
    assert tiny.call(*words, "--config.train.total_images=32") == 0
    assert tiny.call(*words) == 0  # resumes
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows] == [8, 16, 24, 32, 40, 48, 56, 64]
    return folder


def drawn(run, out, *more):
    assert tiny.call(f"--workdir={run / 'run'}", "--mode=sample", "--num=2", f"--out={out}", *more) == 0
    return np.load(out / "samples.npz")["images"]


@pytest.mark.nightly
def test_a_prompt_and_a_picture_reach_the_samples(run, tmp_path):
    for name, level in (("dark", 20), ("bright", 230)):
        Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(tmp_path / f"{name}.png")
    plain = drawn(run, tmp_path / "a", "--prompt=a red star at the top", f"--image={tmp_path / 'dark.png'}")
    assert plain.shape == (2, 8, 8, 3)
    again = drawn(run, tmp_path / "b", "--prompt=a red star at the top", f"--image={tmp_path / 'dark.png'}")
    np.testing.assert_array_equal(plain, again)
    picture = drawn(run, tmp_path / "c", "--prompt=a red star at the top", f"--image={tmp_path / 'bright.png'}")
    words = drawn(run, tmp_path / "d", "--prompt=a blue circle at the left", f"--image={tmp_path / 'dark.png'}")
    assert (picture != plain).any() and (words != plain).any()
    away = drawn(
        run, tmp_path / "e", "--prompt=a red star at the top", f"--image={tmp_path / 'dark.png'}",
        "--negative_prompt=a blue circle at the left",
    )  # fmt: skip
    assert (away != plain).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--config.data.source=shapes"], "config.method.parts.text reads the entry 'tokens' of a batch that has"),
        (["--config.data.source=digits", "--config.data.channels=1"], "reads the entry 'tokens' of a batch that"),
        (["--config.method.parts.image.entry=hint"], "or make it of the images by config.data.corruptions.hint."),
        (["--config.method.parts.text.learns=False"], "set config.init_from.text=<workdir of a run>"),
        (["--config.method.parts.text.shares=denoiser"], "the method has a part or a group of parameters of the name"),
        (["--config.method.codec=latnts"], "config.method.codec.name='latnts' is unknown; did you mean 'latents'"),
        (["--config.method.network.context_dim=0"], "context was given, but this U-Net has context_dim=0"),
        (["--config.method.parts.text.network.width=16"], "context has shape"),
        (["--config.method.parts.text.dropout=0"], "Give config.method.parts.image or config.method.parts.text a"),
        (["--config.method.parts.image.name=imag"], "config.method.parts.image.name='imag' is unknown; did you mean"),
        (["--config.method.parts.text.network.vocabulary=5"], "knows those in [0, 5)"),
        (["--config.method.parts.text.network.vocabulary=0"], "a text encoder's vocabulary is 0; it must be at"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_anything_is_written(changes, said, tmp_path, capsys):
    (tmp_path / "told.py").write_text(TEXT)
    assert tiny.call(f"--config={tmp_path / 'told.py'}", f"--workdir={tmp_path / 'run'}", *changes) == 2
    error = capsys.readouterr().err
    complaints = [line for line in error.splitlines() if line.startswith("jaxgen: ")]
    assert len(complaints) == 1 and said in complaints[0] and "Traceback" not in error, error
    assert not (tmp_path / "run").exists()

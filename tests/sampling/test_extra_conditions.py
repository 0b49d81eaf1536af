"""Conditions of samples come from the held-out splits of further sources too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_methods import Plain, tiny_config

from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.runs.setup import make_loader, training_sources
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.slots import Slot, slots_of


@dataclasses.dataclass(frozen=True)
class Copy(Plain):
    """Samples are the pictures of a further source."""

    reads: str = "style_image"

    @property
    def conditions(self):
        return (self.reads,)

    def sample(self, model, keys, batch):
        return batch[self.reads]

    def scores(self, model, keys, batch):
        return {"brightness": batch["style_image"].mean(axis=(1, 2, 3))}


@pytest.fixture
def made(tmp_path):
    """The config and the pictures of each split of the further source."""
    values = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "styles.npz", train_images=values[0], valid_images=values[1])
    config = tiny_config("Plain")
    config.data.extra = {"style": {"source": f"npz:{tmp_path / 'styles.npz'}", "split": "train", "eval_split": "valid"}}
    config.evaluate.batch_size = 4
    return config, values


def test_the_conditions_are_those_of_its_held_out_split(made):
    config, values = made
    generator, model = Generator(Copy(), config), Model({}, {})
    drawn = generator.images(model, 0, 7).images
    np.testing.assert_array_equal(drawn, values[1][np.arange(7) % 5])
    score = generator.scores(model, 0, generator.source("test"), limit=4)["brightness"]
    assert score == pytest.approx((values[1][:4] / 127.5 - 1).mean(), abs=1e-5)


def test_what_it_does_not_have_is_named(made):
    config, _ = made
    with pytest.raises(UserError, match="reads the entry 'style_tokens' of a batch that has .*style_image"):
        Generator(Copy(reads="style_tokens"), config).images(Model({}, {}), 0, 1)
    config.data.extra.style.eval_split = ""
    with pytest.raises(UserError, match=r"config\.data\.extra\.style\.eval_split='test': .*valid"):
        Generator(Copy(), config).images(Model({}, {}), 0, 1)


class Grey(Copy):
    """Samples are the pictures of a further source of three channels, made grey."""

    def sample(self, model, keys, batch):
        return batch[self.reads].mean(-1, keepdims=True)


def test_a_further_source_of_other_channels_gives_conditions_and_takes_pictures(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "styles.npz", train_drawing=values[0], train_images=values[1], valid_images=values[1],
             valid_drawing=values[0])  # fmt: skip
    config = tiny_config("Plain")
    config.data.extra.style = section(
        source=f"npz:{tmp_path / 'styles.npz'}", split="train", eval_split="valid", channels=3,
        rename=section(image="drawing"),
    )  # fmt: skip
    config.evaluate.batch_size = 4
    generator, model = Generator(Grey(), config), Model({}, {})
    drawn = generator.images(model, 0, 5).images[..., 0].astype(float)
    np.testing.assert_allclose(drawn, values[0].mean(-1), atol=1)
    batch = next(make_loader(config, training_sources(config)))
    example = {name: (rows.shape[1:], rows.dtype) for name, rows in batch.items()}
    slots = slots_of(TrainedModel(generator, model, 0, 0, example))
    assert slots == {"style_image": Slot("style_image", (8, 8, 3))}

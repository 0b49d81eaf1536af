"""Conditions of samples come from the held-out splits of further sources too."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_methods import Plain, tiny_config

from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.sampling.generator import Generator


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

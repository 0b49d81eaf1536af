"""The classifier: learns what can be told apart, and its scores say how well."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import opened
from tiny_methods import tiny_config

from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.classifier import Classifier
from jaxgen.networks.classifier import Classifier as Network
from jaxgen.train.setup import open_split


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Images that are bright in one of three places, which is their class."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    images = random.integers(0, 120, (300, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 120
    path = tmp_path_factory.mktemp("data") / "halves.npz"
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


def test_it_learns_a_separable_set(tmp_path, halves):
    config = tiny_config("Plain")
    network = section(name="classifier", widths=(4, 8), features=8, dropout=0.1)
    config.method = section(name="classifier", network=network, label_smoothing=0.05, noise=0.05)
    config.data.update(source=f"npz:{halves}", num_classes=3, crop=0)
    config.optimizer.update(learning_rate=1e-2)
    config.train.update(batch_size=32, total_images=32 * 60, log_every_images=10_000)
    config.mesh.data = 2
    with opened(config, tmp_path) as trainer:
        held_out = open_split(config, "test")
        before = trainer.generator.scores(trainer.model(), 0, held_out)
        trainer.train()
        after = trainer.generator.scores(trainer.model(), 0, held_out)
        with pytest.raises(UserError, match="The method Classifier makes no images"):
            trainer.generator.images(trainer.model(), 0, 4)
    assert set(after) == {"accuracy", "cross_entropy"}
    assert before["accuracy"] < 0.8 and before["cross_entropy"] > 0.8
    assert after["accuracy"] > 0.95 and after["cross_entropy"] < 0.5


def test_scores_are_those_of_the_logits():
    method = Classifier(Network(num_classes=3, widths=(4,), features=4), num_classes=3)
    batch = {"image": jax.random.normal(jax.random.key(0), (5, 8, 8, 1)), "label": jnp.array([0, 1, 2, 0, 1])}
    params, memory = method.init(jax.random.key(1), batch, 0, {}, {}, {})
    keys = jax.random.split(jax.random.key(2), 5)
    scores = method.scores(Model(params, memory), keys, batch)
    logits = np.asarray(method.network.apply({"params": params["classifier"]}, batch["image"])[0], np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(scores["cross_entropy"], -np.log(p[np.arange(5), batch["label"]]), rtol=1e-5)
    np.testing.assert_array_equal(scores["accuracy"], p.argmax(1) == np.asarray(batch["label"]))


def test_label_smoothing_punishes_certainty():
    """With smoothing the best answer is not the most certain one."""
    batch = {"image": jnp.zeros((1, 8, 8, 1)), "label": jnp.array([0])}

    class Certain:
        def __init__(self, size):
            self.size = size

        def apply(self, variables, x, **options):
            return self.size * jax.nn.one_hot(jnp.zeros(len(x), jnp.int32), 3), None

    def loss(size, smoothing):
        method = Classifier(Certain(size), num_classes=3, label_smoothing=smoothing)
        return float(method.loss({"classifier": {}}, batch, jax.random.key(0), None)[0])

    assert loss(20.0, 0.0) < loss(5.0, 0.0) < loss(0.0, 0.0)
    assert loss(5.0, 0.1) < loss(0.0, 0.1) and loss(5.0, 0.1) < loss(20.0, 0.1)


def test_noise_is_added_in_training_only():
    method = Classifier(Network(num_classes=3, widths=(4,), features=4), num_classes=3, noise=1.0)
    batch = {"image": jnp.zeros((4, 8, 8, 1)), "label": jnp.zeros(4, jnp.int32)}
    params, _ = method.init(jax.random.key(1), batch, 0, {}, {}, {})
    first, second = (float(method.loss(params, batch, jax.random.key(i), None)[0]) for i in (0, 1))
    assert first != second
    scores = [method.scores(Model(params, {}), jax.random.split(jax.random.key(i), 4), batch) for i in (0, 1)]
    np.testing.assert_array_equal(scores[0]["cross_entropy"], scores[1]["cross_entropy"])

"""The classifier: learns what can be told apart, and its scores say how well."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import opened
from tiny_methods import tiny_config

from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.classifiers.classifier import Classifier
from jaxgen.networks.classifier import Classifier as Network
from jaxgen.runs.setup import open_split


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


ATTRIBUTES = (("place", 3), ("tone", 2))


@pytest.mark.slow
def test_attributes_are_told_apart_each_by_its_own_logits(tmp_path, halves):
    """Bright in one of three places, and inverted or not."""
    content = np.load(halves)
    tone = np.random.default_rng(1).integers(0, 2, len(content["labels"]))
    images = np.where(tone[:, None, None, None] == 1, 255 - content["images"], content["images"])
    attributes = np.stack([content["labels"], tone], axis=1).astype(np.int32)
    held_out = np.arange(len(tone)) % 5 == 0
    parts = {"train": ~held_out, "test": held_out}
    arrays = {f"{split}_{key}": values[rows] for split, rows in parts.items()
              for key, values in (("images", images), ("attributes", attributes))}  # fmt: skip
    np.savez(tmp_path / "pairs.npz", **arrays)
    config = tiny_config("Plain")
    network = section(name="classifier", num_classes=5, widths=(8, 16), features=16)
    config.method = section(name="classifier", network=network, attributes=ATTRIBUTES)
    config.data.update(source=f"npz:{tmp_path / 'pairs.npz'}", crop=0)
    config.optimizer.update(learning_rate=1e-2)
    config.train.update(batch_size=32, total_images=32 * 80, log_every_images=10_000)
    with opened(config, tmp_path / "run") as trainer:
        trainer.train()
        after = trainer.generator.scores(trainer.model(), 0, open_split(config, "test"))
    assert set(after) == {"accuracy", "accuracy_place", "accuracy_tone", "cross_entropy"}
    assert after["accuracy"] > 0.9
    assert after["accuracy"] <= min(after["accuracy_place"], after["accuracy_tone"])


def test_attributes_losses_add_up_and_tell_names_the_likeliest():
    network = Network(num_classes=5, widths=(4,), features=4)
    method = Classifier(network, num_classes=0, attributes=ATTRIBUTES)
    image = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    batch = {"image": image, "attributes": jnp.array([[0, 1], [2, 0], [1, 1], [0, 0], [2, 1], [1, 0]])}
    params, memory = method.init(jax.random.key(1), batch, 0, {}, {}, {})
    model, keys = Model(params, memory), jax.random.split(jax.random.key(2), 6)
    told = method.tell(model, image)
    scores = method.scores(model, keys, batch)
    np.testing.assert_array_equal(scores["accuracy"], (told == batch["attributes"]).all(axis=1))
    logits = network.apply({"params": params["classifier"]}, image)[0]
    np.testing.assert_array_equal(told[:, 0], logits[:, :3].argmax(axis=1))
    np.testing.assert_array_equal(told[:, 1], logits[:, 3:].argmax(axis=1))
    # each attribute as a classifier of one label of its own
    alone = []
    for column, part in ((0, slice(0, 3)), (1, slice(3, 5))):

        class Part:
            def apply(self, variables, x, part=part, **options):
                return logits[:, part], None

        one = Classifier(Part(), num_classes=part.stop - part.start)
        labelled = {"image": image, "label": batch["attributes"][:, column]}
        alone.append(one.scores(Model({"classifier": {}}, {}), keys, labelled))
    np.testing.assert_allclose(scores["cross_entropy"], sum(one["cross_entropy"] for one in alone), rtol=1e-6)
    np.testing.assert_array_equal(scores["accuracy_tone"], alone[1]["accuracy"])


def test_a_network_of_another_number_of_classes_is_refused():
    method = Classifier(Network(num_classes=4, widths=(4,), features=4), num_classes=0, attributes=ATTRIBUTES)
    batch = {"image": jnp.zeros((2, 8, 8, 1)), "attributes": jnp.zeros((2, 2), jnp.int32)}
    with pytest.raises(UserError, match="tells 4 classes and should tell 5: set config.method.network.num_classes=5"):
        method.init(jax.random.key(0), batch, 0, {}, {}, {})


def test_an_attribute_that_an_example_lacks_is_its_last_class():
    network = Network(num_classes=5, widths=(4,), features=4)
    plain = Classifier(network, num_classes=0, attributes=ATTRIBUTES)
    method = dataclasses.replace(plain, lacking=("place",))
    image = jax.random.normal(jax.random.key(0), (12, 8, 8, 1))
    told = np.array([[0, 1], [-1, 0], [1, 1], [-1, 0], [2, 1], [1, 0]] * 2)
    params, memory = plain.init(jax.random.key(1), {"image": image}, 0, {}, {}, {})
    model, keys = Model(params, memory), jax.random.split(jax.random.key(2), 12)
    last = {"image": image, "attributes": np.where(told < 0, 2, told)}
    found, same = method.scores(model, keys, last | {"attributes": told}), plain.scores(model, keys, last)
    jax.tree.map(np.testing.assert_array_equal, found, same)
    seen, by_plain = (np.asarray(one.tell(model, image)) for one in (method, plain))
    assert 0 < (by_plain[:, 0] == 2).sum() < 12, "both cases are met"
    np.testing.assert_array_equal(seen, np.where(by_plain == [2, 2], [-1, 2], by_plain))
    with pytest.raises(UserError, match="lacking names 'hue'"):
        dataclasses.replace(plain, lacking=("hue",))

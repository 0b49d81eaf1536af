"""The probe: what learns and what stays, and a contrastive loss against its definition."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.classifiers.probe import supervised_contrastive
from jaxgen.runs import state as states

ENCODER = {"name": "encoder", "widths": (), "hidden": (8,)}


def make(encoder=True, head=None, **options):
    head = section(name="head", **{"hidden": (8,), "embedding": 4, **(head or {})})
    coder = {"encoder": section(**ENCODER)} if encoder else {}
    return build(section(name="probe", z_dim=3, head=head, **coder, **options), "method", "m", num_classes=3)


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).uniform(-1, 1, (6, 8, 8, 1)).astype(np.float32)
    return {"image": jnp.asarray(image), "label": jnp.arange(6, dtype=jnp.int32) % 3}


def given(batch, z_dim=3):
    network = build(section(**ENCODER, outputs=z_dim), "network", "n")
    return {"encoder": network.init(jax.random.key(5), batch["image"])["params"]}


def begun(method, batch, groups):
    return jax.jit(lambda key: method.init(key, batch, 0, groups, {}, {}))(jax.random.key(0))


def gradient(method, batch, params, memory):
    state = SimpleNamespace(memory=memory, images=jnp.uint32(0))
    return jax.jit(jax.grad(lambda params: method.loss(params, batch, jax.random.key(1), state)[0]))(params)


def test_a_frozen_encoder_must_be_given_and_only_the_head_learns(batch):
    method = make()
    assert method.required_groups == ("encoder",) and method.turns(0)[0].groups == ("head",)
    with pytest.raises(UserError, match="config.init_from.encoder"):
        states.check_groups(method, ("head",), {})
    learned, memory = begun(method, batch, given(batch))
    assert set(learned) == {"head"} and not memory
    with pytest.raises(UserError, match="out/bias.*shape"):
        begun(method, batch, given(batch, z_dim=5))


def test_a_tuned_encoder_learns_and_may_begin_from_nothing(batch):
    method = make(tune=True)
    assert method.required_groups == () and method.turns(0)[0].groups == ("encoder", "head")
    learned, memory = begun(method, batch, {})
    assert set(learned) == {"encoder", "head"}
    slopes = gradient(method, batch, learned, memory)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes["encoder"]))


def test_features_are_a_vaes_means_or_the_raw_pixels(batch):
    groups = given(batch, z_dim=6)
    method = make(variational=True)
    both = build(section(**ENCODER, outputs=6), "network", "n").apply({"params": groups["encoder"]},
                                                                              batch["image"])  # fmt: skip
    np.testing.assert_allclose(method.features(groups, batch["image"]), both[:, :3], atol=1e-6)
    np.testing.assert_array_equal(make(encoder=False).features({}, batch["image"]), batch["image"].reshape(6, 64))


def test_the_contrastive_loss_is_khoslas_equation_example_by_example():
    points = np.random.default_rng(1).normal(size=(5, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    label = np.array([0, 1, 0, 0, 2])  # the second and the last are alone
    wanted = []
    for i in (0, 2, 3):
        others = [a for a in range(5) if a != i]
        below = sum(np.exp(points[i] @ points[a] / 0.2) for a in others)
        same = [p for p in others if label[p] == label[i]]
        wanted.append(-np.mean([np.log(np.exp(points[i] @ points[p] / 0.2) / below) for p in same]))
    found = jax.jit(supervised_contrastive)(points.astype(np.float32), label, 0.2)
    np.testing.assert_allclose(found, np.mean(wanted), rtol=1e-5)
    slopes = jax.grad(lambda x: supervised_contrastive(x, label, 0.2))(points.astype(np.float32))
    assert np.isfinite(slopes).all()
    with np.errstate(all="raise"):
        alone = supervised_contrastive(points[[0, 1, 4]].astype(np.float32), label[[0, 1, 4]], 0.2)
    assert float(alone) == 0


def test_prototypes_follow_the_points_of_their_class_and_decide(batch):
    method = make(contrastive=1.0, cross_entropy=0.0)
    params, memory = begun(method, batch, given(batch))
    params = {**given(batch), **params}
    state = SimpleNamespace(memory=memory, images=jnp.uint32(0))
    two = {name: values[jnp.array([0, 1, 3, 4])] for name, values in batch.items()}  # classes 0, 1, 0, 1
    _, (metrics, changed) = jax.jit(lambda params: method.loss(params, two, jax.random.key(1), state))(params)
    prototypes = changed["head"]["prototypes"]
    assert set(metrics) == {"contrastive"} and float(jnp.abs(prototypes[2]).max()) == 0
    points = method.head.apply({"params": params["head"]}, method.features(params, two["image"]))[1]
    np.testing.assert_allclose(jnp.linalg.norm(points, axis=1), 1, atol=1e-5)
    direction = prototypes[0] / jnp.linalg.norm(prototypes[0])
    mean = (points[0] + points[2]) / 2
    np.testing.assert_allclose(direction, mean / jnp.linalg.norm(mean), atol=1e-5)
    sure = {"head": {"prototypes": jnp.stack([points[0], points[1], -points[0]])}}
    found = jax.jit(method.scores)(Model(params, sure), None, two)
    assert set(found) == {"accuracy_nearest"}
    np.testing.assert_array_equal(found["accuracy_nearest"][:2], [1, 1])


@pytest.mark.parametrize("options, words", [
    ({"cross_entropy": 0.0}, "one must be above 0"),
    ({"contrastive": 1.0, "head": {"embedding": 0}}, "method.head.embedding"),
    ({"temperature": 0.0}, "temperature"),
    ({"encoder": False, "tune": True}, "no encoder to tune"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        make(**options)

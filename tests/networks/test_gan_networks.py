"""Networks of the adversarial family: one contract, batch statistics, spectral normalisation, labels."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.build import build
from jaxgen.errors import UserError
from jaxgen.networks.gans import dcgan, mlp, resnet_gan
from jaxgen.networks.gans.gan_layers import Conv, Dense
from jaxgen.networks.layers.batch_norm import BatchNorm
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful, reestimate_statistics

SHAPE = (8, 8, 1)
SMALL = {"image_shape": SHAPE, "z_dim": 6}
GENERATORS = {
    "dcgan": dcgan.DCGANGenerator(**SMALL, channels=4),
    "dcgan bilinear, extra, layer": dcgan.DCGANGenerator(**SMALL, channels=4, up="bilinear", extra=1, norm="layer"),
    "dcgan classes": dcgan.DCGANGenerator(**SMALL, channels=4, num_classes=3, conditioning="concat", embedding=5),
    "mlp": mlp.MLPGenerator(**SMALL, widths=(8, 8), norm="batch"),
    "mlp classes": mlp.MLPGenerator(**SMALL, widths=(8,), num_classes=3, conditioning="concat"),
    "resnet": resnet_gan.ResNetGenerator(**SMALL, widths=(8, 4)),
    "resnet classes": resnet_gan.ResNetGenerator(**SMALL, widths=(8, 4), num_classes=3, conditioning="batch_norm"),
}
LABELS = {"num_classes": 3, "conditioning": "projection"}
DISCRIMINATORS = {
    "dcgan": dcgan.DCGANDiscriminator(4, heads={"code": 5}),
    "dcgan spectral projection": dcgan.DCGANDiscriminator(4, norm="spectral", **LABELS),
    "dcgan concat, extra": dcgan.DCGANDiscriminator(4, num_classes=3, conditioning="concat", extra=1, norm="layer"),
    "energy": dcgan.EnergyAutoencoder(codes=7, channels=4),
    "mlp": mlp.MLPDiscriminator((8, 8), norm="batch", heads={"code": 5}),
    "mlp spectral projection": mlp.MLPDiscriminator((8, 8), norm="spectral", **LABELS),
    "mlp concat": mlp.MLPDiscriminator((8, 8), num_classes=3, conditioning="concat", embedding=4),
    "resnet": resnet_gan.ResNetDiscriminator((4, 8), 1, heads={"code": 5}),
    "resnet projection": resnet_gan.ResNetDiscriminator((4, 8), 1, norm="none", **LABELS),
}
LABEL = jnp.array([0, 1, 2, 0])
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)), jnp.float32)
Z = jnp.asarray(np.random.default_rng(1).standard_normal((4, 6)), jnp.float32)


@functools.cache
def started(network):
    """Parameters and memory, jitted."""
    example = Z if hasattr(network, "z_dim") else IMAGES
    return jax.jit(lambda key: init_stateful(network, key, example, label=LABEL))(jax.random.key(0))


@functools.cache
def compiled(network):
    """One program for training and evaluation: `{train: (outputs, memory)}`."""

    @jax.jit
    def both(params, memory, x, label):
        return {train: apply_stateful(network, params, memory, x, label=label, train=train) for train in (False, True)}

    return both


def apply(network, x, train=False, label=LABEL, params=None):
    return compiled(network)(params or started(network)[0], started(network)[1], x, label)[train]


# the contract


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("train", [False, True])
def test_generators_make_images_in_range(name, train):
    images, memory = apply(GENERATORS[name], Z, train)
    assert images.shape == (4, *SHAPE) and images.dtype == jnp.float32
    assert np.abs(images).max() <= 1 and np.std(images) > 0
    before = started(GENERATORS[name])[1]
    assert jax.tree.structure(memory) == jax.tree.structure(before)
    assert set(memory) <= {"batch_stats", "spectral"}
    same = [np.array_equal(a, b) for a, b in zip(jax.tree.leaves(memory), jax.tree.leaves(before), strict=True)]
    assert not any(same) if train else all(same)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_give_logits_features_and_heads(name):
    network = DISCRIMINATORS[name]
    outputs, memory = apply(network, IMAGES, True)
    assert outputs["logits"].shape == (4,) and outputs["features"].shape[0] == 4 and outputs["features"].ndim == 2
    if "code" in getattr(network, "heads", {}):
        assert outputs["code"].shape == (4, 5)
    assert jax.tree.structure(memory) == jax.tree.structure(started(network)[1])
    assert set(memory) <= {"batch_stats", "spectral"}


EVERY = {**{f"G {k}": v for k, v in GENERATORS.items()}, **{f"D {k}": v for k, v in DISCRIMINATORS.items()}}


@pytest.mark.parametrize("name", EVERY)
def test_evaluation_treats_each_example_by_itself(name):
    network, x = EVERY[name], Z if name.startswith("G") else IMAGES
    others = x.at[2:].set(x[:2] + 1), LABEL.at[2:].set((LABEL[:2] + 2) % 3)
    first, second = apply(network, x)[0], apply(network, others[0], label=others[1])[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:2], b[:2], atol=2e-5, rtol=1e-4), first, second)
    changed = [
        not np.allclose(a[2:], b[2:], rtol=1e-3, atol=1e-6)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    ]
    assert any(changed)


@pytest.mark.parametrize("name", EVERY)
def test_a_label_matters_where_a_network_is_conditional_and_nowhere_else(name):
    network, x = EVERY[name], Z if name.startswith("G") else IMAGES
    params, _ = started(network)
    rng = np.random.default_rng(0)  # conditional BatchNorm begins with equal classes
    params = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape).astype(np.float32), params)
    outputs = [apply(network, x, label=label, params=params)[0] for label in (LABEL, (LABEL + 1) % 3)]
    outputs = [out if name.startswith("G") else out["logits"] for out in outputs]
    assert np.array_equal(*outputs) != network.conditional
    if network.conditional:
        with pytest.raises(UserError, match="label"):
            jax.eval_shape(lambda: apply_stateful(network, *started(network), x, train=False))
        with pytest.raises(UserError, match="num_classes"):
            jax.eval_shape(lambda: init_stateful(network.clone(num_classes=0), jax.random.key(0), x, label=LABEL))


def test_a_head_costs_its_own_layer_only():
    network = dcgan.DCGANDiscriminator(4)
    params = started(network)[0]
    more = started(network.clone(heads={"code": 5}))[0]
    extra = more["outputs"].pop("code")
    assert extra["kernel"].shape == (4 * 4 * 4, 5)
    assert jax.tree.structure(more) == jax.tree.structure(params)
    with pytest.raises(UserError, match="logits"):
        started(network.clone(heads={"logits": 5}))


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64, 128])
def test_dcgan_fits_every_usual_size(side):
    generator = dcgan.DCGANGenerator((side, side, 3), channels=2)
    discriminator = dcgan.DCGANDiscriminator(2)

    def both(key, z):
        params, memory = init_stateful(generator, key, z)
        images, _ = apply_stateful(generator, params, memory, z, train=True)
        params, memory = init_stateful(discriminator, key, images)
        return images, apply_stateful(discriminator, params, memory, images, train=True)[0]

    images, outputs = jax.eval_shape(both, jax.random.key(0), jnp.zeros((2, 100)))
    assert images.shape == (2, side, side, 3)
    start = 7 if side == 28 else 4
    assert outputs["features"].shape == (2, start * start * 2 * min(side // start // 2, 8))


def test_sizes_that_do_not_fit_are_refused():
    for shape in ((9, 9, 1), (64, 56, 3)):
        with pytest.raises(UserError, match="power of two"):
            jax.eval_shape(dcgan.DCGANGenerator(shape).init, jax.random.key(0), Z)
    with pytest.raises(UserError, match="fewer widths"):
        jax.eval_shape(resnet_gan.ResNetGenerator((12, 12, 1)).init, jax.random.key(0), Z)
    with pytest.raises(UserError, match="fewer halvings"):
        jax.eval_shape(resnet_gan.ResNetDiscriminator().init, jax.random.key(0), jnp.zeros((1, 6, 6, 1)))


@pytest.mark.parametrize("widths", [(256,) * 4, (1024, 512, 256, 128, 64), (1024, 1024, 512, 256, 128, 64)])
def test_the_residual_networks_of_the_papers_start_at_4x4(widths):
    side = 4 * 2 ** (len(widths) - 1)
    shapes = jax.eval_shape(resnet_gan.ResNetGenerator((side, side, 3), widths=widths).init, jax.random.key(0), Z)
    assert shapes["params"]["start"]["kernel"].shape == (6, 16 * widths[0])


def test_networks_are_built_from_a_config_section():
    section = {"name": "dcgan_discriminator", "channels": 4, "norm": "spectral", "heads": {"code": 5}}
    network = build(section, "network", "config.method.discriminator", num_classes=3, image_shape=SHAPE)
    assert (network.norm, network.num_classes, dict(network.heads)) == ("spectral", 3, {"code": 5})
    hash(network)  # methods are frozen and hold it
    with pytest.raises(UserError, match="spectral"):
        build({**section, "norm": "spektral"}, "network", "config.method.discriminator")


# batch normalisation


def test_no_batch_norm_on_the_generator_s_output_and_the_discriminator_s_input():
    def norms(params):
        return {path[0].key for path, _ in jax.tree_util.tree_flatten_with_path(params)[0] if "norm" in path[0].key}

    generator = dcgan.DCGANGenerator((32, 32, 3), channels=2)
    params = jax.eval_shape(lambda: init_stateful(generator, jax.random.key(0), Z))[0]
    assert norms(params) == {"norm_start", "norm_1", "norm_2"} and "bias" in params["image"]
    trunk = jax.eval_shape(
        lambda: init_stateful(dcgan.DCGANDiscriminator(2), jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    )
    trunk = trunk[0]["trunk"]
    assert norms(trunk) == {"norm_1", "norm_2"} and "bias" in trunk["conv_0"] and "bias" not in trunk["conv_1"]


def test_batch_norm_normalises_and_its_statistics_approach_the_data_s():
    layer = BatchNorm(momentum=0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(3, 2, (64, 4, 4, 3)), jnp.float32)
    params, memory = init_stateful(layer, jax.random.key(0), x)
    np.testing.assert_allclose(params["scale"], 1, atol=0.1)
    assert np.std(params["scale"]) > 0  # N(1, 0.02)
    params = {"scale": jnp.full(3, 2.0), "bias": jnp.full(3, 5.0)}
    step = jax.jit(lambda memory: apply_stateful(layer, params, memory, x, train=True))
    for _ in range(20):
        y, memory = step(memory)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 5, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 1, 2)), 2, atol=1e-4)
    statistics = memory["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(statistics["var"], np.asarray(x, np.float64).var((0, 1, 2), ddof=1), rtol=1e-4)
    again, _ = apply_stateful(layer, params, memory, x, train=False)
    np.testing.assert_allclose(again, y, atol=5e-3)  # biased and unbiased variance differ by 1/1024


def test_a_batch_of_one_value_a_channel_is_refused():
    layer = BatchNorm()
    params, memory = init_stateful(layer, jax.random.key(0), jnp.zeros((1, 3)))
    with pytest.raises(UserError, match="larger batch"):
        apply_stateful(layer, params, memory, jnp.zeros((1, 3)), train=True)


def test_conditional_batch_norm_gives_each_class_its_own_scale_and_shift():
    layer = BatchNorm(num_classes=3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 5)), jnp.float32)
    params, memory = init_stateful(layer, jax.random.key(0), x, label=LABEL)
    assert params["scale"].shape == (3, 5)
    plain = {"scale": jnp.ones(5), "bias": jnp.zeros(5)}
    params = {"scale": jnp.arange(15.0).reshape(3, 5), "bias": jnp.arange(15.0).reshape(3, 5) ** 2}
    y, _ = apply_stateful(layer, params, memory, x, train=True, label=LABEL)
    normal, _ = apply_stateful(BatchNorm(), plain, memory, x, train=True)
    for i, label in enumerate(LABEL):
        np.testing.assert_allclose(y[i], normal[i] * params["scale"][label] + params["bias"][label], rtol=1e-4)


def test_real_and_fake_in_one_call_are_not_real_and_fake_in_two():
    """What goes through in one call shares its statistics: a shift between real and fake shows only there."""
    network = mlp.MLPDiscriminator((8, 8), norm="batch")
    params, memory = started(network)
    real, fake = IMAGES + 2, IMAGES - 2
    apart = [apply_stateful(network, params, memory, x, train=True)[0]["logits"] for x in (real, fake)]
    together = apply_stateful(network, params, memory, jnp.concatenate([real, fake]), train=True)[0]["logits"]
    assert np.abs(np.concatenate(apart) - together).max() > 0.1


def test_one_device_and_eight_agree_on_outputs_statistics_and_gradients(devices):
    assert devices == 8
    generator, discriminator = dcgan.DCGANGenerator(**SMALL, channels=4), dcgan.DCGANDiscriminator(4)
    groups = {"generator": started(generator), "discriminator": started(discriminator)}
    z = jnp.asarray(np.random.default_rng(2).standard_normal((16, 6)), jnp.float32)

    def loss(params, memory, z):
        images, of_generator = apply_stateful(generator, params["generator"], memory["generator"], z, train=True)
        outputs, of_discriminator = apply_stateful(
            discriminator, params["discriminator"], memory["discriminator"], images, train=True
        )
        return nn.softplus(-outputs["logits"]).mean(), (outputs["logits"], of_generator, of_discriminator)

    params, memory = ({k: v[i] for k, v in groups.items()} for i in (0, 1))
    step = jax.value_and_grad(loss, has_aux=True)
    alone = jax.jit(step)(params, memory, z)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    spread = jax.jit(step, in_shardings=(whole, whole, rows))(params, memory, z)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), alone, spread)


@pytest.mark.slow
def test_reestimated_statistics_are_the_mean_of_the_batches_and_serve_new_weights():
    generator = dcgan.DCGANGenerator(**SMALL, channels=4)
    params, memory = started(generator)
    params = jax.tree.map(lambda x: 1.5 * x, params)  # as an average of weights: the statistics are not its own
    z = jnp.asarray(np.random.default_rng(3).standard_normal((6, 64, 6)), jnp.float32)
    found = jax.jit(lambda z: reestimate_statistics(generator, params, memory, (z,)))(z)
    assert jax.tree.structure(found) == jax.tree.structure(memory)
    # of the first layer they are known: those of a linear map of z
    h = np.asarray(z.reshape(-1, 6) @ params["start"]["kernel"]).reshape(6, 64 * 16, 4)
    np.testing.assert_allclose(found["batch_stats"]["norm_start"]["mean"], h.mean((0, 1)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["batch_stats"]["norm_start"]["var"], h.var(1, ddof=1).mean(0), rtol=1e-3)
    in_training, _ = apply_stateful(generator, params, memory, z[0], train=True)
    renewed, _ = apply_stateful(generator, params, found, z[0], train=False)
    stale, _ = apply_stateful(generator, params, memory, z[0], train=False)
    assert np.abs(renewed - in_training).mean() < 0.3 * np.abs(stale - in_training).mean()
    with pytest.raises(UserError, match="one batch"):
        reestimate_statistics(generator, params, memory, (z[:0],))
    assert reestimate_statistics(mlp.MLPGenerator(**SMALL), params, {}, (z,)) == {}


# spectral normalisation


@pytest.mark.parametrize("network", [Conv(5, 4, stride=2, spectral=True), Dense(7, spectral=True)])
def test_spectral_normalisation_finds_the_largest_singular_value(network):
    x = IMAGES if isinstance(network, Conv) else Z
    params, memory = init_stateful(network, jax.random.key(0), x)
    step = jax.jit(lambda memory: apply_stateful(network, params, memory, x, train=True))
    for _ in range(100):
        y, memory = step(memory)
    kernel = np.asarray(params["kernel"])
    sigma = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
    plain = network.clone(spectral=False)
    expected = plain.apply({"params": {**params, "kernel": params["kernel"] / sigma}}, x)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_every_weight_of_a_spectral_discriminator_is_normalised():
    """Its outputs do not change when all kernels are scaled; those of the others do."""
    for name, spectral in (
        ("dcgan spectral projection", True),
        ("mlp spectral projection", True),
        ("resnet", True),
        ("resnet projection", False),
        ("mlp concat", False),
    ):
        network = DISCRIMINATORS[name]
        before = apply(network, IMAGES)[0]["logits"]
        weights = {"kernel", "projection"}
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, leaf, weights=weights: 3 * leaf if path[-1].key in weights else leaf, started(network)[0]
        )
        after = apply(network, IMAGES, params=scaled)[0]["logits"]
        assert np.allclose(before, after, atol=1e-4, rtol=1e-3) == spectral, name


def test_the_gradient_of_a_normalised_kernel_is_orthogonal_to_it():
    """Scaling a kernel changes nothing, so no gradient points along it."""
    network = Dense(7, spectral=True)
    params, memory = init_stateful(network, jax.random.key(0), Z)
    for _ in range(50):
        memory = apply_stateful(network, params, memory, Z, train=True)[1]
    gradient = jax.grad(lambda p: jnp.sin(apply_stateful(network, p, memory, Z, train=True)[0]).sum())(params)["kernel"]
    kernel = params["kernel"]
    cosine = jnp.vdot(gradient, kernel) / jnp.linalg.norm(gradient) / jnp.linalg.norm(kernel)
    assert jnp.linalg.norm(gradient) > 0.1 and abs(cosine) < 1e-3


# gradients


@pytest.mark.slow
@pytest.mark.parametrize("network", [dcgan.DCGANDiscriminator(4, norm="none"), DISCRIMINATORS["resnet"]])
def test_the_gradient_of_a_gradient_penalty_equals_finite_differences(network):
    """In float64: the penalty jumps where a rectifier turns over, so steps must be small."""
    variables = started(network)  # which the tests share, in float32
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        params, memory = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
        direction = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), params)
        images = jnp.asarray(IMAGES, jnp.float64)

        @jax.jit
        @jax.value_and_grad
        def penalty(params):
            def total(x):
                return apply_stateful(network, params, memory, x, train=False)[0]["logits"].sum()

            return jnp.square(jax.grad(total)(images)).sum()

        def moved(step):
            return penalty(jax.tree.map(lambda p, d: p + step * d, params, direction))[0]

        gradient = penalty(params)[1]
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
        along = sum(jnp.vdot(g, d) for g, d in pairs)
        np.testing.assert_allclose((moved(1e-6) - moved(-1e-6)) / 2e-6, along, rtol=1e-4)
        assert abs(along) > 1e-9


@pytest.mark.nightly
def test_the_energy_is_the_error_of_the_reconstruction_and_falls_when_descended():
    network = dcgan.EnergyAutoencoder(codes=7, channels=4, norm="none")
    outputs, _ = apply(network, IMAGES)
    errors = [np.square(outputs["reconstruction"][i] - IMAGES[i]).mean() for i in range(4)]
    np.testing.assert_allclose(outputs["energy"], errors, rtol=1e-4)
    np.testing.assert_allclose(outputs["logits"], -outputs["energy"])
    params, _ = started(network)

    optimiser = optax.adam(1e-2)

    @jax.jit
    def descend(params, state):
        gradient = jax.grad(lambda p: apply_stateful(network, p, {}, IMAGES, train=True)[0]["energy"].mean())(params)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for _ in range(60):
        params, state = descend(params, state)
    after, _ = apply(network, IMAGES, params=params)
    assert after["energy"].mean() < 0.7 * outputs["energy"].mean()

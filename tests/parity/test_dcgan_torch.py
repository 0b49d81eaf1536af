"""DCGAN against plain PyTorch modules with the same random weights; batch statistics and spectral normalisation too."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: install the extra 'parity'")

from jaxgen.networks.gans import dcgan  # noqa: E402
from jaxgen.networks.gans.gan_layers import Conv  # noqa: E402
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful, reestimate_statistics  # noqa: E402

pytestmark = pytest.mark.parity

SIDE, CHANNELS, Z_DIM, BATCH = 32, 8, 12, 6
TOP = 4 * CHANNELS


def torch_generator():
    layers = [torch.nn.ConvTranspose2d(Z_DIM, TOP, 4, 1, 0, bias=False)]
    for width, out in ((TOP, TOP // 2), (TOP // 2, TOP // 4)):
        layers += [
            torch.nn.BatchNorm2d(width),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(width, out, 4, 2, 1, bias=False),
        ]
    layers += [torch.nn.BatchNorm2d(CHANNELS), torch.nn.ReLU(), torch.nn.ConvTranspose2d(CHANNELS, 3, 4, 2, 1)]
    return randomised(torch.nn.Sequential(*layers, torch.nn.Tanh()))


def torch_discriminator(norm: bool = True):
    layers = [torch.nn.Conv2d(3, CHANNELS, 4, 2, 1), torch.nn.LeakyReLU(0.2)]
    for width in (CHANNELS, 2 * CHANNELS):
        layers.append(torch.nn.Conv2d(width, 2 * width, 4, 2, 1, bias=not norm))
        layers += [torch.nn.BatchNorm2d(2 * width)] if norm else []
        layers.append(torch.nn.LeakyReLU(0.2))
    return randomised(torch.nn.Sequential(*layers, torch.nn.Conv2d(TOP, 1, 4, 1, 0)))


def randomised(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model:
            for name, value in module.named_parameters():
                scale = isinstance(module, torch.nn.BatchNorm2d) and name == "weight"
                value.normal_(1.0 if scale else 0.0, 0.1)
    return model


def of(model, kind):
    return [module for module in model if isinstance(module, kind)]


def array(tensor):
    return np.asarray(tensor.detach().numpy())


def batch_norms(model):
    """Parameters and statistics of the model's BatchNorms, in order."""
    found = of(model, torch.nn.BatchNorm2d)
    params = [{"scale": array(m.weight), "bias": array(m.bias)} for m in found]
    return params, [{"mean": array(m.running_mean).copy(), "var": array(m.running_var).copy()} for m in found]


def with_bias(module, kernel):
    return {"kernel": kernel} | ({"bias": array(module.bias)} if module.bias is not None else {})


def generator_from_torch(model):
    start, *ups = of(model, torch.nn.ConvTranspose2d)
    params = {"start": {"kernel": array(start.weight).transpose(0, 2, 3, 1).reshape(Z_DIM, -1)}}
    for module, name in zip(ups, ("up_2", "up_1", "image"), strict=True):
        params[name] = with_bias(module, array(module.weight).transpose(2, 3, 0, 1)[::-1, ::-1])
    norms, statistics = batch_norms(model)
    names = ("norm_start", "norm_2", "norm_1")
    return params | dict(zip(names, norms, strict=True)), {"batch_stats": dict(zip(names, statistics, strict=True))}


def discriminator_from_torch(model):
    *convs, logit = of(model, torch.nn.Conv2d)
    trunk = {f"conv_{i}": with_bias(m, array(m.weight).transpose(2, 3, 1, 0)) for i, m in enumerate(convs)}
    logit = with_bias(logit, array(logit.weight).transpose(2, 3, 1, 0).reshape(-1, 1))
    norms, statistics = batch_norms(model)
    names = ("norm_1", "norm_2")[: len(norms)]
    params = {"trunk": trunk | dict(zip(names, norms, strict=True)), "outputs": {"logit": logit}}
    memory = {"batch_stats": {"trunk": dict(zip(names, statistics, strict=True))}} if norms else {}
    return params, memory


GENERATOR = dcgan.DCGANGenerator((SIDE, SIDE, 3), Z_DIM, CHANNELS)
DISCRIMINATOR = dcgan.DCGANDiscriminator(CHANNELS)


def close(got, wanted, tolerance=1e-4):
    """To so much of the largest number."""

    def one(g, w):
        np.testing.assert_allclose(g, w, atol=tolerance * max(1e-3, float(np.abs(w).max())), rtol=tolerance)

    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(one, got, wanted)


@functools.cache
def noise(count=1):
    z = np.random.default_rng(0).standard_normal((count, BATCH, Z_DIM)).astype(np.float32)
    return z, torch.from_numpy(z)[..., None, None]


def test_forward_in_training_and_evaluation_and_the_running_statistics():
    generator, discriminator = torch_generator(), torch_discriminator()
    groups = [generator_from_torch(generator), discriminator_from_torch(discriminator)]
    z, torch_z = noise()

    @functools.partial(jax.jit, static_argnames="train")
    def ours(groups, z, train):
        (of_generator, carried), (of_discriminator, kept) = groups
        images, carried = apply_stateful(GENERATOR, of_generator, carried, z, train=train)
        outputs, kept = apply_stateful(DISCRIMINATOR, of_discriminator, kept, images, train=train)
        return images, outputs["logits"], carried, kept

    for train in (True, False):
        images = generator.train(train)(torch_z[0])
        logits = discriminator.train(train)(images)[:, 0, 0, 0]
        wanted = array(images).transpose(0, 2, 3, 1), array(logits)
        after = generator_from_torch(generator)[1], discriminator_from_torch(discriminator)[1]
        *got, carried, kept = ours(groups, z[0], train)
        close(tuple(got), wanted)
        close((carried, kept), after)
        groups = [(groups[0][0], carried), (groups[1][0], kept)]
    assert np.std(wanted[1]) > 0


def test_gradients_of_both_players():
    generator, discriminator = torch_generator(), torch_discriminator()
    (params_g, carried), (params_d, kept) = generator_from_torch(generator), discriminator_from_torch(discriminator)
    z, torch_z = noise()

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def ours(params_g, params_d):
        images, _ = apply_stateful(GENERATOR, params_g, carried, z[0], train=True)
        outputs, _ = apply_stateful(DISCRIMINATOR, params_d, kept, images, train=True)
        return jax.nn.softplus(-outputs["logits"]).mean()

    got = ours(params_g, params_d)
    torch.nn.functional.softplus(-discriminator(generator(torch_z[0]))).mean().backward()
    close(got, (gradients(generator, generator_from_torch), gradients(discriminator, discriminator_from_torch)))


def gradients(model, convert):
    """The gradients in our layout: those of a model whose weights are the gradients."""
    for value in model.parameters():
        value.data = value.grad
    return convert(model)[0]


def test_the_gradient_of_a_gradient_penalty():
    discriminator = torch_discriminator(norm=False)
    params, _ = discriminator_from_torch(discriminator)
    x = np.random.default_rng(1).standard_normal((BATCH, SIDE, SIDE, 3)).astype(np.float32)
    network = dcgan.DCGANDiscriminator(CHANNELS, norm="none")

    @jax.jit
    @jax.grad
    def ours(params):
        slope = jax.grad(lambda x: apply_stateful(network, params, {}, x, train=True)[0]["logits"].sum())(x)
        return jnp.square(jnp.sqrt(jnp.square(slope).sum((1, 2, 3))) - 1).mean()

    torch_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    slope = torch.autograd.grad(discriminator(torch_x).sum(), torch_x, create_graph=True)[0]
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    wanted = torch.autograd.grad(penalty, list(discriminator.parameters()), allow_unused=True)
    for value, gradient in zip(discriminator.parameters(), wanted, strict=True):
        value.grad = torch.zeros_like(value) if gradient is None else gradient
    close(ours(params), gradients(discriminator, discriminator_from_torch))


def test_reestimated_statistics_are_those_of_torch_s_update_bn():
    generator = torch_generator()
    params, memory = generator_from_torch(generator)
    z, torch_z = noise(4)
    torch.optim.swa_utils.update_bn(list(torch_z), generator)
    found = jax.jit(lambda z: reestimate_statistics(GENERATOR, params, memory, (z,)))(z)
    close(found, generator_from_torch(generator)[1])


def test_spectral_normalisation_in_training_and_evaluation():
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 5, 4, 2, 1))
    of_norm = layer.parametrizations.weight[0]
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    module = Conv(5, 4, stride=2, spectral=True)
    _, memory = init_stateful(module, jax.random.key(0), x)
    original = array(layer.parametrizations.weight.original)
    params = {"kernel": original.transpose(2, 3, 1, 0), "bias": array(layer.bias)}
    memory = {"spectral": {"u": array(of_norm._u).copy()}}
    torch_x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    for train in (True, True, False):
        y = array(layer.train(train)(torch_x)).transpose(0, 2, 3, 1)
        got, memory = apply_stateful(module, params, memory, x, train=train)
        close(got, y, 1e-5)
        close(memory["spectral"]["u"], array(of_norm._u), 1e-5)

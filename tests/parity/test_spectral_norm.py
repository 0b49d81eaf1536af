"""Spectral normalisation against PyTorch's, step by step, for dense layers and convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.regularisers import singular_values, spectral_norm

pytestmark = pytest.mark.parity


def house(weight):
    """[out, in] -> [in, out]; [out, in, h, w] -> [h, w, in, out]."""
    weight = weight.detach().numpy()
    return weight.T if weight.ndim == 2 else weight.transpose(2, 3, 1, 0)


def house_vector(v, shape):
    """The long vector in the house's order of a kernel's axes, [in h w] -> [h w in]."""
    v = v.numpy().copy()
    return v if len(shape) == 2 else v.reshape(shape[1:]).transpose(1, 2, 0).reshape(-1)


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_sigma_weights_and_gradients_follow_torch_while_the_weights_move(kind, iterations):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.Linear(10, 6) if kind == "dense" else torch.nn.Conv2d(5, 7, (3, 4), stride=2)
    layer = torch.nn.utils.parametrizations.spectral_norm(layer, n_power_iterations=iterations).train()
    (state,) = layer.parametrizations.weight
    raw = layer.parametrizations.weight.original
    # far from the top singular vectors, where the order of the two half-steps shows
    with torch.no_grad():
        for vector in (state._u, state._v):
            vector.copy_(torch.nn.functional.normalize(torch.randn_like(vector), dim=0))
    vectors = {"kernel": {"u": jnp.asarray(state._u.numpy().copy()), "v": house_vector(state._v, raw.shape)}}
    sigmas = []

    def ours(params, vectors, probe):
        normed, after = spectral_norm(params, vectors, iterations)
        return (normed["kernel"] * probe).sum(), (normed, after)

    slope_of_ours = jax.jit(jax.grad(ours, has_aux=True))
    for _ in range(4):
        params = {"kernel": jnp.asarray(house(raw))}
        theirs = layer.weight  # one training forward moves their vectors
        probe = torch.randn_like(theirs)
        (slope,) = torch.autograd.grad((theirs * probe).sum(), raw)

        gradient, (normed, vectors) = slope_of_ours(params, vectors, house(probe))
        sigma = float(singular_values(params, vectors)["kernel"])
        sigmas.append(sigma)
        # theirs is known through the weights: original / sigma
        assert sigma == pytest.approx(float((raw / theirs).flatten()[0].detach()), rel=1e-5)
        np.testing.assert_allclose(normed["kernel"], house(theirs), atol=1e-5)
        np.testing.assert_allclose(gradient["kernel"], house(slope), atol=1e-5)
        np.testing.assert_allclose(vectors["kernel"]["u"], state._u.numpy(), atol=1e-5)
        np.testing.assert_allclose(vectors["kernel"]["v"], house_vector(state._v, raw.shape), atol=1e-5)
        with torch.no_grad():
            raw.add_(0.1 * torch.randn_like(raw))
    assert sigmas[0] < 0.999 * np.linalg.svd(house(raw).reshape(-1, raw.shape[0]), compute_uv=False)[0]


def test_outside_training_the_vectors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(10, 6)).eval()
    (state,) = layer.parametrizations.weight
    params = {"kernel": jnp.asarray(house(layer.parametrizations.weight.original))}
    normed, _ = spectral_norm(params, {"kernel": {"u": state._u.numpy(), "v": state._v.numpy()}}, iterations=0)
    np.testing.assert_allclose(normed["kernel"], house(layer.weight), atol=1e-6)

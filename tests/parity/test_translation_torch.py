"""Translation networks and multi-scale discriminators against PyTorch's layers in the authors' arrangement."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: install the extra 'parity'")

import authors_translation as peers  # noqa: E402

from jaxgen.adversarial.losses import feature_matching  # noqa: E402
from jaxgen.interop import torch_file  # noqa: E402
from jaxgen.interop.translation import networks as translation  # noqa: E402
from jaxgen.networks.gans.multi_scale import MultiScale, halved  # noqa: E402
from jaxgen.networks.gans.patchgan import PatchDiscriminator  # noqa: E402
from jaxgen.networks.layers.stateful import apply_stateful  # noqa: E402
from jaxgen.networks.translation.resnet import CoarseToFine, TranslationResNet  # noqa: E402
from jaxgen.networks.translation.unet import TranslationUNet  # noqa: E402

pytestmark = pytest.mark.parity


def randomised(network, seed=0):
    """Fills all weights and running statistics with random numbers of a useful size, and returns the network."""
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            drawn = random.standard_normal(value.shape) * (0.1 if value.ndim > 1 else 0.2)
            drawn = (
                np.abs(1 + drawn)
                if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1)
                else drawn
            )
            value.copy_(torch.tensor(drawn, dtype=torch.float32))
    return network


def nchw(x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)


def pictures(count, height, width, channels=2, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (count, height, width, channels)).astype(np.float32)


def generators():
    """`(name, theirs, ours)`; widths are such that the U-Net reaches its largest one, eight times the first."""
    shape = (64, 64, 3)
    for kind in ("batch", "instance"):
        yield f"unet_{kind}", peers.UNet(2, 3, 6, 3, kind), TranslationUNet(shape, 3, 6, dropout_blocks=1, norm=kind)
        yield (
            f"resnet_{kind}",
            peers.ResNet(2, 3, 4, 2, 2, kind),
            TranslationResNet(shape, 4, 2, 2, norm=kind),
        )
    yield "global", peers.ResNet(2, 3, 2, 4, 1, "instance"), TranslationResNet(shape, 2, 4, 1)
    yield "local", peers.LocalEnhancer(2, 3, 2, 1, 2, 2, 1), CoarseToFine(shape, 2, 1, 2, 2, 1)
    yield "two_enhancers", peers.LocalEnhancer(2, 3, 2, 2, 1, 1, 1), CoarseToFine(shape, 2, 2, 1, 1, 1)


@pytest.mark.parametrize("name, theirs, ours", list(generators()), ids=[name for name, _, _ in generators()])
def test_a_generator_gives_the_authors_numbers(name, theirs, ours, tmp_path):
    randomised(theirs)
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G.pth")
    norm = "batch" if name.endswith("batch") else ""
    found, params, memory = translation.read(tmp_path / "latest_net_G.pth", norm)
    assert found.clone(image_shape=ours.image_shape) == ours
    x = pictures(2, 64, 128)
    for train in (False, True) if norm else (False,):
        theirs.train(train)
        expected = nhwc(theirs(nchw(x)))
        given, memory = apply_stateful(ours, params, memory, None, train=train, condition=jnp.asarray(x))
        np.testing.assert_allclose(given, expected, atol=1e-4)
        assert expected.std() > 0.05
    if norm:
        running = theirs.state_dict()
        of_theirs = translation.from_tensors(ours, {k: v.numpy() for k, v in running.items()})[1]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), memory, of_theirs)


def test_affine_instance_norm_is_batch_norm_of_one_image():
    """The authors' test script leaves BatchNorm in training mode and translates one image at a time."""
    theirs = randomised(peers.UNet(2, 3, 5, 4, "batch"))
    tensors = {name: value.numpy() for name, value in theirs.state_dict().items()}
    network = translation.recognise(tensors)
    assert network.norm == "affine_instance" and network.downs == 5 and network.dropout_blocks == 0
    params, memory = translation.from_tensors(network, tensors)
    x = pictures(3, 32, 32)
    theirs.train()
    expected = np.concatenate([nhwc(theirs(nchw(x[i : i + 1]))) for i in range(3)])
    assert memory == {}
    np.testing.assert_allclose(network.apply({"params": params}, None, condition=jnp.asarray(x)), expected, atol=1e-4)


@pytest.mark.parametrize("dropout", [False, True])
def test_files_are_written_as_the_authors_load_them(tmp_path, dropout):
    theirs = randomised(peers.ResNet(2, 3, 4, 2, 2, "instance", dropout))
    tensors = {name: value.numpy() for name, value in theirs.state_dict().items()}
    network = translation.recognise(tensors)
    assert network.dropout == (0.5 if dropout else 0.0)
    params, memory = translation.from_tensors(network, tensors)
    path = tmp_path / "latest_net_G.pth"
    translation.write(path, network, params, memory)
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == list(theirs.state_dict())
    fresh = peers.ResNet(2, 3, 4, 2, 2, "instance", dropout).eval()
    fresh.load_state_dict(loaded)
    x = nchw(pictures(1, 16, 16))
    np.testing.assert_allclose(fresh(x).detach(), theirs.eval()(x).detach(), atol=1e-5)
    again = torch_file.read(path)
    assert all((again[name] == loaded[name].numpy()).all() for name in loaded)


@pytest.mark.parametrize("layers, kind", [(0, "batch"), (0, "instance"), (1, "batch"), (3, "instance")])
def test_a_patch_discriminator_gives_the_authors_numbers(layers, kind):
    theirs = randomised(peers.Patches(5, 4, layers, kind))
    tensors = {name: value.numpy() for name, value in theirs.state_dict().items()}
    network = translation.recognise(tensors, "batch" if kind == "batch" else "")
    assert (network.layers, network.norm) == (layers, kind)
    params, memory = translation.from_tensors(network, tensors)
    image, condition = pictures(2, 40, 48, 3), pictures(2, 40, 48, 2, seed=2)
    expected = nhwc(theirs.eval()(nchw(np.concatenate([condition, image], -1))))[..., 0]
    reading = network.clone(reads=("condition",))
    found, _ = apply_stateful(reading, params, memory, image, train=False, condition=jnp.asarray(condition))
    np.testing.assert_allclose(found["logits"], expected, atol=1e-4 * np.abs(expected).max())


def test_three_scales_and_feature_matching_are_those_of_pix2pix_hd():
    """Each scale sees the mean-pooled copy; the loss is the authors' average over scales of sums over layers."""
    scales = [randomised(peers.Patches(5, 4, 3, "instance", padding=2), seed) for seed in range(3)]
    network = MultiScale(PatchDiscriminator(4, 3, "instance", reads=("condition",), padding=2), 3)
    params = {
        f"scale_{i}": translation.from_tensors(network.network, {k: v.numpy() for k, v in one.state_dict().items()})[0]
        for i, one in enumerate(scales)
    }
    condition, real, fake = pictures(2, 72, 56), pictures(2, 72, 56, 3, seed=2), pictures(2, 72, 56, 3, seed=3)

    def theirs(image):
        x, found = nchw(np.concatenate([condition, image], -1)), []
        for one in scales:
            found.append(one.activations(x))
            x = peers.small_copy(x)
        return found

    def ours(image):
        return network.apply({"params": params}, jnp.asarray(image), condition=jnp.asarray(condition))

    on_real, on_fake = ours(real), ours(fake)
    of_real, of_fake = theirs(real), theirs(fake)
    for i in range(3):
        expected = nhwc(of_fake[i][-1])[..., 0]
        np.testing.assert_allclose(on_fake["logits"][i], expected, atol=1e-4 * np.abs(expected).max())
    pairs = [pair for i in range(3) for pair in zip(of_fake[i][:-1], of_real[i][:-1], strict=True)]
    loss = sum((a - b).abs().mean() / 3 for a, b in pairs)
    np.testing.assert_allclose(feature_matching(on_real["layers"], on_fake["layers"]), loss.detach(), rtol=1e-4)


def test_a_small_copy_is_the_pooling_of_torch():
    for height, width in ((8, 8), (7, 10)):
        x = pictures(2, height, width)
        np.testing.assert_allclose(halved(jnp.asarray(x)), nhwc(peers.small_copy(nchw(x))), atol=1e-6)

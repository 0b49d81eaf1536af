"""The FID's Inception against torch-fidelity's with the same random weights; resizes and weight files against peers."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and torch-fidelity: install the extra 'parity'")
extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

from jaxgen.interop import torch_file  # noqa: E402
from jaxgen.interop.feature_networks.inception import inception_params, shapes  # noqa: E402
from jaxgen.metrics.networks import resize  # noqa: E402
from jaxgen.metrics.networks.inception import Inception  # noqa: E402

pytestmark = pytest.mark.parity
TAPS = ("64", "192", "768", "2048", "logits_unbiased", "logits")


def random_state() -> dict[str, torch.Tensor]:
    """A state dict as it is published, whose activations neither die nor explode."""
    chance = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def fill(tree: dict, prefix: str) -> None:
        if "kernel" not in tree:
            for name, part in tree.items():
                fill(part, f"{prefix}{name}.")
            return
        shape = tree["kernel"].shape
        if len(shape) == 2:
            state[f"{prefix}weight"] = torch.randn(shape[::-1], generator=chance) / shape[0] ** 0.5
            state[f"{prefix}bias"] = torch.randn(shape[1:], generator=chance)
            return
        height, width, channels, features = shape
        kernel = torch.randn((features, channels, height, width), generator=chance)
        state[f"{prefix}conv.weight"] = kernel * (2 / (height * width * channels)) ** 0.5
        for name, low, high in (("weight", 0.7, 1.3), ("bias", -0.2, 0.4), ("running_mean", -0.3, 0.3)):
            state[f"{prefix}bn.{name}"] = torch.rand(features, generator=chance) * (high - low) + low
        state[f"{prefix}bn.running_var"] = torch.rand(features, generator=chance) + 0.5
        state[f"{prefix}bn.num_batches_tracked"] = torch.tensor(0)

    fill(shapes(), "")
    return state


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """torch-fidelity's network and ours, from one file of torch.save."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_state(), path)
    theirs = extractor.FeatureExtractorInceptionV3("inception", list(TAPS), feature_extractor_weights_path=path)
    return theirs, inception_params(torch_file.read(path))


def images(*shape: int) -> np.ndarray:
    """Smooth structure and noise, so that both resizing and pooling have something to do."""
    chance = np.random.default_rng(0)
    count, height, width, channels = shape
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(y / (3 + i) + i) * np.cos(x / (5 + i)) for i in range(count)])[..., None]
    found = 127 + 80 * waves + 40 * chance.normal(size=shape)
    return found.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 32), (299, 299), (320, 211)])
def test_every_tap_equals_torch_fidelity(pair, size):
    theirs, params = pair
    x = images(2, *size, 3)
    with torch.no_grad():
        expected = dict(zip(TAPS, theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())), strict=True))
    with jax.default_matmul_precision("highest"):
        found = Inception(given=params).taps(x, 2, TAPS)
    for name in TAPS:
        scale = float(expected[name].abs().max())
        assert 0.1 < scale < 1e4
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4 * scale, rtol=1e-4, err_msg=name)


def test_maps_are_what_torch_fidelity_pools(pair):
    theirs, params = pair
    x = images(2, 64, 80, 3)
    with torch.no_grad():
        y = (torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)) - 128) / 128
        map_64 = theirs.Conv2d_2b_3x3(theirs.Conv2d_2a_3x3(theirs.Conv2d_1a_3x3(y)))
        map_192 = theirs.Conv2d_4a_3x3(theirs.Conv2d_3b_1x1(theirs.MaxPool_1(map_64)))
    with jax.default_matmul_precision("highest"):
        found = Inception(resize="none", given=params).taps(x, 2, ("map_64", "map_192"))
    np.testing.assert_allclose(found["map_64"], map_64.numpy().transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(found["map_192"], map_192.numpy().transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (28, 40), (299, 299), (512, 300), (1, 7)])
def test_legacy_resize_equals_torch_fidelity(size):
    peer = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    x = images(2, *size, 3)
    theirs = peer.interpolate_bilinear_2d_like_tensorflow1x(
        torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32)), size=(299, 299), align_corners=False
    )
    found = jax.jit(resize.legacy)(x)
    np.testing.assert_allclose(found, theirs.numpy().transpose(0, 2, 3, 1), atol=5e-5, rtol=0)  # of 255


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (28, 40), (299, 299), (512, 300)])
def test_clean_resize_equals_clean_fid(size):
    peer = pytest.importorskip("cleanfid.resize")
    theirs = peer.make_resizer("PIL", False, "bicubic", (299, 299))
    x = images(3, *size, 3)
    np.testing.assert_array_equal(resize.clean(x), np.stack([theirs(image) for image in x]))


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save(zipped, tmp_path):
    path = tmp_path / "state.pth"
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = {
        "base": base,
        "part": base[1, :, 1:3],
        "transposed": base.transpose(0, 2),
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "double": base.double() / 3,
        "long": torch.tensor([[-5, 2**40]]),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(base[0]),
        "spread": torch.tensor([[1.0], [2.0]]).expand(2, 3),
    }
    told = {"state_dict": state, "epoch": 3, "module": torch.nn.Conv2d(2, 3, 1).state_dict(), "losses": [1.5, None]}
    torch.save(told, path, _use_new_zipfile_serialization=zipped)
    found = torch_file.read(path)
    assert set(found) == {f"state_dict.{name}" for name in state} | {"module.weight", "module.bias"}
    for name, value in state.items():
        ours = found[f"state_dict.{name}"]
        assert str(ours.dtype) == str(value.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(ours.astype(np.float64), value.detach().double().numpy(), err_msg=name)
    assert np.shares_memory(found["state_dict.base"], found["state_dict.parameter"])

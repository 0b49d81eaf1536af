"""Metric functions against torch-fidelity, clean-fid, prdc and scikit-image, from the same features and images."""

import numpy as np
import pytest

from jaxgen.metrics.distributions.frechet import frechet_distance, frechet_from_moments
from jaxgen.metrics.distributions.inception_score import inception_score
from jaxgen.metrics.distributions.kernel import kid
from jaxgen.metrics.distributions.manifold import density_coverage, precision_recall
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.pairs.pixels import absolute_error, psnr, squared_error, ssim

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module", name="torch")
def _torch():
    pytest.importorskip("torch_fidelity")
    return pytest.importorskip("torch")


def _features(count, width, seed, shift=0.0):
    """Like a network's: correlated, not negative, float32."""
    chance = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    return np.maximum(chance.normal(shift, 1, size=(count, width)) @ mix, 0).astype(np.float32)


A, B = _features(300, 48, 0), _features(240, 48, 1, shift=0.3)


@pytest.mark.parametrize("width", [48, 256])
def test_the_frechet_distance_is_torch_fidelity_s_and_clean_fid_s(torch, width):
    from cleanfid import fid as clean
    from torch_fidelity import metric_fid as fidelity

    a, b = (_features(600, width, seed, shift).astype(np.float64) for seed, shift in ((0, 0), (1, 0.3)))
    statistics = [fidelity.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    cleans = clean.frechet_distance(*(statistics[i][key] for i in (0, 1) for key in ("mu", "sigma")))
    ours = frechet_distance(a, b)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)
    np.testing.assert_allclose(ours, cleans, rtol=1e-8)
    streamed = [Moments.of(x[450:]).add(x[:100]).add(x[100:450]) for x in (a, b)]
    np.testing.assert_allclose(frechet_from_moments(*streamed), theirs, rtol=1e-8)


def test_fewer_examples_than_features_are_torch_fidelity_s_too(torch):
    """Its eigenvalues of a product of singular matrices carry noise of the order of 1e-8 each."""
    from torch_fidelity import metric_fid as fidelity

    a, b = (_features(60, 100, seed, shift).astype(np.float64) for seed, shift in ((0, 0), (1, 0.3)))
    statistics = [fidelity.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    np.testing.assert_allclose(frechet_distance(a, b), theirs, rtol=1e-6)


def test_the_kernel_distance_of_whole_sets_is_torch_fidelity_s_and_clean_fid_s(torch):
    """One subset that holds all, so that every library draws the same one."""
    from cleanfid import fid as clean
    from torch_fidelity import metric_kid as fidelity

    a, b = A[:240].astype(np.float64), B.astype(np.float64)
    theirs = fidelity.kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=240, verbose=False
    )
    ours = kid(a, b, subsets=1, subset_size=240).mean
    np.testing.assert_allclose(ours, theirs["kernel_inception_distance_mean"], rtol=1e-10)
    np.testing.assert_allclose(ours, clean.kernel_distance(a, b, num_subsets=1), rtol=1e-10)


def test_the_kernel_distance_over_subsets_agrees_within_its_spread(torch):
    from torch_fidelity import metric_kid as fidelity

    theirs = fidelity.kid_features_to_metric(
        torch.from_numpy(A), torch.from_numpy(B), kid_subsets=100, kid_subset_size=100, verbose=False
    )
    ours = kid(A, B, subsets=100, subset_size=100)
    spread = theirs["kernel_inception_distance_std"]
    assert abs(ours.mean - theirs["kernel_inception_distance_mean"]) < 4 * spread / 10
    assert ours.std == pytest.approx(spread, rel=0.35)


@pytest.mark.parametrize("count", [500, 503])
def test_the_inception_score_is_torch_fidelity_s(torch, count):
    from torch_fidelity import metric_isc as fidelity

    logits = 3 * np.random.default_rng(0).normal(size=(count, 30))
    probabilities = torch.from_numpy(logits).softmax(dim=1).numpy()
    theirs = fidelity.isc_features_to_metric(torch.from_numpy(logits), shuffle=False)
    np.testing.assert_allclose(tuple(inception_score(probabilities, seed=None)), tuple(theirs.values()), rtol=1e-10)
    theirs = fidelity.isc_features_to_metric(torch.from_numpy(logits))  # in its own order
    order = np.random.RandomState(2020).permutation(count)
    ours = inception_score(probabilities[order], seed=None)
    np.testing.assert_allclose(tuple(ours), tuple(theirs.values()), rtol=1e-10)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [2048, 70])
def test_precision_recall_density_and_coverage_are_prdc_s(k, block):
    peer = pytest.importorskip("prdc")
    theirs = peer.compute_prdc(real_features=B.astype(np.float64), fake_features=A.astype(np.float64), nearest_k=k)
    ours = {
        **precision_recall(A, B, k, block)._asdict(),
        **density_coverage(A, B, k, block)._asdict(),
    }
    assert 0 < min(ours.values()) < max(ours.values()) and ours["precision"] != ours["recall"]
    assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("k", [3, 7])
def test_precision_and_recall_are_torch_fidelity_s(torch, k):
    """Since its version 0.4 the first side is the generated one; before, it was the real one."""
    from torch_fidelity import metric_prc as fidelity

    a, b = (torch.from_numpy(x.astype(np.float64)) for x in (A, B))
    for save_cpu_ram in (False, True):
        theirs = fidelity.prc_features_to_metric(
            a, b, prc_neighborhood=k, prc_batch_size=100, save_cpu_ram=save_cpu_ram, verbose=False
        )
        # it takes its means in float32
        assert precision_recall(A, B, k) == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_metrics_are_scikit_image_s(channels):
    peer = pytest.importorskip("skimage.metrics")
    chance = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 33)[None, :, None] * np.ones((1, 27, 1, channels))
    a = np.clip(ramp + chance.normal(0, 30, size=(4, 27, 33, channels)), 0, 255).astype(np.uint8)
    b = np.clip(a + chance.normal(5, 20, size=a.shape), 0, 255).astype(np.uint8)

    def theirs(**options):
        pairs = ((x.astype(np.float64), y.astype(np.float64)) for x, y in zip(a, b, strict=True))
        return [peer.structural_similarity(x, y, data_range=255, channel_axis=2, **options) for x, y in pairs]

    gaussian = theirs(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    np.testing.assert_allclose(ssim(a, b), gaussian, rtol=1e-10)
    np.testing.assert_allclose(ssim(a, b, "uniform"), theirs(), rtol=1e-10)
    assert np.abs(ssim(a, b) - ssim(a, b, "uniform")).min() > 1e-4
    for ours, name in ((psnr, "peak_signal_noise_ratio"), (squared_error, "mean_squared_error")):
        options = {"data_range": 255} if ours is psnr else {}
        expected = [getattr(peer, name)(x, y, **options) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(ours(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(absolute_error(a, b), np.abs(a.astype(float) - b).mean(axis=(1, 2, 3)), rtol=1e-12)

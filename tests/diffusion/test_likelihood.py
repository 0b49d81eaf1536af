"""Likelihoods against densities that are known: mixtures, Gaussians, and a table of 256 probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgen.diffusion import schedules
from jaxgen.diffusion.bound import decoder_nll, gaussian_kl, level_term, prior_term
from jaxgen.diffusion.likelihood import bits_per_dimension, dequantise, image_bits, log_likelihood, variational_bound
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import X0
from jaxgen.diffusion.process import append_dims
from jaxgen.errors import UserError

LINEAR = schedules.Linear()
VALUES = np.arange(256) / 127.5 - 1

MEANS = np.array([[0.5, 0.3], [-0.6, 0.1], [0.1, -0.7]])
STDS = np.array([0.2, 0.3, 0.15])
SHARES = np.array([0.5, 0.3, 0.2])


def keys(count, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


def mixture(schedule):
    """The exact denoiser of a mixture of three round Gaussians in the plane."""

    def denoise(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        variance = (alpha * STDS) ** 2 + sigma**2
        off = x[:, None] - alpha[:, None] * MEANS
        share = jax.nn.softmax(jnp.log(SHARES) - jnp.log(variance) - 0.5 * (off**2).sum(-1) / variance, axis=1)
        each = MEANS + (alpha * STDS**2 / variance)[..., None] * off
        return Prediction((share[..., None] * each).sum(1), x, t, schedule, X0())

    return denoise


def mixture_log_density(x, blur=0.0):
    laws = [scipy.stats.multivariate_normal(m, s**2 + blur**2) for m, s in zip(MEANS, STDS, strict=True)]
    return np.log(sum(share * law.pdf(np.asarray(x)) for share, law in zip(SHARES, laws, strict=True)))


POINTS = np.random.default_rng(0).uniform(-1, 1, (24, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("schedule", "tolerance"),
    [
        (schedules.RectifiedFlow(t_min=1e-4), 1e-3),
        (schedules.ContinuousCosine(), 1e-3),
        (schedules.Cosine(), 1e-3),
        # these begin where the data's mean is still to be seen: the prior misses it by alpha / sigma
        (schedules.VP(t_min=1e-5), 1e-2),
        (LINEAR, 1e-2),
        (schedules.EDM(), 2e-2),
        (schedules.VE(sigma_min=1e-3), 3e-2),
    ],
)
def test_the_flow_has_the_density_of_the_data(schedule, tolerance):
    """Of data blurred by the least noise; to 1e-3 where there is next to none."""
    run = jax.jit(lambda x: log_likelihood(mixture(schedule), schedule, x, steps=48, darkest=-20.0))
    found = run(POINTS)
    blur = float(schedule.sigma(schedule.t_min) / schedule.alpha(schedule.t_min))
    np.testing.assert_allclose(found.log_prob, mixture_log_density(POINTS, blur), atol=tolerance)
    if blur < 2e-3 and tolerance < 2e-3:
        np.testing.assert_allclose(found.log_prob, mixture_log_density(POINTS), atol=1e-3)


@pytest.mark.slow
def test_the_error_falls_by_the_solver_s_order():
    """Slope 2 of Heun, 4 of Runge-Kutta, in float64; the flow ends where the prior is exact to 1e-8."""
    with jax.enable_x64(True):
        schedule, x = schedules.RectifiedFlow(), jnp.asarray(POINTS[:4], jnp.float64)
        truth = mixture_log_density(x, 1e-3 / (1 - 1e-3))
        for solver, counts, order in (("heun", (120, 240), 2), ("rk4", (80, 160), 4)):
            errors = []
            for steps in counts:
                options = {"steps": steps, "solver": solver, "darkest": -40.0}
                run = jax.jit(lambda x, options=options: log_likelihood(mixture(schedule), schedule, x, **options))
                errors.append(np.abs(run(x).log_prob - truth).mean())
            slopes = -np.diff(np.log2(errors))
            assert (np.abs(slopes - order) < 0.3).all(), (solver, errors)


COVARIANCE = 0.05 * (np.eye(4) + 0.7 * np.ones((4, 4)) + np.diag([0, 0.5, 1, 0]))


def gaussian(schedule):
    """The exact denoiser of correlated images [2, 2, 1]: its derivative is not diagonal."""

    def denoise(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        flat = x.reshape(len(x), 4)
        alpha, sigma = schedule.alpha(t)[:, None, None], schedule.sigma(t)[:, None, None]
        noisy = alpha**2 * COVARIANCE + sigma**2 * np.eye(4)
        x0 = alpha[:, 0] * jnp.einsum("ij,bj->bi", jnp.asarray(COVARIANCE, x.dtype), solve(noisy, flat))
        return Prediction(x0.reshape(x.shape), x, t, schedule, X0())

    def solve(a, b):
        return jnp.linalg.solve(a.astype(b.dtype), b[..., None])[..., 0]

    return denoise


@pytest.fixture(scope="module")
def correlated():
    schedule = schedules.RectifiedFlow(t_min=1e-4)
    x = np.random.default_rng(1).multivariate_normal(np.zeros(4), COVARIANCE, 6).astype(np.float32)
    return schedule, gaussian(schedule), jnp.asarray(x.reshape(6, 2, 2, 1)), x


def test_correlated_images_by_the_exact_trace(correlated):
    schedule, denoise, x, flat = correlated
    truth = scipy.stats.multivariate_normal(np.zeros(4), COVARIANCE).logpdf(flat)
    for chunk in (16, 3):  # all tangents at once, and in parts that do not divide them
        run = jax.jit(lambda x, chunk=chunk: log_likelihood(denoise, schedule, x, chunk=chunk, darkest=-20.0))
        found = run(x)
        np.testing.assert_allclose(found.log_prob, truth, atol=1e-3)
    # the flow of a Gaussian whitens: the latent is as far from 0 as the image is in units of its covariance
    far = np.einsum("bi,ij,bj->b", flat, np.linalg.inv(COVARIANCE), flat)
    np.testing.assert_allclose((found.latent**2).sum((1, 2, 3)), far, rtol=2e-3)


@pytest.mark.slow
def test_hutchinson_is_unbiased_and_noisy(correlated):
    schedule, denoise, x, _ = correlated
    many = jnp.repeat(x[:1], 600, axis=0)
    run = jax.jit(lambda x, keys: log_likelihood(denoise, schedule, x, keys, steps=8, probes=1).log_prob)
    guesses = np.asarray(run(many, keys(600)))
    exact = float(log_likelihood(denoise, schedule, x[:1], steps=8).log_prob[0])
    error = guesses.std() / np.sqrt(600)
    assert guesses.std() > 0.3  # it is a guess
    assert abs(guesses.mean() - exact) < 4 * error
    run = jax.jit(lambda x, keys: log_likelihood(denoise, schedule, x, keys, steps=8, probes=9).log_prob)
    assert np.asarray(run(many, keys(600))).std() == pytest.approx(guesses.std() / 3, rel=0.15)


def test_an_image_s_guess_depends_on_its_key_alone(correlated):
    schedule, denoise, x, _ = correlated
    run = jax.jit(lambda x, keys: log_likelihood(denoise, schedule, x, keys, steps=4, probes=2).log_prob)
    whole = run(x, keys(6))
    np.testing.assert_allclose(run(x[::-1], keys(6)[::-1])[::-1], whole, rtol=1e-5)
    assert (np.abs(run(x, keys(6, seed=1)) - whole) > 1e-3).any()


def test_bits_of_images_are_those_of_their_bins(correlated):
    """uint8 images of known law: -log2 of the mass in each pixel's bin, bins being narrow."""
    schedule, denoise, x, _ = correlated
    images = jnp.asarray(np.round((np.clip(x, -1, 1) + 1) * 127.5), jnp.uint8)
    centre = np.asarray(images, np.float64).reshape(6, 4) / 127.5 - 1
    mass = scipy.stats.multivariate_normal(np.zeros(4), COVARIANCE).logpdf(centre) + 4 * np.log(2 / 255)
    run = jax.jit(lambda x: image_bits(denoise, schedule, x, keys(6), draws=2, steps=16, darkest=-20.0))
    np.testing.assert_allclose(run(images), -mass / np.log(2) / 4, atol=0.02)
    assert float(bits_per_dimension(jnp.log(jnp.float32(0.25)), 2, 0.5)) == pytest.approx(2)
    with pytest.raises(UserError, match="uint8"):
        image_bits(denoise, schedule, x, keys(6))


def test_dequantised_images_fill_their_bins():
    images = jnp.full((4000, 2), 7, jnp.uint8)
    x = np.asarray(dequantise(images, keys(4000)))
    assert abs((x - (7 / 127.5 - 1)).mean()) < 2e-4
    assert x.std() == pytest.approx(2 / 255 / np.sqrt(12), rel=0.03)
    assert np.ptp(x) <= 2 / 255 + 1e-6


# --- the variational bound


@pytest.mark.parametrize("std", [0.003, 0.05, 0.7, 20.0])
def test_the_decoder_s_masses_sum_to_one_and_are_a_normal_s(std):
    for mean in (-1.3, -0.2, 0.001, 0.98):
        nll = np.asarray(decoder_nll(jnp.asarray(VALUES, jnp.float32), mean, 2 * jnp.log(jnp.float32(std))))
        assert np.isfinite(nll).all()
        assert np.exp(-np.float64(nll)).sum() == pytest.approx(1, abs=2e-4)
        edges = np.concatenate([[-np.inf], (VALUES[:-1] + VALUES[1:]) / 2, [np.inf]])
        mass = np.diff(scipy.stats.norm(mean, std).cdf(edges))
        likely = mass > 1e-4
        np.testing.assert_allclose(nll[likely], -np.log(mass[likely]), rtol=5e-3, atol=1e-4)


def test_the_decoder_is_finite_and_has_slopes_far_out():
    for mean, std in ((1.0, 0.01), (-0.9, 0.005), (5.0, 0.02)):
        value, slope = jax.value_and_grad(lambda m, std=std: decoder_nll(jnp.float32(-0.5), m, 2 * jnp.log(std)))(mean)
        assert np.isfinite(value) and value > 100
        # far out the mass is that of the bin's near edge: the slope is distance / variance, towards the bin
        near = abs(mean + 0.5) - 1 / 255
        assert np.sign(slope) == np.sign(mean + 0.5) and abs(slope) == pytest.approx(near / std**2, rel=0.05)


def test_the_kl_against_numerical_integration():
    for mq, sq, mp, sp in ((0.1, 0.3, -0.2, 0.5), (0.0, 1.0, 0.5, 0.2)):
        grid = np.linspace(-9, 9, 200_001)
        q, p = scipy.stats.norm(mq, sq), scipy.stats.norm(mp, sp)
        integral = np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - p.logpdf(grid)), grid)
        assert float(gaussian_kl(mq, 2 * np.log(sq), mp, 2 * np.log(sp))) == pytest.approx(integral, rel=1e-4)


def _terms(variance, levels, off=0.1, log_variance=None, schedule=LINEAR):
    """Terms of a network whose x0 is off by a constant."""
    t, count = jnp.asarray(levels) / schedule.steps, len(levels)
    x0 = jnp.asarray(VALUES[np.random.default_rng(0).integers(0, 256, (count, 6))], jnp.float32)
    x = 0.3 * x0
    place = None if log_variance is None else jnp.full_like(x, log_variance)
    now = Prediction(x0 + off, x, t, schedule, X0(), place)
    return level_term(now, x0, (jnp.asarray(levels) - 1) / schedule.steps, variance)


LEVELS = np.array([2, 10, 300, 900, 1000])


@pytest.mark.slow
def test_a_term_of_the_small_variance_is_a_difference_of_snr():
    """Kingma et al. (2021), Eq. 13: half of SNR(s) - SNR(t) times the squared error of x0."""
    log_alpha_bar = LINEAR.log_alpha_bar
    snr = 1 / np.expm1(-np.where(log_alpha_bar < 0, log_alpha_bar, -1e-9))
    expected = 0.5 * (snr[LEVELS - 1] - snr[LEVELS]) * 0.1**2 / np.log(2)
    np.testing.assert_allclose(_terms("small", LEVELS), expected, rtol=2e-3)


def test_a_term_of_the_large_variance_from_the_betas():
    """beta_t, and the posterior's variance and mean as Ho et al. (2020), Eq. 6-7, write them."""
    betas, alpha_bar = LINEAR.betas, np.exp(LINEAR.log_alpha_bar)
    beta = betas[LEVELS - 1]
    posterior = (1 - alpha_bar[LEVELS - 1]) / (1 - alpha_bar[LEVELS]) * beta
    of_x0 = np.sqrt(alpha_bar[LEVELS - 1]) * beta / (1 - alpha_bar[LEVELS])
    expected = 0.5 * (np.log(beta / posterior) + (posterior + (0.1 * of_x0) ** 2) / beta - 1) / np.log(2)
    np.testing.assert_allclose(_terms("large", LEVELS), expected, rtol=2e-3, atol=1e-7)


@pytest.mark.slow
def test_the_learned_variance_has_the_fixed_ones_as_its_ends():
    for levels, end, name in ((LEVELS, 1.0, "large"), (LEVELS, -1.0, "small"), (np.array([1]), -1.0, "small")):
        np.testing.assert_allclose(_terms("learned", levels, log_variance=end), _terms(name, levels), rtol=1e-4)
    with pytest.raises(UserError, match="learned"):
        _terms("learned", LEVELS)


def test_the_last_step_is_the_decoder_around_x0():
    """With the variance of the posterior one level above (Ho et al.'s code), since its own is 0."""
    betas, alpha_bar = LINEAR.betas, np.exp(LINEAR.log_alpha_bar)
    std = np.sqrt(betas[1] * (1 - alpha_bar[1]) / (1 - alpha_bar[2]))
    for name in ("small", "large"):
        found = float(_terms(name, np.array([1]), off=0.004)[0])
        x0 = VALUES[np.random.default_rng(0).integers(0, 256, (1, 6))][0]
        law = scipy.stats.norm(x0 + 0.004, std)
        mass = law.cdf(x0 + 1 / 255) - law.cdf(x0 - 1 / 255)
        assert found == pytest.approx(-np.log2(mass).mean(), rel=1e-3)


def test_the_prior_s_term_against_scipy():
    x0 = jnp.asarray([[0.5, -1.0]])
    alpha_bar = float(np.exp(LINEAR.log_alpha_bar[-1]))
    mean, variance = np.sqrt(alpha_bar) * np.asarray(x0[0], np.float64), 1 - alpha_bar
    expected = 0.5 * (variance + mean**2 - 1 - np.log(variance)).mean() / np.log(2)
    np.testing.assert_allclose(prior_term(LINEAR, x0), expected, rtol=5e-2)


PMF = scipy.stats.norm(0.2, 0.25).pdf(VALUES) + 1.5 * scipy.stats.norm(-0.6, 0.1).pdf(VALUES)
PMF /= PMF.sum()
ENTROPY = float(-(PMF * np.log2(PMF)).sum())


def table(schedule):
    """The exact denoiser of a pixel with the probabilities PMF."""

    def denoise(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        alpha, sigma = append_dims(schedule.alpha(t), x)[..., None], append_dims(schedule.sigma(t), x)[..., None]
        logits = jnp.log(PMF) - 0.5 * ((x[..., None] - alpha * VALUES) / sigma) ** 2
        return Prediction((jax.nn.softmax(logits) * VALUES).sum(-1), x, t, schedule, X0())

    return denoise


def pixels(count):
    return jnp.asarray(np.random.default_rng(0).choice(VALUES, (count, 1), p=PMF), jnp.float32)


@pytest.mark.nightly
@pytest.mark.parametrize(("variance", "near"), [("small", 0.5), ("large", 0.25)])
def test_the_bound_lies_above_the_entropy_and_nears_it_as_levels_grow(variance, near):
    """Discrete data of known probabilities, the exact denoiser: the gap falls as one over the number of levels."""
    x = pixels(500)
    truth = -np.log2(PMF[np.round((np.asarray(x)[:, 0] + 1) * 127.5).astype(int)])
    gaps = []
    for steps in (16, 64, 256):
        # the same ends, so that only the number of levels differs
        alpha_bar = 1 / (1 + np.exp(np.linspace(-15, 12, steps)))
        schedule = schedules.Betas(1 - alpha_bar / np.append(1, alpha_bar[:-1]))
        run = jax.jit(lambda x, k, s=schedule: variational_bound(table(s), s, x, k, variance))
        bound = run(x, keys(500))
        assert bound.terms.shape == (500, steps)
        np.testing.assert_allclose(bound.total, bound.rate + bound.distortion)
        gap = np.asarray(bound.total) - truth
        assert gap.mean() > 2 * gap.std() / np.sqrt(500)
        gaps.append(gap.mean())
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] and gaps[2] < near, gaps


@pytest.mark.slow
def test_a_subset_of_levels_guesses_the_bound_without_bias():
    schedule = schedules.Cosine(steps=60)
    x, k = jnp.repeat(pixels(1), 4000, axis=0), keys(4000)
    run = jax.jit(lambda x, k, n: variational_bound(table(schedule), schedule, x, k, levels=n), static_argnums=2)
    whole, part = run(x, k, 0), run(x, k, 8)
    assert part.terms.shape == (4000, 8) and part.edges[0] == 1 and part.edges[1] == 2 and part.edges[-1] == 61
    spread = np.hypot(np.std(part.total), np.std(whole.total)) / np.sqrt(4000)
    assert abs(float(part.total.mean() - whole.total.mean())) < 4 * spread
    sums = [np.asarray(whole.terms)[:, a - 1 : b - 1].sum(1) for a, b in zip(part.edges, part.edges[1:], strict=False)]
    for ours, theirs in zip(np.asarray(part.terms).T, sums, strict=True):
        assert abs(ours.mean() - theirs.mean()) < 5 * np.hypot(ours.std(), theirs.std()) / np.sqrt(4000) + 1e-6


def test_the_bound_of_an_image_depends_on_its_key_alone():
    schedule = schedules.Cosine(steps=12)
    run = jax.jit(lambda x, k: variational_bound(table(schedule), schedule, x, k, levels=5).total)
    whole = run(pixels(6), keys(6))
    np.testing.assert_allclose(run(pixels(6)[2:5], keys(6)[2:5]), whole[2:5], rtol=1e-4)


def test_what_cannot_be_computed_is_refused():
    x, k = pixels(2), keys(2)
    with pytest.raises(UserError, match="discrete"):
        variational_bound(table(LINEAR), schedules.VP(), x, k)
    for levels in (1, 1001):
        with pytest.raises(UserError, match="1000"):
            variational_bound(table(LINEAR), LINEAR, x, k, levels=levels)
    with pytest.raises(UserError, match="key"):
        log_likelihood(table(LINEAR), LINEAR, x, probes=1)
    with pytest.raises(UserError, match="euler"):
        log_likelihood(table(LINEAR), LINEAR, x, solver="euler")

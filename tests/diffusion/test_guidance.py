"""Guidance, on data whose conditional, unconditional and class laws are known in closed form."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from mixture import MEANS, STDS, WEIGHTS
from mixture import denoiser as exact

from jaxgen import registry
from jaxgen.build import build
from jaxgen.diffusion import guidance, schedules
from jaxgen.diffusion.guidance import GuidanceInputs
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import X0, Epsilon, V, Velocity
from jaxgen.diffusion.process import posterior
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.samplers.ddpm import DDPM
from jaxgen.diffusion.threshold import dynamic_threshold
from jaxgen.errors import UserError

TYPES = {name: cls() for name, cls in registry.classes("prediction_type").items()}
SCHEDULE = schedules.Cosine()
# components 0 and 1 of the mixture are class 0, component 2 is class 1; class 2 stands for none
CLASSES = (np.asarray([0, 1]), np.asarray([2]), np.asarray([0, 1, 2]))
NONE = 2
LAWS = [exact(SCHEDULE, MEANS[c], STDS[c], WEIGHTS[c]) for c in CLASSES]
KIND = "guidance"
CLASSIFIER = {"name": "classifier", "num_classes": 2}


def model(x, t, label=None):
    """The exact denoiser given the class; without labels that of all data."""
    if label is None:
        return LAWS[NONE](x, t)
    all_of_them = [law(x, t) for law in LAWS]
    chosen = sum(jnp.where((label == i)[:, None], now.value, 0.0) for i, now in enumerate(all_of_them))
    return all_of_them[0].replace(value=chosen)


def logits(x, t):
    """log p(y, x_t) of both classes, up to a constant: the exact classifier of noisy data, for scalar or `[B]` t."""
    t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    variance = alpha**2 * STDS**2 + sigma**2
    square = jnp.square(x[:, None] - alpha[..., None] * MEANS).sum(-1)
    joint = jnp.log(WEIGHTS) - jnp.log(variance) - 0.5 * square / variance  # in the plane
    return jnp.stack([jax.scipy.special.logsumexp(joint[:, c], axis=1) for c in CLASSES[:NONE]], axis=1)


def clean_logits(x, t):
    """The classifier of clean data: it takes whatever it sees for data."""
    return logits(x, jnp.full(len(x), SCHEDULE.t_min))


def means(labels, denoise=model, **others):
    labels = jnp.asarray(labels)
    given = {"condition": {"label": labels}, "null": {"label": jnp.full_like(labels, NONE)}, "label": labels}
    return GuidanceInputs(denoise, **{**given, "classifier": logits, **others})


def points(count=6, seed=0):
    return jax.random.normal(jax.random.key(seed), (count, 2))


def read(denoise, x, t, *names):
    """The prediction as values of these types (x0 if silent) or as its fields, in one compiled function."""
    names = names or ("x0",)

    def values(x, t):
        now = denoise(x, t)
        return tuple(now.to(TYPES[name]).value if name in TYPES else getattr(now, name) for name in names)

    out = jax.jit(values)(x, t)
    return tuple(np.asarray(a) for a in out) if len(names) > 1 else np.asarray(out[0])


def plain(x, t, label=None, *names):
    return read(lambda x, t: model(x, t, label), x, t, *names)


def draw(guide, label, sampler=None, count=3000):
    sampler = sampler or DDIM(60, clip=False)
    keys = jax.random.split(jax.random.key(1), count)

    def run(keys, label):
        return sampler(guide(means(label)), SCHEDULE, per_image_noise(keys, 0, (2,)), keys)

    return np.asarray(jax.jit(run, compiler_options=tiny.LONG)(keys, jnp.full(count, label)))


def share_of_class(x, label):
    return float((np.asarray(clean_logits(jnp.asarray(x), 0)).argmax(1) == label).mean())


# classifier-free


@pytest.mark.parametrize("label", [0, 1])
def test_at_scale_one_samples_follow_the_conditional_law_at_zero_the_unconditional(label):
    for scale, components in ((1.0, CLASSES[label]), (0.0, CLASSES[NONE])):
        x = draw(guidance.ClassifierFree(scale=scale), label)
        p = WEIGHTS[components] / WEIGHTS[components].sum()
        mean = p @ MEANS[components]
        second = p @ (MEANS[components] ** 2 + STDS[components, None] ** 2)
        np.testing.assert_allclose(x.mean(0), mean, atol=0.03)
        np.testing.assert_allclose(x.std(0), np.sqrt(second - mean**2), atol=0.03)


@pytest.mark.slow
def test_a_larger_scale_leaves_fewer_samples_near_the_other_class():
    """Class 1 lies beside half of class 0; guidance moves away from it, so the samples get surer of their class."""
    sure = []
    for scale in (0.0, 1.0, 3.0):
        x = draw(guidance.ClassifierFree(scale=scale), 1, count=1000)
        sure.append(float(np.asarray(jax.nn.log_softmax(clean_logits(jnp.asarray(x), 0)))[:, 1].mean()))
    assert sure[0] < sure[1] < sure[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TYPES)
def test_guidance_is_the_same_for_every_prediction_type(kind):
    """One line through the two predictions, whatever the network predicts."""
    x, t, label = points(), jnp.full(6, 0.4), jnp.arange(6) % 2

    def denoise(x, t, **condition):
        return model(x, t, **condition).to(TYPES[kind])

    with jax.enable_x64(True):
        x, t = x.astype(jnp.float64), t.astype(jnp.float64)
        names = ("x0", "epsilon", "value")
        guided = read(guidance.ClassifierFree(scale=2.5)(means(label, denoise)), x, t, *names)
        wanted, other = plain(x, t, label, "x0", "epsilon", kind), plain(x, t, None, "x0", "epsilon", kind)
    for got, one, two in zip(guided, wanted, other, strict=True):
        np.testing.assert_allclose(got, two + 2.5 * (one - two), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("scale", "rows"), [(0.0, 6), (1.0, 6), (2.0, 12)])
def test_it_is_one_call_whatever_the_scale(scale, rows):
    calls = []

    def denoise(x, t, label):
        calls.append((len(x), len(t), len(label)))
        return model(x, t, label)

    read(guidance.ClassifierFree(scale=scale)(means(jnp.zeros(6, int), denoise)), points(), jnp.full(6, 0.4))
    assert calls == [(rows,) * 3]


@pytest.mark.nightly
@pytest.mark.parametrize(
    "guide",
    [
        guidance.ClassifierFree(scale=3.0, rescale=0.5, threshold=0.9),
        guidance.Classifier(scale=2.0),
        guidance.Universal(scale=2.0, backward_steps=2),
    ],
)
def test_an_image_is_guided_alone(guide):
    x, label = points(8), jnp.arange(8) % 2
    t = jnp.linspace(0.1, 0.9, 8)
    whole = read(guide(means(label)), x, t)
    part = read(guide(means(label[2:5])), x[2:5], t[2:5])
    np.testing.assert_allclose(whole[2:5], part, rtol=2e-5, atol=2e-5)
    swapped = read(guide(means(label.at[0].set(1))), x, t)
    assert np.abs(swapped[0] - whole[0]).max() > 1e-4
    np.testing.assert_allclose(swapped[1:], whole[1:], rtol=2e-5, atol=2e-5)


def test_a_negative_condition_may_stand_for_none():
    x, t, label = points(), jnp.full(6, 0.5), jnp.zeros(6, int)
    guide = guidance.ClassifierFree(scale=3.0)
    away = read(guide(means(label, null={"label": label + 1})), x, t)
    line = 3 * plain(x, t, label) - 2 * plain(x, t, label + 1)
    np.testing.assert_allclose(away, line, atol=2e-5)


@pytest.mark.parametrize("kind", [guidance.Classifier, guidance.Universal])
def test_gradients_keep_to_their_interval_too(kind):
    x, label, t = points(), jnp.zeros(6, int), jnp.asarray([0.1, 0.2, 0.4, 0.6, 0.7, 0.9])
    inside = np.asarray([False, True, True, True, False, False])[:, None]
    got, whole = (read(kind(scale=2.0, **on)(means(label)), x, t) for on in ({"interval": (0.2, 0.6)}, {}))
    np.testing.assert_allclose(got, np.where(inside, whole, plain(x, t, label)), atol=2e-5)
    assert np.abs(whole - plain(x, t, label)).max(1)[4] > 1e-3


def images(x, t, label):
    """A made-up model of images: conditional and unconditional predictions of unlike spread."""
    t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
    value = jnp.where((label == NONE)[:, None, None, None], 0.3 * x + 0.1, jnp.sin(3 * x))
    return Prediction(value, x, t, SCHEDULE, V(), log_variance=value + 1)


def test_rescale_keeps_the_standard_deviation_of_the_conditional_prediction():
    x, label, t = jax.random.normal(jax.random.key(0), (3, 8, 8, 2)), jnp.arange(3) % 2, jnp.full(3, 0.5)

    def spread(rescale):
        return read(guidance.ClassifierFree(scale=4.0, rescale=rescale)(means(label, images)), x, t, "value")

    std = {rescale: spread(rescale).std((1, 2, 3)) for rescale in (0.0, 0.7, 1.0)}
    wanted = np.asarray(images(x, t, label).value).std((1, 2, 3))
    assert (std[0.0] > 1.5 * wanted).all()
    np.testing.assert_allclose(std[1.0], wanted, rtol=1e-5)
    np.testing.assert_allclose(std[0.7], 0.7 * wanted + 0.3 * std[0.0], rtol=1e-5)  # Eq. 16
    still = means(label, lambda x, t, label: images(x, t, label).replace(value=jnp.zeros_like(x)))
    np.testing.assert_array_equal(read(guidance.ClassifierFree(scale=4.0, rescale=1.0)(still), x, t, "value"), 0.0)


def test_outside_the_interval_the_model_is_conditional():
    x, label, t = points(), jnp.zeros(6, int), jnp.asarray([0.1, 0.2, 0.4, 0.6, 0.7, 1.0])

    def guided(**options):
        return read(guidance.ClassifierFree(**options)(means(label)), x, t)

    inside = np.asarray([False, True, True, True, False, False])[:, None]
    conditional, everywhere = plain(x, t, label), guided(scale=3.0)
    assert (np.abs(everywhere - conditional).max(1) > 1e-3)[4]
    got = guided(scale=3.0, interval=(0.2, 0.6))
    np.testing.assert_allclose(got, np.where(inside, everywhere, conditional), atol=1e-5)
    got = guided(scale=0.0, interval=(0.2, 0.6))
    np.testing.assert_allclose(got, np.where(inside, plain(x, t), conditional), atol=1e-5)


def test_the_learned_variance_is_the_conditional_one():
    x, label, t = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.arange(3) % 2, jnp.full(3, 0.5)
    got = read(guidance.ClassifierFree(scale=2.0)(means(label, images)), x, t, "log_variance")
    np.testing.assert_allclose(got, images(x, t, label).log_variance, atol=1e-6)


# autoguidance


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["x0", "epsilon"])
def test_autoguidance_moves_away_from_the_weaker_model(kind):
    """Its weaker model sees the condition too, and may predict another type."""
    x, label, t = points(), jnp.arange(6) % 2, jnp.full(6, 0.4)

    def weak(x, t, label):
        now = model(x, t, label)
        return now.replace(value=now.x0 + 0.1, prediction_type=X0()).to(TYPES[kind])

    got = read(guidance.Autoguidance(scale=2.0)(means(label, weak=weak)), x, t)
    np.testing.assert_allclose(got, plain(x, t, label) - 0.1, atol=1e-5)
    np.testing.assert_array_equal(read(guidance.Autoguidance()(means(label)), x, t), plain(x, t, label))


# classifier


def test_the_exact_classifier_makes_the_exact_conditional_model():
    """Bayes' rule: at scale 1, at every noise level, in every reading."""
    with jax.enable_x64(True):
        x, label = points(8).astype(jnp.float64), jnp.arange(8) % 2
        t = jnp.linspace(0.02, 0.9, 8)
        names = ("x0", "epsilon", "velocity")
        guided = read(guidance.Classifier()(means(label, condition={})), x, t, *names)
        for got, want in zip(guided, plain(x, t, label, *names), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


def test_classifier_guided_samples_follow_the_conditional_law():
    x = draw(lambda m: guidance.Classifier()(dataclasses.replace(m, condition={})), 1)
    np.testing.assert_allclose(x.mean(0), MEANS[2], atol=0.02)
    np.testing.assert_allclose(x.std(0), STDS[2], atol=0.02)


def test_in_ddpm_it_is_the_shift_of_the_mean_by_sigma_times_the_gradient():
    """Dhariwal & Nichol (2021), Algorithm 1, up to the size of one step: beta of a thousand levels."""
    schedule, t, s = schedules.Linear(), 0.5, 0.499
    x, slope = points(), jnp.asarray([0.7, -0.4])

    def denoise(x, t):
        return Prediction(0.3 * x, x, jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), schedule, Epsilon())

    def linear(x, t):  # log p(1 | x) - log p(0 | x) is slope x
        return jnp.stack([jnp.zeros(len(x)), x @ slope], axis=1)

    drawn = GuidanceInputs(denoise, {}, classifier=linear, label=jnp.ones(6, int))
    keys = jax.random.split(jax.random.key(0), 6)
    sampler = DDPM(1000, clip=False, variance="large")
    shift = [
        np.asarray(sampler(guide(drawn), schedule, x, keys, times=np.asarray([t, s])), np.float64)
        for guide in (guidance.Classifier(scale=50.0), guidance.Unguided())
    ]
    sigma = schedule.betas[499]
    expected = 50 * sigma * jax.nn.sigmoid(-(x @ slope))[:, None] * slope
    np.testing.assert_allclose(shift[0] - shift[1], expected, rtol=0.01)
    assert posterior(schedule, jnp.float32(t), jnp.float32(s), x)[2] == pytest.approx(sigma, rel=0.01)


# universal


def test_the_universal_gradient_goes_through_the_denoiser():
    """Bansal et al. (2023), Eq. 6, one image at a time."""
    x, t, label = points(), jnp.linspace(0.2, 0.8, 6), jnp.arange(6) % 2
    drawn = means(label, condition={}, classifier=clean_logits)
    got = read(guidance.Universal(scale=0.5)(drawn), x, t, "epsilon")

    def loss(x, t, y):
        return -jax.nn.log_softmax(clean_logits(model(x[None], t[None]).x0, None))[0, y]

    gradient = jax.jit(jax.vmap(jax.grad(loss)))(x, t, label)
    want = plain(x, t, None, "epsilon") + 0.5 * SCHEDULE.sigma(t)[:, None] * gradient
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_backward_guidance_is_gradient_ascent_from_the_predicted_image():
    x, t, label = points(), jnp.full(6, 0.4), jnp.arange(6) % 2
    drawn = means(label, condition={}, classifier=clean_logits)
    x0 = plain(x, t)

    @jax.jit
    def log_p(x):
        return jnp.take_along_axis(jax.nn.log_softmax(clean_logits(x, None)), label[:, None], axis=1).sum()

    uphill = jax.jit(jax.grad(log_p))
    moved = x0
    for _ in range(3):
        moved = moved + 0.01 * uphill(moved)
    assert log_p(moved) > log_p(x0) + 1
    options = {"backward_steps": 3, "backward_rate": 0.01}
    got, epsilon = read(guidance.Universal(scale=0.0, **options)(drawn), x, t, "x0", "epsilon")
    np.testing.assert_allclose(got, moved, atol=1e-5)
    # Eq. 9: the state stays, so epsilon follows
    alpha, sigma = SCHEDULE.alpha(0.4), SCHEDULE.sigma(0.4)
    np.testing.assert_allclose(alpha * moved + sigma * epsilon, x, atol=1e-5)
    both = read(guidance.Universal(scale=0.5, **options)(drawn), x, t)
    forward = read(guidance.Universal(scale=0.5)(drawn), x, t)
    np.testing.assert_allclose(both - forward, moved - x0, atol=2e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("recurrence", [1, 2])
def test_a_clean_classifier_steers_an_unconditional_model_through_a_sampler(recurrence):
    def guide(kind):
        return lambda m: kind(dataclasses.replace(m, condition={}, classifier=clean_logits))

    sampler = DDIM(30, clip=False, self_recurrence=recurrence)
    assert share_of_class(draw(guide(guidance.Unguided()), 1, sampler, 500), 1) < 0.4
    assert share_of_class(draw(guide(guidance.Universal(scale=0.5)), 1, sampler, 500), 1) > 0.9


# composition, thresholds, edges


def test_guidances_compose():
    x, t, label = points(), jnp.full(6, 0.4), jnp.zeros(6, int)
    one, two = guidance.ClassifierFree(scale=2.0), guidance.Classifier(scale=0.5)
    both = guidance.Compose(first=one, then=two)
    got = read(both(means(label)), x, t, "epsilon")
    parts = [read(guide(means(label)), x, t, "epsilon") for guide in (one, two)]
    np.testing.assert_allclose(got, sum(parts) - plain(x, t, label, "epsilon"), atol=1e-5)
    got = read(guidance.Compose(first=both, then=guidance.Unguided(threshold=0.9))(means(label)), x, t)
    want = read(lambda x, t: dynamic_threshold(both(means(label))(x, t), 0.9), x, t)
    np.testing.assert_allclose(got, want, atol=1e-5)
    with pytest.raises(UserError, match="comes first"):
        guidance.Compose(first=two, then=one)(means(label))


def test_the_weaker_model_of_a_composition_sees_the_condition():
    x, t, label = points(), jnp.full(6, 0.4), jnp.zeros(6, int)
    guide = guidance.Compose(first=guidance.ClassifierFree(scale=2.0), then=guidance.Autoguidance(scale=2.0))
    got = read(guide(means(label, weak=model)), x, t)
    np.testing.assert_allclose(got, 3 * plain(x, t, label) - 2 * plain(x, t), atol=1e-5)


def test_a_threshold_shrinks_what_is_out_of_range_and_nothing_else():
    ramp = jnp.linspace(0, 1, 100).reshape(10, 10, 1)
    x0 = jnp.stack([0.9 * ramp, 3 * ramp - 1, -4 * ramp])
    x = jax.random.normal(jax.random.key(0), x0.shape)
    now = Prediction(x0, x, jnp.full(3, 0.5), SCHEDULE, X0()).to(V())
    small, epsilon = read(lambda x, t: dynamic_threshold(now, 0.9), x, now.t, "x0", "epsilon")
    np.testing.assert_allclose(small[0], x0[0], atol=1e-5)
    assert np.abs(small).max() <= 1
    # static clipping would saturate three quarters of the last image
    np.testing.assert_allclose((np.abs(small[2]) >= 1 - 1e-6).mean(), 0.1, atol=0.011)
    np.testing.assert_allclose(SCHEDULE.alpha(0.5) * small + SCHEDULE.sigma(0.5) * epsilon, x, atol=1e-5)
    alone = read(lambda x, t: dynamic_threshold(jax.tree.map(lambda a: a[1:2], now), 0.9), x, now.t)
    np.testing.assert_allclose(alone, small[1:2], atol=1e-6)
    # at quantile 1 the largest becomes 1
    whole = read(lambda x, t: dynamic_threshold(now, 1.0), x, now.t)
    np.testing.assert_allclose(np.abs(whole).max((1, 2, 3)), [0.9, 1, 1], atol=1e-5)


@pytest.mark.parametrize("guide", [guidance.Classifier(scale=2.0), guidance.Universal()])
def test_where_no_signal_is_left_a_classifier_says_nothing(guide):
    flow, label = schedules.RectifiedFlow(), jnp.zeros(4, int)

    def denoise(x, t):
        return Prediction(0.5 * x, x, jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), flow, Velocity())

    drawn = GuidanceInputs(denoise, {}, classifier=lambda x, t: x, label=label)
    # x1 = epsilon, so that a velocity of x1 / 2 is an image of x1 / 2
    x, t = points(4), jnp.asarray([1.0, 1.0, 0.999, 0.5])
    x0, velocity = read(guide(drawn), x, t, "x0", "velocity")
    assert np.isfinite(velocity).all()
    np.testing.assert_allclose(x0[:2], 0.5 * x[:2], atol=1e-6)
    assert np.abs(x0[2:] - x[2:] + t[2:, None] * 0.5 * x[2:]).min() > 1e-3


@pytest.mark.parametrize(
    "section",
    [
        {"name": "unguided", "threshold": 0.995},
        {"name": "classifier_free", "scale": 2, "interval": [0.2, 0.8], "rescale": 0.7},
        {"name": "autoguidance", "scale": 1.5},
        {"name": "classifier", "scale": 3.0, "threshold": 0.99, "network": CLASSIFIER},
        {"name": "universal", "scale": 0.25, "backward_steps": 2, "network": CLASSIFIER},
        {"name": "compose", "first": {"name": "classifier_free"}, "then": {"name": "unguided", "threshold": 0.9}},
    ],
)
def test_every_name_is_built_from_a_config(section):
    built = build(section, KIND, "config.guidance")
    for key, value in section.items():
        if key not in ("name", "first", "then", "network"):
            assert getattr(built, key) == (tuple(value) if isinstance(value, list) else value)
    assert isinstance(built, guidance.Guidance)


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ({"name": "classifier_free", "scale": 3.0}, {"condition", "null"}),
        ({"name": "classifier_free", "scale": 1.0}, {"condition"}),
        ({"name": "classifier_free", "scale": 0.0}, {"null"}),
        ({"name": "classifier_free", "scale": 0.0, "interval": (0.0, 0.5)}, {"condition", "null"}),
        ({"name": "unguided"}, {"condition"}),
        ({"name": "autoguidance", "scale": 2.0}, {"condition"}),
        ({"name": "classifier", "scale": 2.0, "network": CLASSIFIER}, {"condition", "label"}),
        ({"name": "classifier", "scale": 0.0, "network": CLASSIFIER}, {"condition"}),
        ({"name": "universal", "scale": 0.0, "network": CLASSIFIER}, {"condition"}),
        ({"name": "compose", "first": {"name": "classifier_free", "scale": 0.0},
          "then": {"name": "classifier", "network": CLASSIFIER}}, {"null", "label"}),
    ],
)  # fmt: skip
def test_what_a_guidance_reads_is_what_changes_its_prediction(section, changes):
    def denoise(x, t, label):
        return Prediction(label[:, None] * x, x, t, SCHEDULE, X0())

    def predicted(**change):
        labels = {"condition": 2, "null": 3, "label": 1} | change
        arrays = {name: jnp.full(4, value) for name, value in labels.items()}
        inputs = GuidanceInputs(
            denoise, {"label": arrays["condition"]}, {"label": arrays["null"]},
            classifier=lambda x, t: jnp.pad(x, ((0, 0), (0, 4)))[:, :4],
            weak=lambda x, t, label: denoise(x, t, label + 1), label=arrays["label"],
        )  # fmt: skip
        now = build(section, KIND, "config.guidance")(inputs)(points(4), jnp.asarray([0.2, 0.4, 0.6, 0.8]))
        return np.asarray(now.x0)

    usual = predicted()
    seen = {name for name in ("condition", "null", "label") if not np.array_equal(usual, predicted(**{name: 0}))}
    assert seen == changes == build(section, KIND, "config.guidance").reads


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "classifier_fre"}, "classifier_free"),
        ({"name": "classifier_free", "scal": 2.0}, "scale"),
        ({"name": "classifier_free", "interval": (0.5, 0.2)}, "low to high"),
        ({"name": "classifier_free", "rescale": 2.0}, "rescale"),
        ({"name": "universal", "backward_steps": -1, "network": CLASSIFIER}, "at least 0"),
        ({"name": "unguided", "threshold": 1.5}, "quantile"),
    ],
)
def test_bad_settings_are_named(section, message):
    with pytest.raises(UserError, match=message):
        build(section, KIND, "config.guidance")


@pytest.mark.parametrize(
    ("guide", "lacking", "message"),
    [
        (guidance.ClassifierFree(scale=2.0), {"null": None}, "trained with its condition and without"),
        (guidance.ClassifierFree(scale=2.0), {"condition": {}, "null": {}}, "trained with its condition"),
        (guidance.ClassifierFree(scale=2.0), {"null": {}}, "null conditions for"),
        (guidance.Autoguidance(scale=2.0), {}, "weaker model"),
        (guidance.Classifier(), {"classifier": None}, "needs a classifier"),
        (guidance.Universal(), {"label": None}, "label"),
    ],
)
def test_what_is_lacking_is_named(guide, lacking, message):
    with pytest.raises(UserError, match=message):
        guide(means(jnp.zeros(2, int), **lacking))

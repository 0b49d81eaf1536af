"""How z is drawn when a GAN's images are sampled: the truncated normal distribution, and what it does to images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import opened
from scipy import stats
from tiny import call
from tiny_methods import tiny_config

from jaxgen.adversarial.sampling import GANSampler, TruncatedNormal
from jaxgen.build import build
from jaxgen.config import section, to_json
from jaxgen.errors import UserError
from jaxgen.runs.setup import make_method

KEYS = jax.random.split(jax.random.key(3), 4000)
PARTS = {
    "generator": section(name="mlp_generator", z_dim=4, widths=(16,)),
    "discriminator": section(name="mlp_discriminator", widths=(16,)),
}


def drawn(sampler, size=4):
    return np.asarray(jax.vmap(lambda key: sampler.noise(key, (size,)))(KEYS))


def config(name="gan", **options):
    made = tiny_config("Plain")
    made.method = section(name=name, **PARTS, **options)
    return made


@pytest.mark.parametrize("threshold", [0.3, 1.0, 1.5])
def test_values_follow_the_normal_distribution_cut_off_at_the_threshold(threshold):
    found = drawn(TruncatedNormal(threshold)).reshape(-1)
    assert np.abs(found).max() <= threshold
    assert stats.kstest(found, stats.truncnorm(-threshold, threshold).cdf).pvalue > 1e-3
    assert stats.kstest(found, stats.norm.cdf).pvalue < 1e-6  # the test can tell


def test_one_key_gives_values_that_move_towards_0_as_the_threshold_falls():
    row = [drawn(TruncatedNormal(t)) for t in (None, 3.0, 1.0, 0.5, 0.1)]
    np.testing.assert_array_equal(row[0], drawn(GANSampler()))
    for larger, smaller in zip(row[:-1], row[1:], strict=True):
        assert (np.abs(smaller) <= np.abs(larger) + 1e-6).all() and (smaller * larger >= 0).all()


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_a_threshold_is_above_0(threshold):
    with pytest.raises(UserError, match=r"config\.sampler\.threshold is .*; it must be above 0, or None"):
        TruncatedNormal(threshold)


def test_the_variance_of_images_falls_with_the_threshold():
    method = make_method(config())
    variables = method.generator.init(jax.random.key(0), jnp.zeros((1, 4)))

    def variance(threshold):
        z, _ = method.sample_z(KEYS[:256], TruncatedNormal(threshold))
        return float(method.generator.apply(variables, z).var(axis=0).mean())

    found = [variance(threshold) for threshold in (None, 1.5, 0.7, 0.2)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.1 * found[0]


def test_codes_of_infogan_are_not_truncated():
    method = build(section(name="infogan", **PARTS), "method", "config.method", image_shape=(8, 8, 1))
    plain, cut = jax.jit(lambda keys: [method.sample_z(keys, TruncatedNormal(t))[0] for t in (None, 0.1)])(KEYS[:64])
    np.testing.assert_array_equal(cut[:, 4:], plain[:, 4:])
    assert float(jnp.abs(cut[:, :4]).max()) <= 0.1


def test_an_empty_section_leaves_the_default_and_a_nameless_one_changes_its_options():
    made = config()
    assert make_method(made).sampler == TruncatedNormal()
    made.sampler = section(threshold=0.5)
    assert make_method(made).sampler == TruncatedNormal(0.5)
    made.sampler = section(name="truncated_normal", threshold=1)
    assert make_method(made).sampler == TruncatedNormal(1)
    for changes, said in (
        ({"name": "ddim"}, r"config\.sampler\.name='ddim' is unknown; known are: truncated_normal"),
        ({"treshold": 1.0}, r"config\.sampler\.treshold does not exist; did you mean 'threshold'\?"),
        ({"threshold": "high"}, r"config\.sampler\.threshold must be .*not 'high'"),
    ):
        made.sampler = section(**changes)
        with pytest.raises(UserError, match=said):
            make_method(made)


@pytest.mark.slow
def test_a_threshold_is_given_on_the_command_line_to_a_trained_run(tmp_path, capsys):
    made = config()
    made.train.total_images = 8
    with opened(made, tmp_path / "run") as trainer:
        trainer.train()

    def images(name, *more):
        status = call("--mode=sample", "--num=32", f"--out={tmp_path / name}", *more)
        return np.load(tmp_path / name / "samples.npz")["images"].astype(float) if status == 0 else None

    stored, file = f"--workdir={tmp_path / 'run'}", tmp_path / "made.py"
    file.write_text(
        "import json\nfrom jaxgen.config.record import from_json\n\n\ndef get_config():\n"
        f"    return from_json({to_json(made)!r})\n"
    )
    plain = images("plain", stored)
    cut = images("cut", stored, "--config.sampler.threshold=0.2")
    np.testing.assert_array_equal(cut, images("beside", stored, f"--config={file}", "--config.sampler.threshold=0.2"))
    assert cut.var(axis=0).mean() < 0.2 * plain.var(axis=0).mean()
    assert images("wrong", stored, "--config.sampler.threshold=-1") is None
    assert "config.sampler.threshold is -1; it must be above 0" in capsys.readouterr().err

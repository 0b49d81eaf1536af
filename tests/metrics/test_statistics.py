"""Published statistics (mu, sigma) as a reference give the number that the images themselves give."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_methods import tiny_config

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation.evaluate import metrics_of, statistics_of
from jaxgen.metrics import command
from jaxgen.metrics.distributions.frechet import Frechet
from jaxgen.metrics.distributions.kernel import KID
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.digits import Digits
from jaxgen.metrics.networks.inception import Inception
from jaxgen.metrics.statistics import read_statistics
from jaxgen.runs.setup import make_method


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("jaxgen.host.use_cpu_cores", lambda: None)
    monkeypatch.setattr("jaxgen.host.use_compilation_cache", lambda: None)


@pytest.fixture(scope="module", name="digits")
def _digits():
    return {split: open_source("digits", split, 8, 1).arrays["image"] for split in ("train", "test")}


@pytest.fixture(scope="module", name="published")
def _published(digits):
    """As pytorch-fid makes them: numpy's mean and cov of the reference's features."""
    features = Digits()(digits["test"]).features
    return {"mu": features.mean(axis=0), "sigma": np.cov(features, rowvar=False)}


@pytest.fixture(name="b")
def _b(tmp_path, published):
    np.savez(tmp_path / "b.npz", **published)
    return tmp_path / "b.npz"


def call(capsys, *arguments):
    status = command.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def refused(capsys, *arguments):
    status, out, err = call(capsys, *arguments)
    assert status == 2 and out == "" and "Traceback" not in err, err
    return err


SEEN = ("--network=digits", "--num=100")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_number_is_that_of_the_images(tmp_path, published, capsys, dtype):
    """The floor, too. The record says that the reference's size is not known."""
    np.savez(tmp_path / "b.npz", **{key: values.astype(dtype) for key, values in published.items()})
    found = {}
    for reference in (tmp_path / "b.npz", "digits/test"):
        options = ("--network=digits", "--batch=500", "--metrics=frechet", "--floor=digits/train")
        status, out, err = call(capsys, "digits/train", reference, *options)
        assert status == 0, err
        found[str(reference)] = json.loads(out)["frechet_digits"]
    of_file, of_images = found[str(tmp_path / "b.npz")], found["digits/test"]
    for key in ("value", "floor"):
        assert of_file[key] == pytest.approx(of_images[key], rel=1e-9 if dtype == np.float64 else 1e-3)
    assert of_file["value"] > 0 and of_file["reference_n"] is None and of_images["reference_n"] == 500
    assert of_file["reference"].endswith("b.npz (published statistics)")


def test_beside_images_the_statistics_are_for_fid_and_the_images_for_the_rest(tmp_path, digits, published, capsys):
    """As ADM's files are: here the images are others than those of the statistics, so that both can be told apart."""
    np.savez(tmp_path / "adm.npz", arr_0=digits["train"][200:400], **published)
    np.savez(tmp_path / "images.npz", arr_0=digits["train"][200:400])
    a, found = tmp_path / "a.npz", {}
    np.savez(a, images=digits["train"][:100])
    for name in ("adm.npz", "images.npz", "digits/test"):
        reference = name if name == "digits/test" else tmp_path / name
        status, out, err = call(capsys, a, reference, "--network=digits", "--metrics=kid,frechet,recall", "--batch=500")
        assert status == 0, err
        found[name] = json.loads(out)
    adm, images, test = found.values()
    assert list(adm) == ["kid_digits", "frechet_digits", "recall_digits"]
    assert adm["kid_digits"]["value"] == images["kid_digits"]["value"]
    assert adm["recall_digits"]["value"] == images["recall_digits"]["value"]
    assert adm["frechet_digits"]["value"] == pytest.approx(test["frechet_digits"]["value"], rel=1e-9)
    assert adm["frechet_digits"]["value"] != pytest.approx(images["frechet_digits"]["value"], rel=1e-3)


def test_other_metrics_say_that_images_are_needed(b, capsys):
    for metric in ("kid", "precision", "psnr", "frechet_infinity"):
        told = refused(capsys, "digits/train", b, *SEEN, f"--metrics=frechet,{metric}")
        assert f"'{metric}' needs the images of its reference" in told
    assert "can only be the reference B" in refused(capsys, b, "digits/test", *SEEN, "--metrics=frechet")
    assert "--floor" in refused(capsys, "digits/train", b, *SEEN, "--metrics=frechet", f"--floor={b}")


def test_the_features_must_be_as_many_as_the_networks_before_weights_are_read(b, capsys):
    told = refused(capsys, "digits/train", b, "--metrics=fid")
    assert "statistics of 32 features" in told and "'inception' gives 2048" in told
    assert Digits().width == 32 and Inception(tap="192").width == 192


WRONG = {
    "sigma [32]": (lambda mu, sigma: (mu, sigma[0]), r"\[D\] and \[D, D\]"),
    "mu [1, 32]": (lambda mu, sigma: (mu[None], sigma), r"\[D\] and \[D, D\]"),
    "whole numbers": (lambda mu, sigma: (mu.astype(int), sigma), "'mu' of .* is int64"),
    "NaN": (lambda mu, sigma: (mu, np.where(sigma > sigma.min(), sigma, np.nan)), "not finite"),
    "not symmetric": (lambda mu, sigma: (mu, np.triu(sigma)), "no covariance"),
    "a variance below 0": (lambda mu, sigma: (mu, -sigma), "no covariance"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_are_no_statistics_are_refused(tmp_path, published, name):
    change, words = WRONG[name]
    mu, sigma = change(published["mu"], published["sigma"])
    np.savez(tmp_path / "b.npz", mu=mu, sigma=sigma)
    with pytest.raises(UserError, match=words):
        read_statistics(tmp_path / "b.npz", "B")


def test_files_that_are_no_statistics_are_refused(tmp_path, capsys):
    (tmp_path / "b.pkl").write_bytes(b"\x80\x04N.")
    assert "is a pickle" in refused(capsys, "digits/train", tmp_path / "b.pkl", *SEEN, "--metrics=frechet")
    np.savez(tmp_path / "mu.npz", mu=np.zeros(3))
    assert "it has mu" in refused(capsys, "digits/train", tmp_path / "mu.npz", *SEEN, "--metrics=frechet")
    with pytest.raises(UserError, match="no arrays 'mu' and 'sigma'.*it has mu"):
        read_statistics(tmp_path / "mu.npz", "config.evaluate.reference")
    with pytest.raises(UserError, match="config.evaluate.reference"):
        read_statistics(tmp_path / "gone.npz", "config.evaluate.reference")


def test_a_run_takes_them_for_the_metrics_that_need_no_more(digits, b):
    config = tiny_config("Plain")
    config.evaluate.update(network="digits", metrics=("frechet", "memorisation"), reference=str(b))
    method = make_method(config)
    statistics = statistics_of(config, metrics_of(config, method))
    plain = EvaluationImages(digits["train"][:200], None, digits["train"], digits["test"], None, "digits/test (500)")
    given = EvaluationImages(plain.samples, None, plain.train, plain.held_out, None, plain.held_out_name, statistics)
    of_images, of_file = (Frechet().scores(images, Digits())["frechet_digits"] for images in (plain, given))
    for key in ("value", "floor", "noise"):
        assert getattr(of_file, key) == pytest.approx(getattr(of_images, key), rel=1e-9)
    assert of_file.reference == f"{b} (published statistics)" and of_file.reference_n is None
    assert KID().scores(given, Digits())["kid_digits"].reference == "digits/test (500)"
    for metrics, words in ((("frechet", "kid"), "'kid' needs the images"), (("memorisation",), "such as 'fid'")):
        config.evaluate.metrics = metrics
        with pytest.raises(UserError, match=words):
            statistics_of(config, metrics_of(config, method))

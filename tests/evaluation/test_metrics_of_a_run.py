"""What a config may ask of a run's samples: refused before training where there is none, computed when it is due."""

from __future__ import annotations

import importlib
import json
import re
import sys

import numpy as np
import pytest
import tiny

from jaxgen.config import SAMPLE_METRICS, check, defaults, section
from jaxgen.config.record import differences, from_json, to_json
from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation.evaluate import check_before_training, due, metrics_of
from jaxgen.metrics.choice import Chosen
from jaxgen.metrics.compare import compare_samples
from jaxgen.metrics.distributions.frechet import Frechet
from jaxgen.metrics.distributions.memorisation import Memorisation
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.digits import Digits
from jaxgen.runs.setup import make_method


def config_of(metrics=SAMPLE_METRICS, network="digits", conditional=False, **evaluate):
    """A small diffusion model on digits."""
    config = defaults()
    shape = {"channels": 8, "channel_multipliers": (1,), "blocks": 1, "norm_groups": 4}
    config.method = section(
        name="ddpm", network=section(name="unet", out_channels=1, num_classes=10 if conditional else 0, **shape)
    )
    config.method.schedule = section(name="cosine", steps=100)
    config.sampler = section(name="ddim", steps=4)
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.train.total_images = 1000
    config.evaluate.update(metrics=metrics, network=network, **evaluate)
    return config


def chosen(config):
    check(config)
    return metrics_of(config, make_method(config))


# what the metrics and the network are, and what the sentence says
REFUSED = {
    "fid without Inception": (("fid",), "digits", "'digits' the number is 'frechet'"),
    "fid without a network": (("fid",), "", "'fid' needs a feature network; name one in config.evaluate.network"),
    "kid without a network": (("kid",), "", "'kid' needs a feature network"),
    "a number that needs pairs": (("lpips",), "digits", "use python -m jaxgen.metrics A B --metrics=lpips"),
    "one that needs maps as well": (("sifid",), "digits", "'sifid' needs images in pairs; the samples of"),
    "a number that needs captions": (("clip_score",), "digits", "a caption for each image; .* no held-out example"),
    "labels of an unconditional run": (("label_accuracy",), "digits", "asked for none, so leave it out"),
    "probabilities of CLIP": (("confidence",), "clip", "class probabilities, which 'clip' is not"),
    "a network as a metric": (("inception",), "digits", "network and no metric: write config.evaluate.network="),
    "what the old vocabulary had": (("judge",), "digits", "its parts are called .*'label_accuracy' now"),
    "several numbers under one word": (("prdc",), "digits", "'prdc' does not exist: .* 'precision', 'recall', "),
    "a misspelt metric": (("fretchet",), "digits", "did you mean 'frechet'"),
    "a misspelt network": (("kid",), "digitz", "config.evaluate.network='digitz' is unknown; did you mean 'digits'"),
    "a class that is no metric": (("images:EvaluationImages",), "digits", r"is not a RunMetric \(jaxgen.metrics.base"),
    "a class that is no network": (("kid",), "frechet:KID", "defines no 'KID'|is unknown|is not a FeatureNetwork"),
    "what metrics derive from": (("set_metric",), "digits", "'set_metric'"),
    "a number for a name": ((3,), "digits", "holds 3; it takes names, and sections with a name"),
    "a misspelt option": ((section(name="recall", kk=5),), "digits", "kk does not exist; did you mean 'k'"),
    "an option out of range": ((section(name="recall", k=0),), "digits", "k is at least 1, not 0"),
    "one number twice, each with its options": (
        (section(name="recall", k=3), section(name="recall", k=5)), "digits", "names 'recall' twice",
    ),
    "a number for a network": ((section(name="kid", network=3),), "digits", "network of 'kid' is 3; it takes"),
    "a wrong cadence": ((section(name="recall", every_images=-1),), "digits", "every_images of 'recall' is -1"),
    "a cadence that never comes": (
        (section(name="recall", every_images=10),), "digits", "set config.train.evaluate_every_images",
    ),
}  # fmt: skip


def test_a_network_that_sees_images_of_another_size_is_found_before_training():
    config = config_of(metrics=("kid",), network="fashion")
    with pytest.raises(UserError, match=r"'fashion' sees images of shape \(28, 28, 1\), not \(8, 8, 1\)"):
        check_before_training(config, make_method(config))


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_cannot_give_is_one_sentence_before_training(case):
    metrics, network, said = REFUSED[case]
    with pytest.raises(UserError, match=said) as error:
        chosen(config_of(metrics, network))
    assert "\n" not in str(error.value)


def test_options_of_a_network_are_its_own():
    with pytest.raises(UserError, match="'digits' takes no weights"):
        chosen(config_of(weights="some.pth"))
    with pytest.raises(UserError, match="'digits' takes no resize"):
        chosen(config_of(resize="clean"))
    with pytest.raises(UserError, match="config.evaluate.resize='bicubic'"):
        chosen(config_of(("fid",), "inception", resize="bicubic"))
    assert chosen(config_of(("fid",), "inception", resize="clean"))[0].network.resize == "clean"


def test_weights_that_are_missing_are_missed_before_training_and_the_network_that_is_here_is_named():
    config = config_of(("fid",), "inception", weights="/nowhere.pth")
    assert len(chosen(config)) == 1  # names are looked up without weights
    with pytest.raises(UserError, match=r"nowhere\.pth.*'frechet' with config.evaluate.network='digits'"):
        check_before_training(config, make_method(config))
    config.evaluate.at_end = False
    check_before_training(config, make_method(config))


def test_a_method_that_draws_nothing_has_no_samples_to_measure():
    config = config_of(("confidence",))
    config.method = section(name="classifier", network=section(name="classifier", num_classes=10))
    config.sampler = section()
    with pytest.raises(UserError, match="'classifier' draws no samples"):
        chosen(config)


def test_labels_are_there_where_the_model_is_conditional():
    names = [one.metric.name for one in chosen(config_of((*SAMPLE_METRICS, "label_accuracy"), conditional=True))]
    assert names == [*SAMPLE_METRICS, "label_accuracy"]


def test_an_entry_may_have_a_network_and_options_of_its_own():
    config = config_of(("frechet", section(name="recall", network="inception", k=5), "memorisation"))
    first, second, third = chosen(config)
    assert (first.network.name, second.network.name, third.network) == ("digits", "inception", None)
    assert second.metric.k == 5 and second.metric.number(second.network) == "recall"
    config.evaluate.network = section(name="inception", tap="768")
    assert chosen(config)[0].metric.number(chosen(config)[0].network) == "frechet_inception"


def test_sections_in_a_tuple_are_kept_with_the_run():
    config = config_of(("frechet", section(name="kid", every_images=500)))
    again = from_json(to_json(config))
    assert differences(config, again) == {}
    assert again.evaluate.metrics[1].to_dict() == {"name": "kid", "every_images": 500}


@pytest.mark.parametrize(
    ("every", "own", "evaluated"),
    [
        (100, 0, [100, 200, 300, 400, 500, 600]),
        (100, 250, [300, 500]),  # 250 is passed at 300, 500 is reached
        (100, 300, [300, 600]),
        (100, 30, [100, 200, 300, 400, 500, 600]),  # no more often than there are evaluations
        (100, 10_000, []),
    ],
)
def test_a_metric_is_due_when_its_own_cadence_was_passed(every, own, evaluated):
    entries = (Chosen(Memorisation(), None, own),)
    # the loop evaluates after the first step that reaches a multiple; steps may pass it by a few images
    for late in (0, 7):
        assert [n for n in range(100, 700, 100) if due(entries, every, n + late)] == evaluated


@pytest.mark.slow
def test_during_training_only_what_is_due_is_computed(tmp_path, monkeypatch):
    computed = []
    for metric in (Frechet, Memorisation):
        scores = metric.scores
        monkeypatch.setattr(metric, "scores", lambda *given, f=scores: computed.append(given[0].name) or f(*given))
    text = tiny.TEXT.format(classes=0).replace(
        'metrics=(*SAMPLE_METRICS, "memorisation")',
        'metrics=("frechet", section(name="memorisation", every_images=128))',
    )
    path = tmp_path / "cadence.py"
    path.write_text(text)
    lean = ["--config.train.evaluate_every_images=64", "--config.train.total_images=192", "--config.evaluate.num=8"]
    assert tiny.call(f"--config={path}", f"--workdir={tmp_path / 'run'}", *lean) == 0
    assert computed == ["frechet", "frechet", "memorisation", "frechet"] + ["frechet", "memorisation"]  # at the end
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {"frechet_digits", "share_of_near_copies"} <= set(written)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = {row["images"]: row["evaluate/frechet_digits"] for row in lines if "evaluate/frechet_digits" in row}
    assert list(logged) == [64, 128, 192] and logged[192] == pytest.approx(written["frechet_digits"]["value"])
    assert [row["images"] for row in lines if "evaluate/share_of_near_copies" in row] == [128]


def test_the_metric_and_the_network_of_the_docs_are_one_config_line_each(tmp_path, monkeypatch):
    page = (tiny.ROOT / "docs" / "metrics.md").read_text()
    metric, metric_line, network, network_line = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "my_metrics.py").write_text(metric)
    (tmp_path / "my_networks.py").write_text(network)
    for name in ("my_metrics", "my_networks"):  # other pages have modules of these names
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    config = config_of(("frechet",))
    exec(metric_line + network_line, {"config": config})
    ours = chosen(config)
    train, test = (open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test"))
    images = EvaluationImages(train["image"][:60], None, train["image"], test["image"], None, "digits/test")
    found = {}
    for one in ours:
        found |= one.metric.scores(images, one.network)
    assert list(found) == ["frechet_colours", "mean_shift_colours"]
    pixels = [(x / 255).reshape(len(x), -1) for x in (images.samples, images.held_out)]
    features = [np.stack([x.mean(1), x.std(1)], 1).mean(0) for x in pixels]
    shift = found["mean_shift_colours"]
    assert shift.value == pytest.approx(np.linalg.norm(features[0] - features[1]), rel=1e-9)
    assert shift.noise > shift.floor and shift.digest == "version 1"
    cls = importlib.import_module("my_metrics").MeanShift
    assert compare_samples(images, (cls(),), Digits())["mean_shift_digits"].value > 0


def test_a_split_of_too_few_images_is_found_before_training(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", train_images=pixels[:8], test_images=pixels[8:])
    config = config_of(("frechet",), "digits")
    config.data.source, config.data.num_classes = f"npz:{tmp_path / 'few.npz'}", 0
    with pytest.raises(UserError, match=r"'frechet' needs at least 2 held-out images, .*eval_split='test' .* has 1"):
        check_before_training(config, make_method(config))

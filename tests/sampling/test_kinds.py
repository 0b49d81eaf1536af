"""What `sample` may give beyond images: each kind is checked before training, drawn, written and read back."""

from __future__ import annotations

import numpy as np
import pytest
import running
import tiny
from PIL import Image
from tiny_methods import tiny_config

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation.evaluate import metrics_of
from jaxgen.runs.setup import make_method

SHAPES = {"image": (8, 8, 1), "video": (3, 8, 8, 1), "embedding": (6,), "tokens": (5,)}
TYPES = {"image": "uint8", "video": "uint8", "embedding": "float32", "tokens": "int32"}
TRUST = "--trust=tiny_methods"
FILES = {"image": {"samples.png"}, "video": {"samples.gif", "samples.mp4"}, "embedding": set(), "tokens": set()}


def config_of(**options):
    config = tiny_config("Giver", **options)
    config.data.num_classes = 10
    config.train.update(total_images=16, sample_every_images=8)
    return config


@pytest.fixture(scope="module", params=SHAPES)
def run(request, tmp_path_factory):
    """A kind, and a run of a method that gives it."""
    workdir = tmp_path_factory.mktemp("run")
    running.run(config_of(kind=request.param), workdir)
    return request.param, workdir


def test_each_kind_trains_and_has_the_picture_that_fits(run):
    kind, workdir = run
    pictured = kind in ("image", "video")
    assert len(list(workdir.glob("samples/step_*.png"))) == (2 if pictured else 0)


def test_each_kind_is_written_by_the_command_line(run, tmp_path):
    kind, workdir = run
    out = tmp_path / "out"
    assert tiny.call("--mode=sample", f"--workdir={workdir}", f"--out={out}", "--num=12", TRUST) == 0
    assert {path.name for path in out.iterdir()} == {"samples.npz"} | FILES[kind]
    arrays = dict(np.load(out / "samples.npz"))
    main = arrays["images" if kind == "image" else kind]
    assert main.shape == (12, *SHAPES[kind]) and main.dtype == TYPES[kind]
    assert arrays["latent"].shape == (12, 4) and arrays["mask"].shape == (12, 8, 8)
    np.testing.assert_array_equal(arrays["labels"], np.arange(12) % 10)
    # the further arrays are of the same samples: their latent is their first values, before they became levels
    if kind == "image":
        first = main.reshape(12, 64)[:, :4].astype(float) / 127.5 - 1
        np.testing.assert_allclose(arrays["latent"], first, atol=1 / 255 + 1e-6)
        np.testing.assert_array_equal(arrays["mask"], main[..., 0] > 127.5)
    if kind == "video":
        with Image.open(out / "samples.gif") as opened:
            assert opened.n_frames == 3


def test_samples_are_a_data_source_with_their_further_arrays(tmp_path):
    workdir = tmp_path / "run"
    running.run(config_of(), workdir, 8)
    assert tiny.call("--mode=sample", f"--workdir={workdir}", f"--out={tmp_path}", "--num=12", TRUST) == 0
    drawn = np.load(tmp_path / "samples.npz")
    source = open_source(f"npz:{tmp_path / 'samples.npz'}", "all", (8, 8), 1, 10)
    found = source.take(range(12))
    assert set(found) == {"image", "label", "latent", "mask"}
    for ours, theirs in (("images", "image"), ("labels", "label"), ("latent", "latent"), ("mask", "mask")):
        np.testing.assert_array_equal(drawn[ours], found[theirs])
    assert found["latent"].dtype == np.float32 and found["mask"].dtype == np.int32


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (dict(kind="video", wrong="shape"), r"shape \(8, 3, 8, 8, 1, 1\), where 8 videos .* \(8, any, 8, 8, 1\) are n"),
        (dict(kind="embedding", wrong="shape"), r"8 embeddings of floats and of shape \(8, any\) are needed"),
        (dict(kind="image", wrong="type"), "samples numbers of type bool, where 8 images of floats in"),
        (dict(kind="tokens", wrong="type"), "numbers of type bool, where 8 rows of tokens of integers"),
        (dict(kind="embedding", wrong="name"), "needs the array 'embedding', and it has 'picture', 'latent', 'mask'"),
        (dict(kind="image", wrong="rows"), r"shape \(7, 4\) and type float32 as 'latent', where a row .* each of 8"),
        (dict(kind="image", wrong="kept"), "an array 'labels', whose name samples.npz keeps"),
        (dict(kind="vidoe"), "Giver.gives='vidoe' is unknown; did you mean 'video'"),
    ],
)
def test_a_wrong_output_is_one_sentence_before_training(options, told, tmp_path):
    with pytest.raises(UserError, match=told), running.opened(config_of(**options), tmp_path / "run"):
        pass


def test_a_metric_that_cannot_judge_what_is_given_is_refused():
    config = config_of(kind="embedding")
    config.evaluate.update(metrics=("frechet",), network="digits")
    with pytest.raises(UserError, match="'frechet' measures images, and .*Giver' gives embeddings; leave it out"):
        metrics_of(config, make_method(config))


def test_only_images_are_asked_for_as_images(run):
    kind, workdir = run
    with running.opened(config_of(kind=kind), workdir) as trainer:
        if kind == "image":
            assert trainer.generator.images(trainer.model(), 0, 3).images.shape == (3, 8, 8, 1)
        else:
            with pytest.raises(UserError, match="Giver gives .*, and no images"):
                trainer.generator.images(trainer.model(), 0, 3)

"""Images that a run asks of its pretrained model before the first step, as DreamBooth's prior."""

from __future__ import annotations

import numpy as np
import pytest
import running
import tiny
import tiny_finetune
import tiny_pipeline

from jaxgen.config import files, section
from jaxgen.config.checks import check
from jaxgen.errors import UserError
from jaxgen.runs.setup import extra_held_out, open_split, sampled_sources, training_sources
from jaxgen.sampling.prompts import TextRequest
from jaxgen.sampling.restore import pretrained, restore
from jaxgen.train import class_images

TEXTS = ("a red dog", "a cat")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of diffusers, captioned pictures, and a run on both that asks for five images."""
    place = tmp_path_factory.mktemp("prior")
    tiny_pipeline.write(place / "model")
    tiny_finetune.write_pictures(place / "pictures")
    return place


def of(place, **extra):
    made = tiny_finetune.finetune_config(place / "model", place / "pictures")
    made.train.update(batch_size=4, total_images=16)
    made.data.extra.prior = section(**{"source": "sampled", "captions": TEXTS, "num": 5, **extra})
    return made


@pytest.fixture(scope="module")
def whole(place):
    return running.run(of(place), place / "whole")


@pytest.mark.slow
def test_they_are_what_the_model_draws_for_the_texts(place, whole):
    asked, _ = files.load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    asked.init_from.pretrained = str(place / "model")
    asked.data.update(resolution=16)
    asked.sampler = section(**of(place).sampler)
    asked.method.update(height=16, width=16)
    model = pretrained(asked, TextRequest(TEXTS))
    with np.load(place / "whole/prior.npz") as kept:
        np.testing.assert_array_equal(kept["images"], model.generator.images(model.model, 0, 5).images)
        assert kept["captions"].tolist() == [TEXTS[i % 2] for i in range(5)]
        assert kept["images"].std() > 1


@pytest.mark.slow
def test_a_run_learns_from_them_and_goes_on_without_drawing(place, whole, tmp_path, monkeypatch):
    with running.opened(of(place), tmp_path / "parts") as trainer:
        assert not trainer.sources["prior"].arrays["image"].any() and not (tmp_path / "parts/prior.npz").exists()
        trainer.take_step()
        kept = np.load(tmp_path / "parts/prior.npz")["images"]
        np.testing.assert_array_equal(trainer.sources["prior"].arrays["image"], kept)
        trainer.save()
        trainer.checkpoints.wait()
        batch = next(trainer.loader)
        assert all((image == kept).all((1, 2, 3)).any() for image in batch["prior_image"])
        assert batch["prior_tokens"].shape == (4, tiny_pipeline.LENGTH)
    monkeypatch.setattr(class_images, "_pretrained", lambda *_: pytest.fail("they are drawn again"))
    assert not running.differing(running.run(of(place), tmp_path / "parts"), whole)


@pytest.mark.slow
def test_a_lost_file_is_drawn_again_and_another_one_is_refused(place, whole):
    sources = sampled_sources(of(place), place / "whole")
    before = sources["prior"].arrays["image"].copy()
    assert sources["prior"].drawn and "drawn before" in sources["prior"].summary()
    (place / "whole/prior.npz").unlink()
    again = sampled_sources(of(place), place / "whole")
    assert not again["prior"].drawn and not again["prior"].arrays["image"].any()
    class_images.draw_missing(of(place), again.values())
    np.testing.assert_array_equal(again["prior"].arrays["image"], before)
    for other in (of(place, captions=("a dog",)), of(place, num=4), seeded(place), slower(place)):
        with pytest.raises(UserError, match=r"prior\.npz holds images that were drawn otherwise .*; move it away"):
            sampled_sources(other, place / "whole")


def seeded(place):
    made = of(place)
    made.seed = 7
    return made


def slower(place):
    made = of(place)
    made.sampler.steps = 4
    return made


@pytest.mark.slow
def test_a_run_can_be_the_model(place, whole, tmp_path):
    config = of(place)
    config.method = section(name="tuned", grafts=section(lora=section(name="low_rank", rank=1)))
    config.init_from.pretrained = str(place / "whole")
    running.run(config, tmp_path / "tuned", 4)
    model = restore(of(place), place / "whole")
    model.generator.use_prompts(TEXTS)
    kept = np.load(tmp_path / "tuned/prior.npz")["images"]
    np.testing.assert_array_equal(kept, model.generator.images(model.model, 0, 5).images)


def test_a_damaged_file_is_named(place, tmp_path):
    (tmp_path / "prior.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match=r"prior\.npz"):
        sampled_sources(of(place), tmp_path)


def test_without_a_workdir_they_are_black(place):
    source = training_sources(of(place))["prior"]
    assert len(source) == 5 and not source.arrays["image"].any() and source[1]["caption"] == TEXTS[1]
    with pytest.raises(UserError, match="prior is drawn for training and has no held-out split"):
        extra_held_out(of(place), "prior")
    assert len(open_split(of(place), "train")) > 5


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"captions": ()}, "prior draws images: it needs captions, .* and num"),
        ({"num": 0}, "prior draws images: it needs captions, .* and num"),
        ({"num": 2.5}, "prior.num must be of type int"),
        ({"split": "train"}, "prior.split has no use with source='sampled'"),
        ({"eval_split": "test"}, "prior.eval_split has no use"),
        ({"source": "digits", "split": "train"}, "prior.num is for source='sampled'"),
        ({"captions": ("a photo of {}",)}, "prior.captions: the pretrained model does not know the word"),
    ],
)
def test_keys_that_do_not_fit(place, extra, told, tmp_path):
    config = of(place, **extra)
    with pytest.raises(UserError, match=told) as caught:
        check(config)
        sampled_sources(config, tmp_path)
    assert "\n" not in str(caught.value)


def test_names_and_models_that_do_not_fit(place, tmp_path):
    config = of(place)
    config.data.extra = {"out-b": config.data.extra.prior}
    with pytest.raises(UserError, match=r"out-b: its images are kept in a file of this name"):
        check(config)
    config = of(place)
    config.init_from = section()
    with pytest.raises(UserError, match="prior.source='sampled' asks config.init_from.pretrained to draw images"):
        sampled_sources(config, tmp_path)

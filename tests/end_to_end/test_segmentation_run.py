"""Segmentation on a trained model's features: trained, resumed, and asked for the masks of a user's pictures."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.evaluation.evaluate import SEED
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.restore import restore

SMALL = (
    "--config.data.resolution=16", "--config.train.batch_size=8", "--config.train.log_every_images=8",
    "--config.train.sample_every_images=0", "--config.train.tensorboard=False", "--config.optimizer.warmup_images=0",
    "--config.optimizer.decay=constant", "--config.evaluate.at_end=False",
)  # fmt: skip
DENOISER = (
    f"--config={tiny.ROOT / 'configs' / 'ddpm_scenes.py'}", "--config.train.total_images=16",
    "--config.train.checkpoint_every_images=16", "--config.method.network.channels=8",
    "--config.method.network.channel_multipliers=(1,2)", "--config.method.network.attention_resolutions=()",
    "--config.sampler.steps=2", *SMALL,
)  # fmt: skip
MASKED = (
    f"--config={tiny.ROOT / 'configs' / 'mae_shapes.py'}", "--config.train.total_images=16",
    "--config.train.checkpoint_every_images=16", "--config.method.encoder.width=8", "--config.method.encoder.depth=1",
    "--config.method.decoder.width=8", "--config.method.decoder.depth=1", *SMALL,
)  # fmt: skip
HEADS = (
    f"--config={tiny.ROOT / 'configs' / 'segmentation_shapes.py'}", "--config.data.examples=8",
    "--config.train.checkpoint_every_images=16", "--config.method.members=2", "--config.method.pixels=128",
    "--config.method.features.blocks=('middle_block_1','up_0_block_1')", "--config.method.features.times=(50,)",
    "--config.evaluate.num=8", "--config.evaluate.real=8", "--config.evaluate.batch_size=8", *SMALL,
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A diffusion model, a masked autoencoder, and heads on the first: stopped and resumed, and never stopped."""
    folder = tmp_path_factory.mktemp("segmentation")
    assert tiny.call(*DENOISER, f"--workdir={folder / 'denoiser'}") == 0
    assert tiny.call(*MASKED, f"--workdir={folder / 'masked'}") == 0
    words = (*HEADS, f"--config.init_from.pretrained={folder / 'denoiser'}")
    assert tiny.call(*words, f"--workdir={folder / 'resumed'}", "--config.train.total_images=32") == 0
    assert tiny.call(*words, f"--workdir={folder / 'resumed'}", "--config.train.total_images=48") == 0
    assert tiny.call(*words, f"--workdir={folder / 'whole'}", "--config.train.total_images=48") == 0
    return folder


@pytest.fixture(scope="module")
def pictures(runs):
    """A folder of two pictures, one of them larger, and an empty one."""
    chance = np.random.default_rng(0)
    (runs / "own").mkdir()
    (runs / "empty").mkdir()
    for name, size in (("first", (16, 16)), ("second", (24, 40))):
        Image.fromarray(chance.integers(0, 256, (*size, 3), np.uint8)).save(runs / "own" / f"{name}.png")
    return runs / "own"


def masks_of(out, names):
    return np.stack([np.asarray(Image.open(out / "masks" / f"{name}.png")) for name in names])


@pytest.mark.nightly
def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(runs):
    first, second = (restore(stored_config(runs / name), runs / name).model for name in ("resumed", "whole"))
    jax.tree.map(np.testing.assert_array_equal, first.params["heads"], second.params["heads"])
    jax.tree.map(np.testing.assert_array_equal, first.memory["heads"], second.memory["heads"])
    ends = [tiny.logged(runs / name)[-2:] for name in ("resumed", "whole")]
    assert ends[0] == ends[1]


@pytest.mark.nightly
def test_a_folder_of_pictures_gets_masks_and_overlays(runs, pictures, tmp_path):
    out, call = tmp_path / "out", (f"--workdir={runs / 'whole'}", "--mode=sample", "--num=2")
    assert tiny.call(*call, f"--image={pictures}", f"--out={out}") == 0
    names = ("first", "second")
    for folder in ("masks", "overlays"):
        assert sorted(path.name for path in (out / folder).iterdir()) == [f"{name}.png" for name in names]
    stored = np.load(out / "samples.npz")
    np.testing.assert_array_equal(masks_of(out, names), stored["mask"])
    assert stored["uncertainty"].shape == stored["mask"].shape == (2, 16, 16) and stored["uncertainty"].min() >= 0
    overlay = np.asarray(Image.open(out / "overlays" / "first.png"))
    ground = stored["mask"][0] == 0
    np.testing.assert_array_equal(overlay[ground], np.asarray(Image.open(pictures / "first.png"))[ground])
    assert {"samples.png", "panel_inputs.png"} <= {path.name for path in out.iterdir()}
    # another seed gives the same masks: nothing in them is drawn
    assert tiny.call(*call, f"--image={pictures}", f"--out={tmp_path / 'again'}", "--seed=5") == 0
    np.testing.assert_array_equal(masks_of(tmp_path / "again", names), stored["mask"])


def stored_data(folder, high=5, mask_size=16):
    """An archive of noise with masks of so many classes."""
    chance, arrays = np.random.default_rng(1), {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = chance.integers(0, 256, (8, 16, 16, 3), np.uint8)
        arrays[f"{split}_masks"] = chance.integers(0, high, (8, mask_size, mask_size), np.uint8)
    np.savez(folder / "data.npz", **arrays)
    return f"--config.data.source=npz:{folder / 'data.npz'}"


@pytest.mark.nightly
def test_it_is_evaluated_against_the_true_masks(runs, capsys):
    assert tiny.call(f"--workdir={runs / 'whole'}", "--mode=evaluate") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert {"mean_iou", "pixel_accuracy", "accuracy", "uncertainty"} <= numbers.keys()
    trained = restore(stored_config(runs / "whole"), runs / "whole")
    drawn = trained.generator.draw(trained.model, SEED, 8, asked=True)
    right = (drawn.main == drawn.asked["mask"]).mean()
    assert numbers["pixel_accuracy"]["value"] == pytest.approx(right) and numbers["mean_iou"]["n"] == 8
    assert 0 < numbers["mean_iou"]["value"] < 1


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config.method.features.blocks=('up_0_blok_1',)"], "no module 'up_0_blok_1'; did you mean 'up_0_block_"),
        (["--config.init_from.pretrained={runs}/masked"], "reads layers of a diffusion model, and .* a run of MAE"),
        (["--config.init_from.pretrained={runs}/nowhere"], "nowhere"),
        (["--config.data.source=digits", "--config.data.resolution=8"], "RGB|channels"),
        (["--config.data.source=shapes", "--config.data.examples=60001"], "has 60,?000: ask for fewer"),
        (["classes"], "mask 6, and Segmentation knows those in .0, 5.*config.method.classes"),
        (["size"], "masks of 12x12 pixels and images of 16x16"),
        (["none"], "learns from the entry 'mask', and the data have image: choose a config.data.source with masks"),
    ],
)
def test_what_cannot_be_learned_from_is_one_sentence_with_nothing_written(words, said, runs, tmp_path, capsys):
    own = {"classes": dict(high=7), "size": dict(mask_size=12), "none": {}}.get(words[0])
    if own is not None:
        words = [stored_data(tmp_path, **own)]
        if not own:
            with np.load(tmp_path / "data.npz") as found:
                images = {name: found[name] for name in found if name.endswith("images")}
            np.savez(tmp_path / "data.npz", **images)
    workdir = tmp_path / "run"
    words = [word.format(runs=runs) for word in words]
    base = (*HEADS, f"--config.init_from.pretrained={runs / 'denoiser'}", "--config.train.total_images=16")
    capsys.readouterr()
    status = tiny.call(*tiny.replaced(base, *words), f"--workdir={workdir}")
    assert status == 2 and re.search(said, tiny.Result(status, *capsys.readouterr()).complaint)
    assert not workdir.exists()


@pytest.mark.nightly
def test_what_is_no_picture_to_segment_is_one_sentence_with_nothing_written(runs, pictures, tmp_path, capsys):
    for words, said in (
        ((f"--image={runs / 'empty'}",), "is a folder without a picture"),
        ((f"--image={runs / 'none'}",), "none"),
        ((f"--image={pictures}", f"--mask={pictures / 'first.png'}"), "--mask was given, but this model has no use"),
    ):
        capsys.readouterr()
        status = tiny.call(f"--workdir={runs / 'whole'}", "--mode=sample", f"--out={tmp_path / 'out'}", *words)
        assert status == 2 and re.search(said, tiny.Result(status, *capsys.readouterr()).complaint)
        assert not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_masks_do_not_take_the_place_of_a_picture(runs, pictures, capsys):
    (pictures.parent / "masks").mkdir()
    (pictures / "first.png").rename(pictures.parent / "masks" / "first.png")
    words = (f"--workdir={runs / 'whole'}", "--mode=sample", f"--image={pictures.parent / 'masks' / 'first.png'}")
    capsys.readouterr()
    status = tiny.call(*words, f"--out={pictures.parent}")
    complaint = tiny.Result(status, *capsys.readouterr()).complaint
    (pictures.parent / "masks" / "first.png").rename(pictures / "first.png")
    assert status == 2 and "would take the place of" in complaint

"""A few-shot model: trained, resumed, and drawn from for a folder of pictures."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.config.files import load_config
from jaxgen.planning.programs import job_of
from jaxgen.planning.topology import devices
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.restore import restore

SMALL = (
    "--config.train.batch_size=8", "--config.train.log_every_images=8", "--config.train.checkpoint_every_images=24",
    "--config.train.sample_every_images=0", "--config.train.tensorboard=False", "--config.train.ema_decay=0.9",
    "--config.method.network.channels=8", "--config.method.network.channel_multipliers=(1,)",
    "--config.method.network.blocks=1", "--config.method.network.attention_resolutions=(8,)",
    "--config.method.network.context_dim=8", "--config.method.network.vector_dim=8",
    "--config.method.network.middle_attention=False", "--config.method.network.heads=1",
    "--config.method.parts.set.network.width=8", "--config.method.parts.set.network.depth=1",
    "--config.optimizer.learning_rate=0.05", "--config.optimizer.warmup_images=0", "--config.optimizer.decay=constant",
    "--config.sampler.steps=2", "--config.evaluate.num=8", "--config.evaluate.batch_size=8",
    "--config.evaluate.at_end=False", "--config.data.options.size=3",
)  # fmt: skip
NAMES = ("resumed", "whole")
CONFIG = f"--config={tiny.ROOT / 'configs' / 'fsdm_digits.py'}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that was stopped and resumed within the second epoch of its data, and one that was not."""
    folder = tmp_path_factory.mktemp("few_shot")
    words = (CONFIG, *SMALL, "--config.data.options.unseen=('1','2','3','4','5','6','7','8','9')")
    assert tiny.call(*words, f"--workdir={folder / 'resumed'}", "--config.train.total_images=152") == 0
    assert tiny.call(*words, f"--workdir={folder / 'resumed'}", "--config.train.total_images=176") == 0
    assert tiny.call(*words, f"--workdir={folder / 'whole'}", "--config.train.total_images=176") == 0
    return folder


@pytest.fixture(scope="module")
def pictures(runs):
    """Folders of five, three, one and no pictures."""
    chance = np.random.default_rng(0)
    counts = {"five": 5, "other": 5, "one": 1}
    made = {f"{name}/{i}.png": chance.integers(0, 256, (8, 8)) for name, count in counts.items() for i in range(count)}
    made |= {f"three/{i}.png": chance.integers(0, 256, (12, 16)) for i in range(3)}
    made |= {f"colour/{i}.png": chance.integers(0, 256, (8, 8, 3)) for i in range(2)}
    for name, array in made.items():
        (runs / name).parent.mkdir(exist_ok=True)
        Image.fromarray(array.astype(np.uint8)).save(runs / name)
    return runs


@pytest.fixture
def sample(runs, tmp_path, capsys):
    def call(*words, num=2):
        out = tmp_path / f"out{len([*tmp_path.iterdir()])}"
        status = tiny.call(f"--workdir={runs / 'whole'}", "--mode=sample", f"--num={num}", f"--out={out}", *words)
        if status:
            assert status == 2 and not out.exists()
            return tiny.Result(status, *capsys.readouterr()).complaint
        return out, np.load(out / "samples.npz")["images"]

    return call


def read(folder, count):
    return np.stack([np.asarray(Image.open(folder / f"{i}.png")) for i in range(count)])[..., None]


@pytest.mark.nightly
def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(runs):
    assert tiny.logged(runs / "resumed") == tiny.logged(runs / "whole")
    configs = [stored_config(runs / name) for name in NAMES]
    first, second = (restore(config, runs / name).model for config, name in zip(configs, NAMES, strict=True))
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)
    assert first.params.keys() == {"denoiser", "set"}


@pytest.mark.nightly
def test_a_folder_is_one_set_and_gives_what_the_library_gives(pictures, sample):
    strong = ("--seed=4", "--config.guidance.scale=30.0")  # so that what the set says is seen in a model of 22 steps
    out, drawn = sample(f"--image={pictures / 'five'}", *strong)
    assert sorted(path.name for path in (out / "images").iterdir()) == ["five_1.png", "five_2.png"]
    assert Image.open(out / "panel_set.png").width > 8 * Image.open(out / "panel_set.png").height / 2
    config = stored_config(pictures / "whole")
    config.guidance.scale = 30.0
    trained = restore(config, pictures / "whole")
    generator = trained.generator.changed(trained.generator.method, {"set": read(pictures / "five", 5)[None]})
    np.testing.assert_array_equal(generator.draw(trained.model, 4, 2).main, drawn)
    _, named = sample(f"--input=set={pictures / 'five'}", *strong)
    np.testing.assert_array_equal(named, drawn)
    singly = [f"--image={pictures / 'five' / f'{i}.png'}" for i in (3, 0, 4, 2, 1)]  # one folder in another order
    _, same = sample(*singly, *strong)
    assert np.abs(same.astype(int) - drawn).max() <= 1  # sums in another order
    _, other = sample(f"--image={pictures / 'other'}", *strong)
    assert np.abs(other.astype(int) - drawn).max() > 1


@pytest.mark.nightly
def test_two_folders_are_two_sets_and_a_set_may_have_another_size_and_pictures_too(pictures, sample, caplog):
    _, first = sample(f"--image={pictures / 'five'}", num=4)
    out, both = sample(f"--image={pictures / 'five'}", f"--image={pictures / 'other'}", num=4)
    np.testing.assert_array_equal(both[::2], first[::2])
    assert (both[1::2] != first[1::2]).any()
    assert {path.name for path in (out / "images").iterdir()} == {
        f"{n}_{i}.png" for n in ("five", "other") for i in (1, 2)
    }
    with caplog.at_level("INFO"):
        sample(f"--image={pictures / 'three'}")
    assert "a set of 3 pictures from" in caplog.text and "cropped in the centre and resized to 8x8" in caplog.text


@pytest.mark.nightly
def test_guidance_leads_away_from_no_set(pictures, sample):
    words = (f"--image={pictures / 'five'}", "--config.guidance.scale")
    plain, strong = (sample(f"{'='.join((words[1], str(scale)))}", words[0])[1] for scale in (1.0, 30.0))
    none, other = (sample("--config.guidance.scale=0.0", f"--image={pictures / name}")[1] for name in ("five", "other"))
    assert np.abs(strong.astype(int) - plain).max() > 1
    assert np.abs(none.astype(int) - other).max() <= 1  # scale 0 draws without a set


@pytest.mark.nightly
@pytest.mark.parametrize(
    "words, said",
    [
        (("--image={}/one",), "sets of at least 2 pictures, and this one has 1: give a folder with more pictures"),
        (("--image={}/five", "--image={}/three"), "equal numbers of pictures, and these have .*five 5, .*three 3"),
        (("--image={}",), "is a folder without a picture"),
        (("--image={}/colour",), "RGB"),
        (("--image={}/five", "--mask={}/one"), "--mask was given, but this model has no use for it: it reads set"),
        (("--hint={}/five",), "--hint was given, but this model has no use for it: it reads set"),
    ],
)
def test_what_is_no_set_is_one_sentence_with_nothing_written(pictures, sample, words, said):
    assert re.search(said, sample(*(word.format(pictures) for word in words)))


def test_the_shipped_configs_hold_classes_out():
    for name in ("fsdm_digits", "fsdm_omniglot"):
        config, _ = load_config(tiny.ROOT / "configs" / f"{name}.py")
        assert config.data.options.unseen and config.data.eval_split.endswith("/unseen")
        assert not config.data.split.endswith("/unseen") and config.data.num_classes == 0


@pytest.mark.slow
def test_the_config_of_omniglot_is_traced_for_data_that_its_user_gives(tmp_path):
    """What `--mode=plan` does: the size of a set is known from the data."""
    config, _ = load_config(tiny.ROOT / "configs" / "fsdm_omniglot.py")
    kind = np.arange(70) % 10
    np.savez(tmp_path / "own.npz", images=np.zeros((70, 28, 28), np.uint8), character=kind, alphabet=kind // 2)
    config.data.source = f"sets:npz:{tmp_path / 'own.npz'}"
    job = job_of(config, devices("cpu:8"))
    assert job.example["set"].shape == (32, 5, 28, 28, 1)
    assert job.state.params.keys() == {"denoiser", "set"}
    assert job.trace_sampler().out_info["images"].shape == (80, 28, 28, 1)

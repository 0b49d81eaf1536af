"""Runs are sampled one behind the other: three that the command line trained, in one command."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict
from PIL import Image
from tiny_methods import Plain, tiny_config

from jaxgen.config import section, to_json
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.cascade import Cascade, ChainStage
from jaxgen.runs.chains.stages import stage_configs
from jaxgen.runs.setup import make_method
from jaxgen.sampling.chains import open_chain
from jaxgen.sampling.restore import restore

CONFIG = '''"""{what}"""

from ml_collections import ConfigDict
from jaxgen.config import from_json


def get_config():
    return from_json(r"""{text}""")
'''


def stage(size, reads, source="caption_shapes", **options):
    """The config of a run that paints images of `size` pixels."""
    config = tiny_config("Painter", reads=reads, **options)
    config.data.update(source=source, resolution=size, channels=3, num_classes=8 if "label" in reads else 0)
    if "condition" in reads:
        config.data.corruptions.condition = section(name="low_resolution", factor=2)
    config.train.update(total_images=16, log_every_images=8)
    config.evaluate.at_end = False
    return config


def chain(*runs, size=32, **method):
    config = tiny_config("Painter")
    config.method = section(name="cascade", trust=("tiny_methods",), **method)
    config.init_from.pretrained = tuple(map(str, runs))
    config.train.total_images = 0
    config.data.update(source="caption_shapes", resolution=size, channels=3)
    config.evaluate.update(num=12, real=20, batch_size=6, metrics=("psnr", "attribute_accuracy"))
    return config


def written(config, path):
    path.write_text(CONFIG.format(what="A test.", text=to_json(config)))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`{name: workdir}`: a base that reads tokens, an upsampler of them too, and one that reads the picture alone."""
    folder = tmp_path_factory.mktemp("runs")
    reads = {"base": ("tokens",), "middle": ("condition", "tokens"), "top": ("condition",)}
    stages = {name: stage(8 * 2**i, reads[name], noise=0.1 * (i < 2)) for i, name in enumerate(reads)}
    for name, config in stages.items():
        file = written(config, folder / f"{name}.py")
        assert tiny.call(f"--config={file}", f"--workdir={folder / name}") == 0
    return {name: folder / name for name in stages}


@pytest.mark.slow
def test_one_command_samples_a_prompt_through_three_runs(runs, tmp_path):
    file, out = written(chain(*runs.values()), tmp_path / "chain.py"), tmp_path / "out"
    prompts = ["--prompt=a red star at the top", "--prompt=a blue ring at the left"]
    assert tiny.call(f"--config={file}", "--mode=sample", *prompts, "--num=4", f"--out={out}") == 0
    drawn = np.load(out / "samples.npz")
    assert drawn["images"].shape == (4, 32, 32, 3) and list(drawn["prompts"][:2]) == [p[9:] for p in prompts]
    assert drawn["stage_0"].shape == (4, 8, 8, 3) and drawn["stage_1"].shape == (4, 16, 16, 3)
    assert {"samples.png", "panel_stages.png"} <= {path.name for path in out.iterdir()}
    # the first stage draws what its own run draws for the same seed and prompt
    own = tmp_path / "own"
    word = [f"--workdir={runs['base']}", "--trust=tiny_methods"]
    assert tiny.call(*word, "--mode=sample", *prompts, "--num=4", f"--out={own}") == 0
    np.testing.assert_array_equal(np.load(own / "samples.npz")["images"], drawn["stage_0"])
    other = tmp_path / "other"
    prompt = "--prompt=a green circle at the bottom"
    assert tiny.call(f"--config={file}", "--mode=sample", prompt, f"--out={other}") == 0
    assert (np.load(other / "samples.npz")["images"][0] != drawn["images"][0]).mean() > 0.5


def test_each_stage_reads_what_the_one_before_gave(runs):
    config = chain(*runs.values())
    found = open_chain(config)
    drawn = found.generator.draw(found.model, 3, 6)
    top = restore(stage_configs(config)[2], runs["top"])  # which adds no noise
    before = to_float({"condition": jnp.asarray(drawn.more["stage_1"])})
    again = (np.tanh(top.generator.method.painted(top.model.params, before)) + 1) * 127.5
    assert np.abs(again - drawn.images).max() <= 3  # of 255; what is kept of a stage is rounded to levels
    assert np.abs(np.roll(again, 1, axis=0) - drawn.images).max() > 30


@pytest.mark.slow
def test_a_sample_does_not_depend_on_the_batch(runs):
    images = []
    for size in (1, 4):
        config = chain(*runs.values())
        config.evaluate.batch_size = size
        found = open_chain(config)
        images.append(found.generator.draw(found.model, 0, 4).images.astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1


@pytest.mark.nightly
def test_a_picture_of_the_user_s_goes_through_a_chain_of_upsamplers(runs, tmp_path, capsys):
    config = chain(runs["middle"], runs["top"])
    config.data.corruptions.condition = section(name="low_resolution", factor=4)
    config.evaluate.metrics = ("hint_error",)
    file, out = written(config, tmp_path / "chain.py"), tmp_path / "out"
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(photo)
    words = ["--mode=sample", "--prompt=a red star at the top", f"--out={out}"]
    assert tiny.call(f"--config={file}", *words, f"--image={photo}") == 0
    drawn = np.load(out / "samples.npz")
    assert drawn["images"].shape == (1, 32, 32, 3) and drawn["stage_0"].shape == (1, 16, 16, 3)
    own = [f"--workdir={runs['middle']}", "--trust=tiny_methods", f"--out={tmp_path / 'own'}"]
    assert tiny.call(*own, *words[:2], f"--image={photo}") == 0  # the first stage draws what its own run draws
    np.testing.assert_array_equal(np.load(tmp_path / "own" / "samples.npz")["images"], drawn["stage_0"])
    assert tiny.call(f"--config={file}", *words) == 0  # of held-out images' small copies
    capsys.readouterr()
    assert tiny.call(f"--config={file}", "--mode=evaluate") == 0
    assert json.loads(capsys.readouterr().out)["hint_error"]["n"] == 12
    for factor, told in ((2, "reads 'condition' of shape (8, 8, 3), and is given (16, 16, 3)"), (0, "'condition'")):
        config.data.corruptions = section(condition=section(name="low_resolution", factor=2)) if factor else section()
        config.evaluate.metrics = ()
        file = written(config, tmp_path / f"wrong_{factor}.py")
        assert tiny.call(f"--config={file}", *words) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_chain_is_evaluated_as_a_whole_and_its_numbers_have_a_folder_of_their_own(runs, tmp_path, capsys):
    file = written(chain(*runs.values()), tmp_path / "chain.py")
    assert tiny.call(f"--config={file}", "--mode=evaluate") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["psnr"]["n"] == 12 and 3 < printed["psnr"]["value"] < 60
    assert printed["attribute_accuracy"]["floor"] == 1
    folder = tmp_path / "numbers"
    assert tiny.call(f"--config={file}", "--mode=evaluate", f"--workdir={folder}") == 0
    kept = json.loads((folder / "metrics.json").read_text())
    assert kept["psnr"]["value"] == printed["psnr"]["value"]
    assert (folder / "report.html").exists() and not (folder / "config.json").exists()


@pytest.mark.slow
def test_labels_go_to_every_stage_that_reads_them(tmp_path):
    stages = [stage(8, ("label",), "shapes"), stage(16, ("condition", "label"), "shapes")]
    for i, config in enumerate(stages):
        assert tiny.call(f"--config={written(config, tmp_path / f'{i}.py')}", f"--workdir={tmp_path / str(i)}") == 0
    config = chain(tmp_path / "0", tmp_path / "1", size=16)
    config.data.update(source="shapes", num_classes=8)
    found = open_chain(config)
    drawn = found.generator.draw(found.model, 0, 4, labels=[3])
    assert (drawn.labels == 3).all()
    other = found.generator.draw(found.model, 0, 4, labels=[5])
    assert (drawn.images != other.images).any() and (drawn.more["stage_0"] != other.more["stage_0"]).any()
    with pytest.raises(UserError, match=r"--labels must be numbers from 0 to 7, not \[8\]"):
        found.generator.draw(found.model, 0, 1, labels=[8])


def model_of(**options) -> ChainStage:
    """A stage without a run."""
    options = {"image_shape": (8, 8, 3), **options}
    from tiny_methods import Painter

    reads = options.get("reads", ("tokens",))
    entries = options.pop("entries", {})
    name, made = options.pop("name", "runs/a"), options.pop("made", ())
    known = {"tokens": ((8,), np.int32), "condition": ((8, 8, 3), np.uint8), "mask": ((8, 8), np.int32), **entries}
    shapes = {name: known[name] for name in reads if name in known}
    return ChainStage(Painter(**options), name, options["image_shape"], shapes, made)


UP = dict(image_shape=(16, 16, 3), reads=("condition",), name="runs/b")


def test_images_are_fitted_to_the_size_that_the_next_stage_reads():
    half = Cascade((model_of(image_shape=(16, 16, 3)), model_of(**UP)))
    given = half._given_on(1, jnp.full((2, 16, 16, 3), 0.25))
    np.testing.assert_allclose(given, np.full((2, 8, 8, 3), 0.25), atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Prior(Plain):
    """Gives its label, and a random number, as an embedding."""

    gives = "embedding"
    conditions = ("label",)

    def sample(self, model, keys, batch):
        return {"embedding": jnp.stack([batch["label"] / 10, jax.vmap(jax.random.uniform)(keys)], axis=1)}


@dataclasses.dataclass(frozen=True)
class Decoder(Plain):
    """Draws the first number of an embedding, and a random number, as two greys."""

    conditions = ("embedding",)

    def sample(self, model, keys, batch):
        greys = jnp.stack([batch["embedding"][:, 0], jax.vmap(jax.random.uniform)(keys)], axis=1)
        return greys[:, None, :, None].repeat(2, axis=1)


def test_an_embedding_goes_from_a_prior_to_a_decoder():
    prior = ChainStage(Prior(), "runs/prior", (2, 2, 1), {"label": ((), np.int32)})
    decoder = ChainStage(Decoder(), "runs/decoder", (2, 2, 1), {"embedding": ((2,), np.float32)})
    keys, batch = jax.random.split(jax.random.key(0), 5), {"label": jnp.arange(5)}
    drawn = Cascade((prior, decoder)).sample(Model({}, {}), keys, batch)
    np.testing.assert_allclose(drawn["image"][:, 0, 0, 0], np.arange(5) / 10)
    # stages draw random numbers of their own, and sample i the same whatever is drawn beside it
    assert (np.abs(drawn["stage_0"][:, 1] - drawn["image"][:, 0, 1, 0]) > 1e-3).all()
    alone = Cascade((prior, decoder)).sample(Model({}, {}), keys[3:4], {"label": jnp.array([3])})
    np.testing.assert_array_equal(alone["image"][0], drawn["image"][3])
    wide = dataclasses.replace(decoder, entries={"embedding": ((3,), np.float32)})
    with pytest.raises(UserError, match=r"decoder\) reads 'embedding' of shape \(3,\), and is given \(2,\)"):
        Cascade((prior, wide)).sample(Model({}, {}), keys, batch)


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([{}], "A chain has two stages or more, not 1"),
        ([{}, dict(name="runs/b")], r"stage 0 \(runs/a\) gives an image, which stage 1 \(runs/b\) does not read: it"),
        ([dict(kind="embedding"), UP], "gives an embedding, which stage 1 .* does not read: it reads condition"),
        ([dict(image_shape=(8, 8, 1)), UP], "gives images of 8x8x1, and stage 1 .* reads 'condition' of 8x8x3"),
        ([dict(image_shape=(8, 12, 3)), UP], "gives images of 8x12x3, and .* the ratio of the sides"),
        ([{}, {**UP, "reads": ("condition", "mask"), "made": ("condition", "mask")}], "reads 'mask', .* no stage"),
        (
            [{}, {**UP, "reads": ("condition", "tokens"), "entries": {"tokens": ((9,), np.int32)}}],
            r"reads 'tokens' of shape \(8,\), and stage 1 .* of shape \(9,\)",
        ),
        (
            [{}, {**UP, "reads": ("low", "edges"), "entries": dict.fromkeys(("low", "edges"), ((8, 8, 3), np.uint8))}],
            r"reads several pictures \(low, edges\): say which .*overrides.stage_1.entry",
        ),
    ],
)  # fmt: skip
def test_stages_that_do_not_fit_are_one_sentence(stages, told):
    with pytest.raises(UserError, match=told):
        Cascade(tuple(model_of(**options) for options in stages))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c, runs: c.init_from.update(pretrained="runs/a"), "names 1: name two or more"),
        (lambda c, runs: c.init_from.update(pretrained=()), "names 0: name two or more"),
        (lambda c, runs: c.init_from.update(pretrained=("/nowhere", "/else")), "stage 0, /nowhere, is not the workdir"),
        (lambda c, runs: c.init_from.update(pretrained=(3, 4)), "must be a text"),
        (
            lambda c, runs: (c.method.update(name="ddpm"), c.train.update(total_images=1)),
            "names several runs, which the method cascade samples",
        ),
        (lambda c, runs: c.method.update(trust=()), "would run code of .*name it in config.method.trust=..tiny"),
        (lambda c, runs: c.data.update(resolution=16), "has images of 32x32x3, and this config of 16x16x3"),
        (lambda c, runs: c.data.update(source="shapes"), "the words of caption_shapes, which are others"),
        (lambda c, runs: c.sampler.update(steps=3), "set config.method.overrides.stage_<number>.sampler"),
        (lambda c, runs: c.method.update(overrides=section(stage_7=section())), "stage_7 does not exist"),
        (lambda c, runs: c.method.update(overrides=section(stage_1=section(data=1))), "stage_1.data does not exist"),
        (lambda c, runs: c.method.update(overrides=section(stage_1=section(sampler=1))), "must be a section with keys"),
        (
            lambda c, runs: c.method.update(overrides=section(stage_1=section(sampler=section(steps=3)))),
            "stage 1 .*takes no sampler",
        ),
        (lambda c, runs: c.method.update(overrides=section(stage_1=section(entry="mask"))), "does not read as 'mask'"),
    ],
)
def test_a_wrong_chain_is_one_sentence(runs, change, told):
    config = ConfigDict(chain(*runs.values()).to_dict(), type_safe=False)
    change(config, runs)
    with pytest.raises(UserError, match=told):
        open_chain(config)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mode=train", "--workdir={new}"], "a cascade does not train: train each stage by its own config"),
        (["--mode=plan", "--topology=cpu:1"], "--mode=plan is for one model, and a cascade does not train"),
        (["--mode=sample", "--workdir={new}", "--out={new}"], "leave --workdir out"),
        (["--mode=sample"], "--out is needed in --mode=sample"),
        (["--mode=sample", "--out={new}", "--checkpoint=16"], "is a step of one run, and a chain has several"),
        (["--mode=sample", "--out={new}", "--labels=1"], "not conditional on labels"),
        (["--mode=evaluate", "--workdir={top}"], "holds a run, whose numbers those of the chain would replace"),
        (["--mode=evaluate", "--config.evaluate.metrics=('token_accuracy',)"], "measures tokens, and this 'cascade'"),
    ],
)
def test_what_a_chain_cannot_do_is_one_sentence_and_nothing_is_written(runs, tmp_path, words, told, capsys):
    file, new = written(chain(*runs.values()), tmp_path / "chain.py"), tmp_path / "new"
    status = tiny.call(f"--config={file}", *(word.format(new=new, top=runs["top"]) for word in words))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxgen: ")]
    assert status == 2 and len(said) == 1 and told in said[0]
    assert not new.exists() or not any(new.iterdir())


def test_a_stage_s_sampler_is_changed_by_overrides(tmp_path):
    config = tiny.load(tiny.write_config(tmp_path)).get_config()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(to_json(config))
    chained = chain(tmp_path / "run", tmp_path / "run", size=8)
    chained.method.overrides = section(
        stage_0=section(sampler=section(steps=2)), stage_1=section(sampler=section(name="ddpm", steps=7))
    )
    first, second = (make.sampler for make in stage_configs(chained))
    assert (first.name, first.steps) == ("ddim", 2) and (second.name, second.steps) == ("ddpm", 7)
    with pytest.raises(UserError, match="has no finished checkpoint; train that run first"):
        make_method(chained)
    (tmp_path / "run" / "config.json").write_text(to_json(chained))
    with pytest.raises(UserError, match=r"method\.trust is for a config of your own; a run's files may not trust"):
        stage_configs(chained)
    del chained.method["trust"]
    (tmp_path / "run" / "config.json").write_text(to_json(chained))
    with pytest.raises(UserError, match="is itself a chain"):
        stage_configs(chained)


def test_a_library_cannot_train_a_chain(runs, tmp_path):
    from jaxgen.train.loop import Trainer

    with pytest.raises(UserError, match="do not train|does not train"):
        Trainer(chain(*runs.values()), tmp_path / "run")
    assert jax.tree.leaves(open_chain(chain(*runs.values())).model.params) and not (tmp_path / "run").exists()

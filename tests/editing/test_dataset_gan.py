"""DatasetGAN: a generator's layers as features of its own images, the filter, and the pairs that are written."""

from __future__ import annotations

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.data import open_source
from jaxgen.editing.dataset_gan import __main__ as command
from jaxgen.editing.dataset_gan import commands
from jaxgen.editing.dataset_gan.pairs import Painter, Pairs
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.gans import codes
from jaxgen.methods.segmentation.features import GeneratorLayers
from jaxgen.methods.segmentation.segmentation import Segmentation

SHAPE = (8, 8, 3)


def gan(name="stylegan2", generator=(), **options):
    sampler = {"name": "truncation", "truncation": 0.7} if name == "stylegan2" else {"name": "truncated_normal"}
    parts = {
        "stylegan2": ({"name": "style2_generator", "z_dim": 4, "w_dim": 4, "depth": 1, "channels": 4},
                      {"name": "style2_discriminator", "channels": 4}),
        "gan": ({"name": "dcgan_generator", "z_dim": 4, "channels": 4},
                {"name": "dcgan_discriminator", "channels": 4}),
    }[name]  # fmt: skip
    found = {"generator": section(**{**parts[0], **dict(generator)}), "discriminator": section(**parts[1])}
    given = {"image_shape": SHAPE, "num_classes": 0, "sampler": build(section(**sampler), "gan_sampler", "s")}
    return build(section(name=name, **found, **options), "method", "config.method", **given)


def begun(method):
    batch = {"image": jnp.zeros((2, *SHAPE))}
    params, memory = jax.jit(lambda key: method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    chance = np.random.default_rng(0)
    return Model(jax.tree.map(lambda x: x + 0.2 * chance.normal(size=x.shape).astype(np.float32), params), memory)


@pytest.fixture(scope="module")
def painter():
    method = gan()
    return Painter.of(method, begun(method))


@pytest.fixture(scope="module")
def drawn(painter):
    return painter.draw(0, 6)


def heads(trained, **options):
    common = {"features": GeneratorLayers(), "classes": 2, "image_shape": SHAPE, "members": 3, "pixels": 128}
    return Segmentation(**{**common, "trained": trained, **options})


def test_a_code_makes_its_image_again_after_it_was_written_and_read(painter, drawn, tmp_path):
    assert {*drawn} == {"image", "code_z", "code_key", "code_truncation"} == {"image", *codes.names(painter.gan)}
    commands.write_arrays(tmp_path / "codes.npz", drawn)
    found = commands.read_codes(tmp_path / "codes.npz")
    source = open_source(f"npz:{tmp_path / 'codes.npz'}", "all", 8, 3)
    batch = {name: jnp.asarray(values) for name, values in source.take([4, 1]).items()}
    again = jax.jit(lambda m, b: painter.gan.sample_from_z(m, codes.read(painter.gan, b), b))(painter.model, batch)
    np.testing.assert_allclose(np.asarray(again), drawn["image"][[4, 1]] / 127.5 - 1, atol=0.5 / 127.5 + 1e-4)
    np.testing.assert_array_equal(found["code_key"], drawn["code_key"])
    assert len(np.unique(drawn["image"].reshape(6, -1), axis=0)) == 6


@pytest.mark.slow
def test_masks_that_a_layer_tells_are_learned_and_hold_for_new_images(painter, drawn):
    """The mask is where a channel of a layer is high: features that were shifted by a pixel would not tell it."""
    method, count = heads(painter.gan), 24
    arrays = painter.draw(0, count)
    batch = {name: jnp.asarray(values) for name, values in arrays.items() if name != "image"}
    batch["image"] = jnp.asarray(arrays["image"] / 127.5 - 1, jnp.float32)
    layers = jax.jit(lambda m, b: GeneratorLayers().maps(painter.gan, m, b))(painter.model, batch)
    assert [x.shape for x in layers] == [(count, 4, 4, 8), (count, 8, 8, 4), (count, 8, 8, 4)]
    own = layers[-1][..., 0]
    batch["mask"] = (own > jnp.median(own)).astype(jnp.int32)
    train = {name: values[:16] for name, values in batch.items()}
    learned, memory = jax.jit(lambda key: method.init(key, train, 0, painter.model.params, {}, painter.model.memory))(
        jax.random.key(1)
    )
    frozen = painter.model.params
    features = jax.jit(method.extract)(Model(frozen, painter.model.memory), train)

    @jax.jit
    def step(carried, key):
        def loss(part):
            return method.head_loss(part, features, train["mask"], key, carried[1])

        slope, (_, changed) = jax.grad(loss, has_aux=True)(carried[0])
        return (jax.tree.map(lambda p, g: p - 0.2 * g, carried[0], slope), changed["heads"])

    carried = (learned["heads"], memory["heads"])
    for i in range(100):
        carried = step(carried, jax.random.key(i))
    model = Model({**frozen, "heads": carried[0]}, {**painter.model.memory, "heads": carried[1]})
    # the images of the seed are drawn again, by their numbers alone, and those that were not learned from are right
    pairs = painter.pairs(method, model, 0, count)
    np.testing.assert_array_equal(pairs.images, arrays["image"])
    np.testing.assert_array_equal(arrays["code_z"][:6], drawn["code_z"])
    assert (pairs.masks == np.asarray(batch["mask"]))[16:].mean() > 0.9 and pairs.doubt.min() >= 0


def test_modules_of_any_generator_are_features_by_their_names():
    method = gan("gan", {"norm": "layer"})
    made = Painter.of(method, begun(method))
    batch = {name: jnp.asarray(values) for name, values in made.draw(0, 2).items()}
    maps = jax.jit(lambda m, b: GeneratorLayers(("norm_start", "image")).maps(method, m, b))(made.model, batch)
    np.testing.assert_allclose(np.tanh(maps[1]), batch["image"] / 127.5 - 1, atol=0.5 / 127.5 + 1e-4)
    with pytest.raises(UserError, match="no style-based generator, whose layers are known: name modules"):
        GeneratorLayers().check(method)
    with pytest.raises(UserError, match="no module 'norm_9'; did you mean"):
        jax.eval_shape(lambda m, b: GeneratorLayers(("norm_9",)).maps(method, m, b), made.model, batch)


def test_the_filter_drops_the_most_uncertain_images():
    doubt = np.zeros((10, 2, 2), np.float32)
    doubt[:, 0, 0] = [5, 1, 9, 3, 8, 2, 7, 4, 6, 0]
    doubt[1] = 4  # little at each pixel, and the most of all in sum
    pairs = Pairs(np.zeros((10, 2, 2, 3), np.uint8), np.zeros((10, 2, 2), np.uint8), doubt)
    assert np.flatnonzero(~pairs.certain(0.3)).tolist() == [1, 2, 4]
    assert pairs.certain(0.0).all() and commands.pair_arrays(pairs, pairs.certain(0.3))["train_image"].shape[0] == 7
    for drop in (1.0, -0.1, 0.99, float("nan")):
        with pytest.raises(UserError, match="give a share from 0 to below 1"):
            pairs.certain(drop)


def test_pairs_and_real_images_are_read_as_data(tmp_path):
    chance = np.random.default_rng(0)
    masks = chance.integers(0, 3, (5, 8, 8)).astype(np.uint8)
    pairs = Pairs(chance.integers(0, 256, (5, *SHAPE), np.uint8), masks, np.zeros((5, 8, 8), np.float32))
    real = commands.held_out("caption_shapes:halves", 4, SHAPE)
    commands.write_arrays(tmp_path / "p.npz", {**commands.pair_arrays(pairs, pairs.certain(0.2)), **real})
    train, test = (open_source(f"npz:{tmp_path / 'p.npz'}", split, 8, 3) for split in ("train", "test"))
    assert len(train) == 4 and len(test) == 4
    np.testing.assert_array_equal(train[3]["mask"], masks[3])
    assert test[0]["mask"].dtype == np.int32 and {1, 2} <= {*np.unique(real["test_mask"])}


def test_masks_of_a_user_are_read_in_order(drawn, tmp_path):
    for number in (0, 1):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number:05d}.png")
    masks = commands.read_masks(tmp_path, drawn["image"])
    assert masks.shape == (2, 8, 8) and masks[1].min() == 1
    found = commands.labelled(drawn, masks, 1)
    np.testing.assert_array_equal(found["test_code_z"], drawn["code_z"][1:2])
    assert found["train_mask"].shape == (1, 8, 8)
    with pytest.raises(UserError, match="--train=3, and 2 images have masks"):
        commands.labelled(drawn, masks, 3)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "00003.png")
    with pytest.raises(UserError, match="has no 00002.png: label the images in their order"):
        commands.read_masks(tmp_path, drawn["image"])
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(tmp_path / "00002.png")
    with pytest.raises(UserError, match="has 8x4 pixels and its image 8x8"):
        commands.read_masks(tmp_path, drawn["image"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda g: GeneratorLayers().check(None), "a GAN's generator, and there is none"),
        (lambda g: GeneratorLayers().check(heads(g)), "a GAN's generator, and .* a run of Segmentation"),
        (lambda g: codes.check(heads(g)), "images have no codes: name a run of a GAN"),
        (lambda g: commands.labeller_of(SimpleNamespace(generator=SimpleNamespace(method=g))), "need one of the met"),
        (lambda g: heads(g).extract(Model({}, {}), {"image": jnp.zeros((1, *SHAPE))}), "reads the entry 'code_key'"),
        (lambda g: commands.held_out("caption_shapes", 4, SHAPE), "has no masks"),
        (lambda g: commands.held_out("caption_shapes:halves", 10_000, SHAPE), "has 1000 held-out images"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make, words, painter):
    with pytest.raises(UserError, match=words):
        make(painter.gan)


def test_the_command_refuses_before_it_reads(tmp_path, capsys):
    for words, said in (
        (["label", "--codes=c.npz", f"--out={tmp_path / 'x.npz'}"], "give one of the two"),
        (["pairs", "--workdir=nowhere", f"--out={tmp_path / 'x.npz'}", "--drop=1"], "--drop=1: give a share"),
        (["draw", "--workdir=nowhere", f"--out={tmp_path / 'd'}"], "holds no run"),
    ):
        assert command.main(words) == 2 and re.search(said, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_gan_labels_its_own_images_from_end_to_end(tmp_path, capsys):
    common = (
        "--config.data.resolution=8", "--config.train.batch_size=8", "--config.train.log_every_images=8",
        "--config.train.checkpoint_every_images=16", "--config.train.sample_every_images=0",
        "--config.train.tensorboard=False", "--config.evaluate.at_end=False", "--config.train.total_images=16",
    )  # fmt: skip
    configs, small = tiny.ROOT / "configs", ("--config.method.members=2", "--config.method.pixels=64")
    generator = ("z_dim=4", "w_dim=4", "depth=1", "channels=4", "max_channels=8")
    words = [f"--config.method.generator.{word}" for word in generator]
    words += ["--config.method.discriminator.channels=4", "--config.method.discriminator.max_channels=8"]
    words += ["--config.method.path_length=0.0", "--config.method.r1=0.0"]
    run = {name: tmp_path / name for name in ("gan", "heads")}
    assert tiny.call(f"--config={configs / 'stylegan2_shapes.py'}", f"--workdir={run['gan']}", *words, *common) == 0
    assert command.main(["draw", f"--workdir={run['gan']}", f"--out={tmp_path / 'drawn'}", "--num=9"]) == 0
    pictures = sorted((tmp_path / "drawn" / "images").iterdir())
    (tmp_path / "masks").mkdir()
    for path in pictures:
        mask = (np.asarray(Image.open(path)).mean(-1) > 100).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / path.name)
    label = ["label", f"--codes={tmp_path / 'drawn' / 'codes.npz'}", f"--masks={tmp_path / 'masks'}", "--train=8"]
    assert command.main([*label, f"--out={tmp_path / 'labelled.npz'}"]) == 0
    own = (f"--config.data.source=npz:{tmp_path / 'labelled.npz'}", f"--config.init_from.pretrained={run['gan']}")
    words = (f"--config={configs / 'dataset_gan_shapes.py'}", f"--workdir={run['heads']}", *own, *small, *common)
    assert tiny.call(*words) == 0
    capsys.readouterr()
    pairs = ["pairs", f"--workdir={run['heads']}", "--num=20", "--drop=0.25", "--real=caption_shapes:halves"]
    assert command.main([*pairs, f"--out={tmp_path / 'p.npz'}", "--real_num=3", f"--picture={tmp_path / 'p.png'}"]) == 0
    assert "20 pairs drawn, 5 dropped, 15 written" in capsys.readouterr().out
    source = open_source(f"npz:{tmp_path / 'p.npz'}", "train", 8, 3)
    assert len(source) == 15 and (tmp_path / "p.png").exists()
    assert tiny.call(f"--workdir={run['heads']}", "--mode=sample", "--num=1", f"--out={tmp_path / 'own'}") == 0

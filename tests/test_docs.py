"""The examples in the README and the docs run as they stand."""

import ast
import dataclasses
import importlib
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from ml_collections import ConfigDict
from tiny_methods import ddpm_config

from jaxgen.config import check, defaults, section
from jaxgen.data.source import Request
from jaxgen.diffusion import prediction_types, schedules
from jaxgen.diffusion.guidance import GuidanceInputs
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Prediction, denoiser
from jaxgen.diffusion.samplers.edm import EDM
from jaxgen.diffusion.spacing import time_grid
from jaxgen.errors import UserError
from jaxgen.evaluation.evaluate import evaluate
from jaxgen.methods.base import Model
from jaxgen.metrics.networks.base import Features
from jaxgen.metrics.summary import Summary
from jaxgen.sampling.chains import open_chain
from jaxgen.train.loop import Trainer

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += [ROOT / folder / "README.md" for folder in ("studies", "benchmarks", "results")]


def _blocks(path: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.S)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_a_page_and_a_heading_that_are_there(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert anchor in map(_anchor, headings), f"{page}: {link}"


def test_every_number_of_the_advice_is_one_of_the_results():
    """docs/choosing.md claims nothing that was not measured."""
    measured = " ".join(path.read_text() for path in (ROOT / "docs" / "results").glob("*.md"))
    text = re.sub(r"\[arXiv:[^)]*\)", "", (ROOT / "docs" / "choosing.md").read_text())
    numbers = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\w)", text))
    assert len(numbers) > 50
    assert not {number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", measured)}


def test_the_readme_samples_from_a_function_without_a_config():
    scope: dict = {}
    exec(_blocks("README.md")[0], scope)
    assert scope["images"].shape == (16, 32, 32, 3)
    assert np.isfinite(np.asarray(scope["images"])).all()


@pytest.mark.slow
def test_the_method_in_the_docs_trains(tmp_path, monkeypatch):
    method, config_line = _blocks("docs/methods.md")
    (tmp_path / "restore_example.py").write_text(method)
    monkeypatch.syspath_prepend(tmp_path)
    config: ConfigDict = defaults()
    exec(config_line, {"config": config, "section": section})
    config.method.update(name="restore_example:Restore")
    config.method.network.update(channels=8, channel_multipliers=(1, 2), blocks=1, norm_groups=4)
    config.data.update(source="digits", resolution=8, channels=1)
    config.train.update(batch_size=16, total_images=160, log_every_images=32, tensorboard=False)
    check(config)
    trainer = Trainer(config, tmp_path / "run")
    before = jax.device_get(trainer.state.params)
    assert trainer.train()
    changed = jax.tree.map(lambda a, b: float(abs(a - b).max()), before, jax.device_get(trainer.state.params))
    assert max(jax.tree.leaves(changed)) > 0


def _recipes() -> dict[str, tuple[str, ...]]:
    """`{heading: (a module, the lines of a config that use it)}` of docs/extending.md; a chain has a config more."""
    sections = re.split(r"^## ", (ROOT / "docs" / "extending.md").read_text(), flags=re.M)[1:]
    found = {text.partition("\n")[0]: re.findall(r"```python\n(.*?)```", text, re.S) for text in sections}
    assert all(len(blocks) == 2 + (heading == "A chain") for heading, blocks in found.items())
    return {heading: tuple(blocks) for heading, blocks in found.items()}


def _leaves(tree) -> dict[tuple[str, ...], np.ndarray]:
    found = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return {tuple(str(key.key) for key in path): leaf for path, leaf in found}


def _train_base(lines: str, folder: pathlib.Path) -> None:
    """Trains the run that the lines name as `init_from.pretrained`: a tiny DDPM with attention."""
    for place in re.findall(r'init_from\.pretrained = "([\w/]+)"', lines):
        base = ddpm_config(middle_attention=True)
        base.train.update(total_images=16, tensorboard=False)
        running.run(base, folder / place)


@pytest.mark.nightly
@pytest.mark.parametrize("recipe", _recipes())
def test_every_recipe_trains_and_is_sampled_or_scored(recipe, tmp_path, monkeypatch):
    module, lines, *_ = _recipes()[recipe]
    monkeypatch.chdir(tmp_path)
    _train_base(lines, tmp_path)
    (tmp_path / re.match(r"# (\w+\.py)\n", module)[1]).write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    config: ConfigDict = defaults()
    exec(lines, {"config": config, "section": section})
    config.train.update(batch_size=16, total_images=128, log_every_images=32, tensorboard=False)
    check(config)
    trainer = Trainer(config, tmp_path / "run")
    before = _leaves(trainer.state.params)
    assert trainer.train()
    after, model = _leaves(trainer.state.params), trainer.model()
    changed = {path[0] for path in before if np.any(before[path] != after[path])}
    assert changed == set(trainer.state.params)
    if trainer.method.samples_images:
        images = trainer.generator.images(model, 0, 4).images
        assert len(images) == 4 and len(np.unique(images)) > 1
        numbers = evaluate(trainer.generator, model)
        assert len(numbers) >= len(config.evaluate.metrics)
        assert all(np.isfinite(entry["value"]) and entry["n"] for entry in numbers.values())
    else:
        scores = trainer.generator.scores(model, 0, trainer.generator.source("test"))
        assert all(np.isfinite(values).all() for values in scores.values())


@pytest.mark.slow
def test_the_recipe_of_a_chain_samples_and_is_evaluated(tmp_path, monkeypatch):
    module, stage, chain = _recipes()["A chain"]
    (tmp_path / "my_enlargers.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    base = section(
        name="gan",
        generator=section(name="mlp_generator", z_dim=4, widths=(32,)),
        discriminator=section(name="mlp_discriminator", widths=(32,)),
    )
    lines = {"base": "config.data.update(source='digits', resolution=4, channels=1)", "enlarger": stage}
    for name, said in lines.items():
        config: ConfigDict = defaults()
        config.method = base
        exec(said, {"config": config, "section": section})
        config.train.update(batch_size=16, total_images=64, log_every_images=32, tensorboard=False)
        running.run(config, tmp_path / "runs" / name)
    config = defaults()
    exec(chain, {"config": config, "section": section})
    found = open_chain(config)
    drawn = found.generator.draw(found.model, 0, 4)
    assert drawn.images.shape == (4, 8, 8, 1) and drawn.more["stage_0"].shape == (4, 4, 4, 1)
    assert np.isfinite(evaluate(found.generator, found.model)["frechet_digits"]["value"])


@pytest.mark.parametrize("page", ["step.md", "errata.md"])
def test_the_pages_name_functions_that_are_there(page):
    named = re.findall(r"`([\w/]+\.py)(?:: ([\w.]+))?`", (ROOT / "docs" / page).read_text())
    assert len(named) > 30
    for file, name in named:
        body = ast.parse((ROOT / file).read_text()).body
        for part in name.split(".") if name else ():
            found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
            assert found, f"docs/{page}: {file} has no {name}"
            body = found[0].body


def _section_blocks(path: str, heading: str) -> list[str]:
    """The Python blocks below one heading of a page."""
    text = (ROOT / path).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_worked_example_of_a_solvers_coefficients_is_right():
    (block,) = _section_blocks("docs/samplers.md", "A solver as a table: one worked example")
    assert block.count("assert") > 6
    exec(block, {})


@pytest.mark.slow
def test_ddpm_in_one_piece_learns_and_samples_as_the_sampler_does():
    scope: dict = {}
    exec(_section_blocks("docs/ddpm.md", "The whole method in one piece")[0], scope)
    jg, x0 = scope["jg"], jnp.tanh(jax.random.normal(jax.random.key(0), (8, 8, 8, 1)))
    params = scope["network"].init(jax.random.key(1), x0, jnp.zeros(8))["params"]
    state, losses = scope["optimizer"].init(params), []
    for i in range(30):
        losses.append(scope["loss"](params, x0, jax.random.key(9)))
        params, state = scope["train_step"](params, state, x0, jax.random.key(i))
    assert losses[-1] < 0.95 * losses[0]
    keys = jax.random.split(jax.random.key(2), 3)
    start = jg.per_image_noise(keys, 0, (8, 8, 1))
    denoise = jg.denoiser(
        scope["schedule"], jg.Epsilon(), lambda x, time: scope["network"].apply({"params": params}, x, time)
    )
    want = jg.DDPM(steps=20, clip=False)(denoise, scope["schedule"], start, keys)
    np.testing.assert_allclose(scope["sample"](params, start, keys, steps=20), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("churn", [{}, {"s_churn": 3.0, "s_min": 0.05, "s_max": 60.0, "s_noise": 1.01}])
def test_algorithm_2_of_edm_in_one_piece_is_the_class(churn):
    scope: dict = {}
    exec(_section_blocks("docs/samplers_stochastic.md", "EDM's Algorithm 2, in one piece")[0], scope)
    schedule, steps, keys = schedules.EDM(), 7, jax.random.split(jax.random.key(0), 4)
    denoise = denoiser(schedule, prediction_types.EDM(), lambda x, time: jnp.tanh(x + 0.1 * time[:, None]))
    levels = schedule.sigma(time_grid("karras", steps, schedule))
    start = levels[0] * per_image_noise(keys, 0, (5,))

    def draw(i):  # as the class numbers its rows, two a step
        return per_image_noise(keys, 2 * i if i else 2 * steps, (5,))

    got = scope["algorithm_2"](lambda x, level: denoise(x, level / schedule.sigma_max).x0, levels, start, draw, **churn)
    np.testing.assert_allclose(got, EDM(steps, **churn)(denoise, schedule, start, keys), rtol=1e-4, atol=1e-4)


@pytest.fixture(name="recipe")
def _recipe(tmp_path, monkeypatch):
    """The class that a recipe of docs/extending.md names: `recipe(heading, name)`."""
    monkeypatch.syspath_prepend(tmp_path)

    def found(heading, name):
        module = _recipes()[heading][0]
        file = re.match(r"# (\w+)\.py\n", module)[1]
        (tmp_path / f"{file}.py").write_text(module)
        monkeypatch.delitem(sys.modules, file, raising=False)
        return getattr(importlib.import_module(file), name)

    return found


def test_the_recipe_of_a_graft_scales_what_it_chooses(recipe):
    scales = recipe("A graft", "Scales")(where="key$")
    params = {"denoiser": {"key": {"kernel": jnp.ones((2, 3))}, "value": {"kernel": jnp.ones((2, 3))}}}
    part = scales.start("scales", jax.random.key(0), None, params, {})
    assert set(part) == {"key"} and (part["key"] == 1).all()
    hooked = sys.modules[type(scales).__module__].hooks({"a|key": jnp.asarray([1.0, 2.0, -1.0])})
    np.testing.assert_array_equal(hooked["a/key"](jnp.ones((2, 3)), None), [[1.0, 2.0, -1.0]] * 2)
    with pytest.raises(UserError, match="grafts.scales: no layer.s path .* one of them.*: key, value"):
        dataclasses.replace(scales, where="query").start("scales", jax.random.key(0), None, params, {})


def test_the_recipe_of_a_solver_is_exact_on_a_straight_path(recipe):
    """v = (x - x0) / t towards the only image x0: the path is straight, and every consistent solver is exact."""
    flow, x0 = schedules.RectifiedFlow(), jnp.asarray([[0.3, -0.8]])
    denoise = denoiser(flow, prediction_types.X0(), lambda x, time: jnp.broadcast_to(x0, x.shape))
    keys = jax.random.split(jax.random.key(0), 3)
    start = per_image_noise(keys, 0, (2,))
    midpoint, euler = (recipe("A solver", name) for name in ("Midpoint", "FlowEuler"))
    for sampler, evaluations in ((midpoint(4, variable="time"), 7), (euler(4), 4)):
        got = sampler(denoise, flow, start, keys, times=np.asarray([1.0, 0.7, 0.4, 0.25]))
        np.testing.assert_allclose(got, 0.25 * start + 0.75 * x0, atol=1e-5)
        assert sampler.evaluations == evaluations


@pytest.mark.slow
def test_the_recipe_that_grows_keeps_what_it_learned_and_draws_finer_images(recipe):
    up, down, progressive = (recipe("A method that grows", name) for name in ("Up", "Down", "Progressive"))
    method = progressive(up((8, 8, 1)), down(), (8, 8, 1), grow_at=(32, 64))
    assert [stage for _, stage in method.stages] == [0, 1, 2]
    key, batch, params, memory = jax.random.key(0), {"image": jnp.zeros((4, 8, 8, 1))}, {}, {}
    for stage in (0, 1):
        before = _leaves(params)
        init = jax.jit(lambda key, params, memory, s=stage: method.init(key, batch, s, {}, params, memory))
        params, memory = init(jax.random.fold_in(key, stage), params, memory)
        after = _leaves(params)
        assert before.keys() <= after.keys() and all((after[path] == before[path]).all() for path in before)
        new = {path[1] for path in after.keys() - before.keys()}
        assert new == ({"conv_0"} if stage else {"start", "image", "logit"})
        images = method.sample(Model(params, memory, stage), jax.random.split(key, 3), {})
        blocks = images.reshape(3, 4, 2, 4, 2).std(axis=(2, 4))
        assert images.shape == (3, 8, 8, 1) and (blocks.max() > 1e-3) == bool(stage)


def test_the_recipes_of_diffusion_do_what_they_say(recipe):
    schedule, t = recipe("A schedule", "LinearLogSNR")(high=12.0), np.linspace(0, 1, 9)
    assert schedule.log_snr(0.0) == 12 and schedule.log_snr(1.0) == -10
    np.testing.assert_allclose(schedule.t_from_log_snr(schedule.log_snr(t)), t, atol=1e-12)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=1e-12)
    drawn, weights = recipe("A timestep sampler", "BetaTimes")(a=3.0).sample(jax.random.key(0), 2000, schedule)
    np.testing.assert_allclose(drawn.mean(), 0.75, atol=0.02)  # a / (a + b)
    assert (weights == 1).all()
    of_x0 = recipe("A weighting", "SoftMinSNR")(gamma=3.0).of_x0(schedule, jnp.asarray([-9.0, 9.0]))
    np.testing.assert_allclose(of_x0, [np.exp(-9.0), 3.0], rtol=1e-3)

    def model(x, t, label):
        return Prediction(x + label[:, None], x, jnp.broadcast_to(t, x.shape[:1]), schedule, prediction_types.X0())

    x, label = jnp.ones((2, 3)), jnp.asarray([1.0, 2.0])
    inputs = GuidanceInputs(model, {"label": label}, {"label": jnp.zeros(2)})
    guided = recipe("A guidance", "FadingGuidance")(scale=3.0)(inputs)
    np.testing.assert_allclose(guided(x, 0.0).x0, x + label[:, None])
    np.testing.assert_allclose(guided(x, 1.0).x0, x + 3 * label[:, None])


def test_the_recipes_of_metrics_and_of_data_do_what_they_say(recipe):
    images = np.zeros((2, 4, 6, 1), np.uint8)
    images[0, :2, 3:] = 255  # the upper right quarter
    network = recipe("A feature network", "Quarters")()
    np.testing.assert_allclose(network(images).features, [[0, 1, 0, 0], [0, 0, 0, 0]])

    metric = recipe("A metric", "Spikiness")(power=3.0)
    samples, reference = (Summary.of(Features(np.asarray(x))) for x in ([[1.0, -2.0], [0.0, 2.0]], [[0.0, 1.0]] * 2))
    assert metric.value(samples, reference).value == pytest.approx(np.hypot(0.5, 7.0))
    assert metric.value(samples, samples).value == 0

    request = Request("my_sources:Stripes:2", "2", "train", (4, 6), 3, num_classes=2)
    source = recipe("A data source", "Stripes")(request)
    for index in range(4):
        example = source[index]
        lines = example["image"] if index % 2 else example["image"].swapaxes(0, 1)
        assert example["image"].shape == (4, 6, 3) and example["label"] == index % 2
        assert (lines == lines[:, :1]).all() and len(np.unique(lines[:, 0])) == 2
    assert len(source) == 1000
    with pytest.raises(IndexError):
        source[1000]


def test_the_recipe_of_a_corruption_takes_every_other_row_away(recipe):
    image = jnp.arange(24.0).reshape(6, 4, 1) / 24
    for key in jax.random.split(jax.random.key(0), 6):
        picture, mask = recipe("A corruption", "Interlaced")(missing=-1.0)(key, image)
        rows = np.asarray(mask)[:, 0]
        assert rows.tolist() in ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0])
        np.testing.assert_array_equal(picture[rows == 0], image[rows == 0])
        assert (np.asarray(picture)[rows == 1] == -1).all()

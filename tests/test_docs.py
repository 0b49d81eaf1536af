"""The examples in the README and the docs run as they stand."""

import ast
import pathlib
import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.config import check, defaults, section
from jaxgen.train.loop import Trainer

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("studies", "benchmarks")]


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


def _recipes() -> dict[str, tuple[str, str]]:
    """`{heading: (a module, the lines of a config that use it)}` of docs/extending.md."""
    sections = re.split(r"^## ", (ROOT / "docs" / "extending.md").read_text(), flags=re.M)[1:]
    found = {text.partition("\n")[0]: re.findall(r"```python\n(.*?)```", text, re.S) for text in sections}
    assert all(len(blocks) == 2 for blocks in found.values()), "a recipe is a module and the lines of a config"
    return {heading: tuple(blocks) for heading, blocks in found.items()}


def _leaves(tree) -> dict[tuple[str, ...], np.ndarray]:
    found = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return {tuple(str(key.key) for key in path): leaf for path, leaf in found}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", _recipes())
def test_every_recipe_trains_and_is_sampled_or_scored(recipe, tmp_path, monkeypatch):
    module, lines = _recipes()[recipe]
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
    else:
        scores = trainer.generator.scores(model, 0, trainer.generator.source("test"))
        assert all(np.isfinite(values).all() for values in scores.values())


def test_the_page_of_one_step_names_functions_that_are_there():
    named = re.findall(r"`([\w/]+\.py)(?:: ([\w.]+))?`", (ROOT / "docs" / "step.md").read_text())
    assert len(named) > 40
    for file, name in named:
        body = ast.parse((ROOT / file).read_text()).body
        for part in name.split(".") if name else ():
            found = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
            assert found, f"docs/step.md: {file} has no {name}"
            body = found[0].body

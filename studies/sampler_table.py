"""Compares solvers by network evaluations on one trained model, in the form of Song et al. (2020, DDIM), Table 1.

    python -m studies.sampler_table --workdir=runs/ddpm_digits --evaluations=5,10,20,50,100,1000 --num=2000

For each solver and budget it takes as many steps as the budget allows, draws `num` images with the EMA model from the
same starting noise, and appends one JSON line to --out (by default WORKDIR/sampler_table.jsonl). The same command goes
on where it stopped and prints the whole table as Markdown. Solvers are named as in `config.sampler`, with fields behind
colons: `ddim:eta=1`, `edm:s_churn=10:spacing=karras`; a bare word is the value of the field that knows it:
`ddpm:large`.
"""

from __future__ import annotations

import ast
import dataclasses
import logging
import sys
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen import registry
from jaxgen.build import build
from jaxgen.config import section
from jaxgen.diffusion.budget import within_budget
from jaxgen.errors import UserError
from jaxgen.metrics.choice import open_network
from jaxgen.metrics.distributions.classes import class_accuracy
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.distributions.kernel import kid
from jaxgen.metrics.images import EvaluationImages
from jaxgen.runs.setup import make_method
from jaxgen.sampling.generator import Generator, Samples
from studies import harness

EXTRA = ("ddpm:large", "ddim:eta=1")  # beside each solver of the room
ADAPTIVE = ("ode",)  # takes as many evaluations as its tolerance asks for
NETWORKS = {"digits": "digits", "tfds:fashion_mnist": "fashion"}  # the classifier of a data set
# column of a row: its title, what it is multiplied by in the table
DISTANCES = {"frechet": ("Fréchet distance", 1), "kid": ("Kernel distance x 1000", 1000)}

log = logging.getLogger("jaxgen")


def every_solver() -> list[str]:
    """Returns the solvers of the room, each with its defaults, and the variants that the paper's table has; not the
    adaptive
    one, which cannot be told how many evaluations to take."""
    return sorted([*(name for name in registry.classes("sampler") if name not in ADAPTIVE), *EXTRA])


def parse_solver(text: str) -> ConfigDict:
    """Reads `name:field=value:word` as a config section.

    Raises:
      UserError: for a word that no field knows.
    """
    name, *rest = text.split(":")
    kind = registry.find("sampler", name, "--solvers")
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if equals:
            try:
                fields[key] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                fields[key] = value
            continue
        owners = [field.name for field in dataclasses.fields(kind) if part in typing.get_args(hints[field.name])]
        if len(owners) != 1:
            raise UserError(f"--solvers={text}: {part!r} is no value of a field of {name!r}; write field=value.")
        fields[owners[0]] = part
    return section(name=name, **fields)


class Distances:
    """Compares samples with real images, in a network's features."""

    def __init__(self, name: str, train: np.ndarray, held_out: np.ndarray, num: int):
        self.network = open_network(name)
        real = EvaluationImages(np.zeros((num, *held_out.shape[1:]), np.uint8), None, train, held_out, None, "")
        self.real, floor, noise = (self.network(images).features for images in (held_out, real.floor, real.noise))
        self.frechet = [frechet_distance(features, self.real) for features in (floor, noise)]
        self.kid = [kid(features, self.real).mean for features in (floor, noise)]

    def __call__(self, samples: Samples) -> dict[str, float]:
        """Returns distances with those of real images (floor) and of noise; `excess` is the share between the two."""
        seen = self.network(samples.images)
        features = seen.features
        kernel = kid(features, self.real)
        found = {"kid_std": kernel.std}
        pairs = (("frechet", frechet_distance(features, self.real), self.frechet), ("kid", kernel.mean, self.kid))
        for name, value, (floor, noise) in pairs:
            excess = (value - floor) / (noise - floor)
            found |= {name: value, f"{name}_floor": floor, f"{name}_noise": noise, f"{name}_excess": excess}
        if samples.labels is not None:
            found["label_accuracy"] = class_accuracy(seen.probabilities, samples.labels).value
        return found


class Table:
    """Holds the rows of one trained run: they are measured once and kept in a file of JSON lines."""

    def __init__(self, workdir: str, out: Path, num: int, seed: int, batch: int, network: str):
        config = harness.run_config(workdir)
        network = network or NETWORKS.get(config.data.source, "")
        if network not in NETWORKS.values():
            raise UserError(f"There is no classifier of {config.data.source!r}; name digits or fashion by --network.")
        if batch:
            config.evaluate.batch_size = batch
        self.config, self.num, self.seed = config, num, seed
        self.trained = harness.trained(workdir, config)
        method = self.trained.generator.method
        if not hasattr(method, "sampler"):
            raise UserError(f"The method {config.method.name!r} takes no sampler; there is nothing to compare.")
        self.levels = method.schedule.steps
        splits = (config.data.split, config.data.eval_split)
        self.sources = {split: self.trained.generator.source(split) for split in splits}
        train, held_out = (source.take(list(range(len(source))))["image"] for source in self.sources.values())
        self.distances = Distances(network, train, held_out, num)
        self.reference = f"{config.data.source}/{config.data.eval_split} ({len(held_out)})"
        self.rows = harness.Rows(out, run=str(workdir), step=self.trained.step, num=num, seed=seed, network=network)

    def measure(self, solver: str, budget: int) -> None:
        """Adds one row, unless it is there already, or the solver cannot be had for so little, or not at all."""
        fields = parse_solver(solver)
        sampler = within_budget(build({**fields.to_dict(), "steps": 1}, "sampler", "--solvers"), budget, self.levels)
        if sampler is None:
            log.info("%s, %d: one step needs more evaluations", solver, budget)
            return
        try:
            fields.steps = sampler.steps
            self.rows.get({"solver": solver, "budget": budget}, lambda: self._draw(fields))
        except UserError as error:  # a schedule or grid that this solver cannot walk leaves its cell empty
            log.info("%s, %d: %s", solver, budget, error)

    def _draw(self, sampler: ConfigDict) -> dict[str, Any]:
        config = ConfigDict(self.config.to_dict(), type_safe=False)
        config.sampler = sampler
        generator = Generator(make_method(config), config, sources=self.sources)
        begun = time.perf_counter()
        samples = generator.images(self.trained.model, self.seed, self.num)
        seconds = round(time.perf_counter() - begun, 1)  # with compiling
        evaluations = generator.method.sampler.evaluations
        return {"steps": sampler.steps, "evaluations": evaluations, "seconds": seconds, **self.distances(samples)}

    def markdown(self, solvers: Sequence[str], budgets: Sequence[int]) -> str:
        """Makes two tables, Fréchet and kernel distance: a row for each solver, a column for each budget, the best in
        bold.
        """
        rows = {(row["solver"], row["budget"]): row for row in self.rows}
        text = []
        for name, (title, scale) in DISTANCES.items():
            floor, noise = (scale * value for value in getattr(self.distances, name))
            text += ["", f"{title}, n = {self.num} against {self.reference}: real {floor:.3f}, noise {noise:.1f}", ""]
            best = {b: min((row[name] for (_, of), row in rows.items() if of == b), default=0) for b in budgets}
            cells = [[s, *(cell(rows.get((s, b)), name, scale, best[b]) for b in budgets)] for s in solvers]
            text.append(harness.table(["evaluations", *budgets], cells))
        return "\n".join(text)


def cell(row: dict[str, Any] | None, name: str, scale: float, best: float) -> str:
    """Writes a number, with the evaluations it took where they are fewer than the column's."""
    if row is None:
        return "-"
    value = row[name] * scale
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    text = f"**{text}**" if row[name] == best else text
    return text if row["evaluations"] == row["budget"] else f"{text} ({row['evaluations']})"


def main(
    workdir: Annotated[str, "the folder of a trained run"],
    solvers: Annotated[tuple[str, ...], "separated by commas; by default all"] = (),
    evaluations: Annotated[tuple[int, ...], "separated by commas"] = (5, 10, 20, 50, 100, 1000),
    num: Annotated[int, "images a row"] = 2000,
    out: Annotated[str, "the file of JSON lines; by default WORKDIR/sampler_table.jsonl"] = "",
    seed: int = 1_000_003,
    batch_size: Annotated[int, "images a program; by default config.evaluate.batch_size"] = 0,
    network: Annotated[str, "digits or fashion; by default that of the data"] = "",
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    harness.prepare()
    solvers = solvers or tuple(every_solver())
    for solver in solvers:
        build({**parse_solver(solver).to_dict(), "steps": 4}, "sampler", "--solvers")  # before anything is drawn
    table = Table(workdir, Path(out or f"{workdir}/sampler_table.jsonl"), num, seed, batch_size, network)
    for budget in sorted(evaluations):
        for solver in solvers:
            table.measure(solver, budget)
    print(table.markdown(solvers, evaluations))


if __name__ == "__main__":
    sys.exit(harness.run(main))

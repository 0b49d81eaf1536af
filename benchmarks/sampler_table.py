"""Solvers against network evaluations on one trained model, in the form of Song et al. (2020, DDIM), Table 1.

    python benchmarks/sampler_table.py --workdir=runs/ddpm_digits --evaluations=5,10,20,50,100,1000 --num=2000

For each solver and budget it takes as many steps as the budget allows, draws `num` images with the EMA model from the
same starting noise, and appends one JSON line to --out (by default WORKDIR/sampler_table.jsonl). The same command goes
on where it stopped and prints the whole table as Markdown. Solvers are named as in `config.sampler`, with fields behind
colons: `ddim:eta=1`, `edm:s_churn=10:spacing=karras`; a bare word is the value of the field that knows it:
`ddpm:large`.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import json
import logging
import pathlib
import pkgutil
import sys
import time
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.build import build, lookup
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.metrics.classification import class_accuracy
from jaxgen.metrics.evidence import Evidence
from jaxgen.metrics.frechet import frechet_distance
from jaxgen.metrics.kernel import kid
from jaxgen.runs.setup import make_method
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.generator import Generator, Samples
from jaxgen.sampling.restore import restore

ROOM = "jaxgen.diffusion.samplers"
EVALUATIONS = (5, 10, 20, 50, 100, 1000)
EXTRA = ("ddpm:large", "ddim:eta=1")  # beside each module of the room
ADAPTIVE = ("ode",)  # takes as many evaluations as its tolerance asks for
JUDGES = {"digits": "digits", "tfds:fashion_mnist": "fashion"}  # a data set's judge

log = logging.getLogger("jaxgen")


def every_solver() -> list[str]:
    """The modules of the room, each with its defaults, and the variants that the paper's table has; not the adaptive
    one, which cannot be told how often to look."""
    room = importlib.import_module(ROOM)
    names = [module.name for module in pkgutil.iter_modules(room.__path__)]
    return sorted([*(name for name in names if not name.startswith("_") and name not in ADAPTIVE), *EXTRA])


def parse_solver(text: str) -> ConfigDict:
    """`name:field=value:word` as a config section.

    Raises:
      UserError: for a word that no field knows.
    """
    name, *rest = text.split(":")
    kind = lookup(name, ROOM, "--solvers")
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


def fit_steps(solver: ConfigDict, budget: int, levels: int) -> ConfigDict | None:
    """The solver with the most steps whose evaluations stay within the budget; None where one step is too many.

    Args:
      levels: of a discrete schedule, beyond which no grid goes; 0 for a continuous one.
    """

    def needed(steps: int) -> int:
        return build({**solver.to_dict(), "steps": steps}, ROOM, "config.sampler").evaluations

    low, high = 0, min(budget, levels or budget)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= budget else (low, middle - 1)
    return section(**{**solver.to_dict(), "steps": low}) if low else None


class Judged:
    """Real images in a judge's features, and samples held against them."""

    def __init__(self, name: str, train: np.ndarray, held_out: np.ndarray, num: int):
        self.judge = importlib.import_module(f"jaxgen.metrics.{name}").JUDGE
        evidence = Evidence(np.zeros((num, *held_out.shape[1:]), np.uint8), None, train, held_out, None, "")
        self.real, self.floor, self.noise = (
            self.judge(images).features for images in (held_out, evidence.floor, evidence.noise)
        )
        self.frechet = [frechet_distance(features, self.real) for features in (self.floor, self.noise)]
        self.kernel = [kid(features, self.real).mean for features in (self.floor, self.noise)]

    def __call__(self, samples: Samples) -> dict[str, float]:
        """Distances with what they are of real images (floor) and of noise; `excess` is the share between the two."""
        seen = self.judge(samples.images)
        features = seen.features
        kernel = kid(features, self.real)
        found = {"kid_std": kernel.std}
        pairs = (("frechet", frechet_distance(features, self.real), self.frechet), ("kid", kernel.mean, self.kernel))
        for name, value, (floor, noise) in pairs:
            excess = (value - floor) / (noise - floor)
            found |= {name: value, f"{name}_floor": floor, f"{name}_noise": noise, f"{name}_excess": excess}
        if samples.labels is not None:
            found["label_accuracy"] = class_accuracy(seen.probabilities, samples.labels).value
        return found


class Table:
    """The rows of one trained run: measured once, kept in a file of JSON lines."""

    def __init__(self, workdir: str, out: pathlib.Path, num: int, seed: int, batch: int, judge: str):
        config = stored_config(workdir)
        if config is None:
            raise UserError(f"{workdir} holds no run (it has no config.json); train first, with main.py.")
        judge = judge or JUDGES.get(config.data.source, "")
        if judge not in JUDGES.values():
            raise UserError(f"There is no judge of {config.data.source!r}; name one of digits, fashion with --judge.")
        if batch:
            config.evaluate.batch_size = batch
        self.config, self.num, self.seed, self.out = config, num, seed, out
        self.trained = restore(config, workdir)
        method = self.trained.generator.method
        if not hasattr(method, "sampler"):
            raise UserError(f"The method {config.method.name!r} takes no sampler; there is nothing to compare.")
        self.levels = method.schedule.steps
        splits = (config.data.split, config.data.eval_split)
        self.sources = {split: self.trained.generator.source(split) for split in splits}
        train, held_out = (source.take(list(range(len(source))))["image"] for source in self.sources.values())
        self.judged = Judged(judge, train, held_out, num)
        self.reference = f"{config.data.source}/{config.data.eval_split} ({len(held_out)})"
        # what a row must agree in to count as done
        self.of = {"run": str(workdir), "step": self.trained.step, "num": num, "seed": seed, "judge": judge}
        self.rows = [row for row in _read(out) if all(row.get(key) == value for key, value in self.of.items())]

    def measure(self, solver: str, budget: int) -> None:
        """Adds one row, unless it is there already, or the solver cannot be had for so little, or not at all."""
        if any((row["solver"], row["budget"]) == (solver, budget) for row in self.rows):
            return
        sampler = fit_steps(parse_solver(solver), budget, self.levels)
        if sampler is None:
            log.info("%s, %d: one step needs more evaluations", solver, budget)
            return
        try:
            row = {**self.of, "solver": solver, "budget": budget, **self._draw(sampler)}
        except UserError as error:  # a schedule or grid that this solver cannot walk leaves its cell empty
            log.info("%s, %d: %s", solver, budget, error)
            return
        self.rows.append(row)
        with self.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        log.info("%s, %d: %.3f in %.0f s", solver, budget, row["frechet"], row["seconds"])

    def _draw(self, sampler: ConfigDict) -> dict[str, Any]:
        config = ConfigDict(self.config.to_dict(), type_safe=False)
        config.sampler = sampler
        generator = Generator(make_method(config), config, sources=self.sources)
        begun = time.perf_counter()
        samples = generator.images(self.trained.model, self.seed, self.num)
        seconds = round(time.perf_counter() - begun, 1)  # with compiling
        evaluations = generator.method.sampler.evaluations
        return {"steps": sampler.steps, "evaluations": evaluations, "seconds": seconds, **self.judged(samples)}

    def markdown(self, solvers: Sequence[str], budgets: Sequence[int]) -> str:
        """Two tables, Fréchet and kernel distance: a row a solver, a column a budget, the best of each in bold."""
        rows = {(row["solver"], row["budget"]): row for row in self.rows}
        text = []
        for name, scale, title in (("frechet", 1, "Fréchet distance"), ("kid", 1000, "Kernel distance x 1000")):
            floor, noise = (scale * value for value in getattr(self.judged, {"kid": "kernel"}.get(name, name)))
            text += ["", f"{title}, n = {self.num} against {self.reference}: real {floor:.3f}, noise {noise:.1f}", ""]
            text += ["| evaluations | " + " | ".join(map(str, budgets)) + " |", "|---" * (len(budgets) + 1) + "|"]
            best = {b: min((row[name] for (_, of), row in rows.items() if of == b), default=0) for b in budgets}
            for solver in solvers:
                cells = [_cell(rows.get((solver, budget)), name, scale, best[budget]) for budget in budgets]
                text.append(f"| {solver} | " + " | ".join(cells) + " |")
        return "\n".join(text)


def _cell(row: dict[str, Any] | None, name: str, scale: float, best: float) -> str:
    """A number, with the evaluations it took where they are fewer than the column's."""
    if row is None:
        return "-"
    value = row[name] * scale
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    text = f"**{text}**" if row[name] == best else text
    return text if row["evaluations"] == row["budget"] else f"{text} ({row['evaluations']})"


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Finished rows; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole))
    return [json.loads(line) for line in whole]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input, after one line on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True, help="the folder of a trained run")
    parser.add_argument("--solvers", default="", help="separated by commas; by default all")
    parser.add_argument("--evaluations", default=",".join(map(str, EVALUATIONS)), help="separated by commas")
    parser.add_argument("--num", type=int, default=2000, help="images a row")
    parser.add_argument("--out", default="", help="the file of JSON lines; by default WORKDIR/sampler_table.jsonl")
    parser.add_argument("--seed", type=int, default=1_000_003)
    parser.add_argument("--batch-size", type=int, default=0, help="by default config.evaluate.batch_size")
    parser.add_argument("--judge", default="", help="digits or fashion; by default that of the data")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    use_cpu_cores()
    use_compilation_cache()
    try:
        budgets = [int(word) for word in given.evaluations.split(",")]
        solvers = given.solvers.split(",") if given.solvers else every_solver()
        for solver in solvers:
            build({**parse_solver(solver).to_dict(), "steps": 4}, ROOM, "--solvers")  # before anything is drawn
        out = pathlib.Path(given.out or f"{given.workdir}/sampler_table.jsonl")
        table = Table(given.workdir, out, given.num, given.seed, given.batch_size, given.judge)
        for budget in sorted(budgets):
            for solver in solvers:
                table.measure(solver, budget)
    except UserError as error:
        print(f"sampler_table: {error}", file=sys.stderr)
        return 2
    print(table.markdown(solvers, budgets))
    return 0


if __name__ == "__main__":
    sys.exit(main())

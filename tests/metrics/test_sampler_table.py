"""The table of solvers: names, budgets, and going on after a kill. That it draws is seen by running it."""

import json

import pytest
import tiny

from jaxgen.build import build
from jaxgen.errors import UserError

table = tiny.load(tiny.ROOT / "benchmarks" / "sampler_table.py")

pytestmark = pytest.mark.slow  # many small programs to compile


@pytest.mark.parametrize("solver", table.every_solver())
@pytest.mark.parametrize("budget", [5, 20, 1000])
def test_a_solver_gets_as_many_steps_as_the_budget_allows(solver, budget):
    fitted = table.fit_steps(table.parse_solver(solver), budget, 1000)
    assert build(fitted, table.ROOM, "x").evaluations <= budget
    more = {**fitted.to_dict(), "steps": fitted.steps + 1}
    assert fitted.steps == 1000 or build(more, table.ROOM, "x").evaluations > budget


def test_no_more_steps_than_levels_and_none_where_one_is_too_many():
    assert table.fit_steps(table.parse_solver("ddim"), 100, 40).steps == 40
    assert table.fit_steps(table.parse_solver("ddim:self_recurrence=8"), 5, 1000) is None


def test_the_paper_s_rows_and_every_module_are_there():
    solvers = table.every_solver()
    assert {"ddpm", "ddpm:large", "ddim", "ddim:eta=1"} <= set(solvers)
    assert not any(name.startswith("_") for name in solvers)


def test_fields_behind_colons():
    assert table.parse_solver("ddpm:large:clip=False").to_dict() == {"name": "ddpm", "variance": "large", "clip": False}
    assert table.parse_solver("edm:karras:s_churn=10").to_dict() == {"name": "edm", "spacing": "karras", "s_churn": 10}
    with pytest.raises(UserError, match="'huge' is no value"):
        table.parse_solver("ddpm:huge")


def test_a_row_that_a_kill_cut_short_is_drawn_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert table._read(path) == []
    path.write_text(json.dumps({"solver": "ddim"}) + "\n" + '{"solver": "dd')
    assert table._read(path) == [{"solver": "ddim"}]
    assert path.read_text().count("\n") == 1  # the next row begins on a line of its own


def test_cells():
    row = {"budget": 10, "evaluations": 9, "frechet": 1.23456}
    assert table._cell(row, "frechet", 1, best=1.0) == "1.235 (9)"
    assert table._cell({**row, "evaluations": 10}, "frechet", 1000, best=1.23456) == "**1234.6**"
    assert table._cell(None, "frechet", 1, best=1.0) == "-"

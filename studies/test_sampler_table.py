"""Tests the table of solvers: their names and its cells. That it draws is seen by running it."""

import pytest

from jaxgen.errors import UserError
from studies.sampler_table import cell, every_solver, parse_solver


def test_the_paper_s_rows_and_every_module_are_there():
    solvers = every_solver()
    assert {"ddpm", "ddpm:large", "ddim", "ddim:eta=1"} <= set(solvers)
    assert not any(name.startswith("_") for name in solvers)


def test_fields_behind_colons():
    assert parse_solver("ddpm:large:clip=False").to_dict() == {"name": "ddpm", "variance": "large", "clip": False}
    assert parse_solver("edm:karras:s_churn=10").to_dict() == {"name": "edm", "spacing": "karras", "s_churn": 10}
    with pytest.raises(UserError, match="'huge' is no value"):
        parse_solver("ddpm:huge")


def test_cells():
    row = {"budget": 10, "evaluations": 9, "frechet": 1.23456}
    assert cell(row, "frechet", 1, best=1.0) == "1.235 (9)"
    assert cell({**row, "evaluations": 10}, "frechet", 1000, best=1.23456) == "**1234.6**"
    assert cell(None, "frechet", 1, best=1.0) == "-"

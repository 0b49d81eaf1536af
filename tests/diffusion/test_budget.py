"""Solvers with a budget of network evaluations."""

import pytest

from jaxgen.build import build
from jaxgen.diffusion.budget import within_budget

NAMES = ("ddpm", "ddim", "euler", "heun", "edm", "dpmpp_1s", "dpmpp_2m", "dpmpp_3m", "unipc", "rk4", "euler_maruyama")


def solver(name: str, **fields):
    return build({"name": name, "steps": 4, **fields}, "sampler", "config.sampler")


@pytest.mark.parametrize("name", [*NAMES, "predictor_corrector", "dpmpp_2m_sde", "euler_ancestral"])
@pytest.mark.parametrize("budget", [5, 20, 1000])
def test_a_solver_gets_as_many_steps_as_the_budget_allows(name, budget):
    fitted = within_budget(solver(name), budget, 1000)
    assert fitted.evaluations <= budget
    assert fitted.steps == 1000 or solver(name, steps=fitted.steps + 1).evaluations > budget


def test_no_more_steps_than_levels_and_none_where_one_is_too_many():
    assert within_budget(solver("ddim"), 100, 40).steps == 40
    assert within_budget(solver("ddim"), 100).steps == 100
    assert within_budget(solver("ddim", self_recurrence=8), 5, 1000) is None

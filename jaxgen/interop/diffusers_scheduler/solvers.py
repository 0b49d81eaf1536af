"""Which solver here takes the same steps as a scheduler class with the solver's entries of its file.

`tests/parity/test_schedulers_ode.py` and `test_schedulers_sde.py` compare these solvers with those classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALWAYS = {
    "DDIMScheduler": {"name": "ddim"},
    "EulerDiscreteScheduler": {"name": "euler"},
    "EulerAncestralDiscreteScheduler": {"name": "euler_ancestral"},
    "HeunDiscreteScheduler": {"name": "heun"},
}
VARIANCES = {"fixed_small": "small", "fixed_large": "large"}
MIDPOINT = ("midpoint", "logrho", "bh1", "bh2")  # the last three are replaced by the first in DPMSolverMultistep
BH2 = ("bh2", "midpoint", "heun", "logrho")  # the same in UniPCMultistep


def own_solver(name: str, entries: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the options of `config.sampler` for the solver of a class, or None where there is no such solver here.

    Args:
      name: the class.
      entries: its entries in the file.
    """
    if name in ALWAYS:
        return dict(ALWAYS[name])
    if name == "DDPMScheduler":
        variance = VARIANCES.get(entries.get("variance_type", "fixed_small"))
        return {"name": "ddpm", "variance": variance} if variance else None
    if name == "DPMSolverMultistepScheduler":
        return _multistep(entries)
    return _unipc(entries) if name == "UniPCMultistepScheduler" else None


def _multistep(entries: Mapping[str, Any]) -> dict[str, Any] | None:
    order, kind = entries.get("solver_order", 2), entries.get("solver_type", "midpoint")
    algorithm = entries.get("algorithm_type", "dpmsolver++")
    # a last step to no noise is of first order whatever these two say
    ends = entries.get("final_sigmas_type", "zero") == "zero"
    if entries.get("euler_at_final") and not ends:
        return None
    lower = {} if entries.get("lower_order_final", True) else {"lower_order_final": False}
    if algorithm == "sde-dpmsolver++" and order == 2 and kind in (*MIDPOINT, "heun"):
        return {"name": "dpmpp_2m_sde", "correction": "heun" if kind == "heun" else "midpoint"} if ends else None
    if algorithm not in ("dpmsolver++", "deis"):
        return None
    if order == 3:
        return {"name": "dpmpp_3m", "half_curvature": True, **lower}
    if order == 2 and kind in MIDPOINT:
        return {"name": "dpmpp_2m", **lower}
    return {"name": "ddim"} if order == 1 else None


def _unipc(entries: Mapping[str, Any]) -> dict[str, Any] | None:
    order, kind = entries.get("solver_order", 2), entries.get("solver_type", "bh2")
    other = entries.get("disable_corrector") or entries.get("solver_p") or not entries.get("predict_x0", True)
    if other or order not in (1, 2, 3) or kind not in (*BH2, "bh1"):
        return None
    found: dict[str, Any] = {"name": "unipc"}
    if order != 2:
        found["order"] = order
    if kind == "bh1":
        found["variant"] = "bh1"
    return found if entries.get("lower_order_final", True) else {**found, "lower_order_final": False}

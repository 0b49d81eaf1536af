"""Samplers go from noise to images; each solver is one class, found by its name in a config (`config.sampler.name`).

A sampler is `(denoise, schedule, x, keys) -> x`, pure and jit-able; `base` has the contract. All solvers but `ode` are
linear in the state and in the network's outputs: such a solver is a table of coefficients (`coefficients`), which one
`lax.scan` runs, with one evaluation of the network in its body.
"""

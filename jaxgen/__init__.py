"""jaxgen: generative image models in JAX and Flax, each one config away.

The rooms (`jaxgen.data`, `jaxgen.diffusion`, ...) are imported one by one; this module imports none of
them, so that the command line can answer before JAX has started.
"""

__version__ = "0.1.0"

"""Names of number types, as a config's keys `dtype`, `param_dtype` and `mu_dtype` give them; nothing here needs JAX."""

from __future__ import annotations

from jaxgen.errors import UserError, nearest

# The types that networks compute in and that weights are kept in. JAX works in at most 32 bits here.
KNOWN = ("float32", "bfloat16", "float16")
SHORT = {
    "fp32": "float32", "f32": "float32", "single": "float32", "float": "float32",
    "bf16": "bfloat16", "bfloat": "bfloat16",
    "fp16": "float16", "f16": "float16", "half": "float16",
}  # fmt: skip


def is_type_key(key: str) -> bool:
    """Returns whether a config's key of this name gives a number type."""
    return key == "dtype" or key.endswith("_dtype")


def number_type(name: object, path: str) -> str:
    """Returns the full name of a number type: "bf16" is "bfloat16", "half" is "float16".

    Args:
      name: the name, in full or short.
      path: the path of the key, for messages, such as `config.method.network.dtype`.

    Raises:
      UserError: no type has the name, or none that is computed with here.
    """
    word = str(name).removeprefix("jnp.").removeprefix("jax.numpy.").removeprefix("torch.").lower()
    found = SHORT.get(word, word)
    if found in KNOWN:
        return found
    if found in ("float64", "fp64", "f64", "double"):
        raise UserError(f"{path}={name!r}: numbers of 64 bits are not computed with here; use 'float32'.")
    raise UserError(f"{path}={name!r} is no type of floating-point numbers; {nearest(found, KNOWN)}")

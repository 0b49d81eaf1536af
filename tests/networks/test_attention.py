"""Which attention runs where: cuDNN's kernel on a GPU that has it, matrix products everywhere else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from jaxgen.networks.layers import attention

HALF = jnp.bfloat16


@pytest.mark.parametrize(
    ("dtype", "channels", "there", "taken"),
    [
        (HALF, 64, True, True),
        (jnp.float16, 40, True, True),
        (HALF, 64, False, False),
        (jnp.float32, 64, True, False),  # cuDNN's kernel has none
        (HALF, 36, True, False),
        (HALF, 160, True, False),
    ],
)
def test_what_the_kernel_takes(dtype, channels, there, taken):
    assert attention.fused(jnp.zeros((1, 4, 2, channels), dtype), there) is taken


def test_no_gpu_is_here_on_a_cpu():
    assert jax.default_backend() == "cpu" and not attention.cuda_here()


@pytest.fixture
def with_cudnn(monkeypatch):
    """As if the process had an NVIDIA GPU: programs can be lowered for one, and not run."""
    monkeypatch.setattr(attention, "cuda_here", lambda: True)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91900)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)


def lowered(platform: str, mask=None) -> str:
    """The program of attention and its gradient."""

    def total(query):
        return attention.attend(query, query, query, mask).astype(jnp.float32).sum()

    query = jax.ShapeDtypeStruct((2, 16, 4, 64), HALF)
    return jax.jit(jax.grad(total)).trace(query).lower(lowering_platforms=(platform,)).as_text()


def test_a_gpu_s_program_is_cudnn_s_forward_and_backward(with_cudnn):
    program = lowered("cuda")
    assert "__cudnn$fmhaSoftmax(" in program and "__cudnn$fmhaSoftmaxBackward(" in program
    assert "dot_general" not in program


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_other_platforms_programs_are_products(with_cudnn, platform):
    program = lowered(platform)
    assert "cudnn" not in program and "dot_general" in program


def test_masks_and_plain_attention_are_products_on_a_gpu_too(with_cudnn):
    assert "cudnn" not in lowered("cuda", jnp.ones((2, 16), jnp.int32))
    with attention.plain_attention():
        assert "cudnn" not in lowered("cuda")
    assert "cudnn" in lowered("cuda")


def test_the_other_branch_does_not_change_a_cpu_s_numbers(with_cudnn):
    query, key, value = jax.random.normal(jax.random.key(0), (3, 2, 16, 4, 64), HALF)
    with attention.plain_attention():
        plain = attention.attend(query, key, value)
    np.testing.assert_array_equal(jax.jit(attention.attend)(query, key, value), plain)

"""A U-Net's training step: jaxgen against diffusers' UNet2DModel in PyTorch, on the same CPU cores.

Drawing times and noise, forward, backward, clipping by the global norm, AdamW and EMA, jaxgen's with its guard
against non-finite values; the same architecture, parameter count and batch.

    python benchmarks/step_vs_diffusers.py --batch 16 --steps 20

jaxgen runs on one virtual CPU device per core with the batch sharded over them; PyTorch runs with a thread per
core and channels-last tensors. Needs the extra 'parity'. The machine should be otherwise idle.
"""

from __future__ import annotations

import argparse
import os
import sys

from peers import Worker, alternate, report, serve

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": None,
}
RATE, CLIP, DECAY, WEIGHT_DECAY = 2e-4, 1.0, 0.999, 1e-2


def jax_worker(batch: int, size: int) -> None:
    """jaxgen's own update, as a run of `configs/` builds it, on batches already on the device."""
    import jax
    import numpy as np

    from jaxgen.config import defaults
    from jaxgen.diffusion import schedule
    from jaxgen.diffusion.samplers.ddim import DDIM
    from jaxgen.interop.diffusers_unet import unet_options
    from jaxgen.methods.ddpm import DDPM
    from jaxgen.networks.unet import UNet
    from jaxgen.train.mesh import make_mesh, place
    from jaxgen.train.setup import Given, Stages
    from jaxgen.train.update import make_update

    shape = (size, size, 3)
    unet = UNet(**unet_options({**CONFIG, "sample_size": size}))
    method = DDPM(unet, schedule.linear(), DDIM(), shape)
    mesh = make_mesh(0, batch)
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    data = place({"image": images}, mesh)
    config = defaults()
    config.optimizer.update(name="adamw", learning_rate=RATE, weight_decay=WEIGHT_DECAY, clip_norm=CLIP)
    config.train.update(batch_size=batch, total_images=batch)
    stages = Stages(config, method, mesh, Given({}, {}, {}), data)
    state = stages.begin()
    update = make_update(
        method.turns(0), stages.optimizers, mesh, seed=0, images_per_step=batch, ema_decay=DECAY, check=True
    )

    def run() -> None:
        nonlocal state
        state, metrics = update(state, {}, (data,))
        jax.block_until_ready(metrics)

    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    serve(run, parameters=parameters, devices=mesh.size, version=jax.__version__)


def torch_worker(batch: int, size: int, cores: int) -> None:
    import diffusers
    import numpy as np
    import torch

    torch.set_num_threads(cores)
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**CONFIG, sample_size=size).train().to(memory_format=torch.channels_last)
    params = list(model.parameters())
    ema = [p.detach().clone() for p in params]
    optimiser = torch.optim.AdamW(params, lr=RATE, weight_decay=WEIGHT_DECAY, foreach=True)
    rng = np.random.default_rng(0)
    shape = (batch, 3, size, size)
    image = torch.from_numpy(rng.normal(size=shape).astype(np.float32)).contiguous(memory_format=torch.channels_last)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        time = torch.randint(0, 1000, (batch,))
        noise = torch.randn_like(image)
        kept = alpha_bar[time, None, None, None]
        noisy = kept.sqrt() * image + (1 - kept).sqrt() * noise
        loss = torch.nn.functional.mse_loss(model(noisy, time).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP, foreach=True)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(ema, params, 1 - DECAY)
        loss.item()

    serve(run, parameters=sum(p.numel() for p in params), threads=cores, version=torch.__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each side")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--worker", choices=("jaxgen", "pytorch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if args.worker == "jaxgen":
        return jax_worker(args.batch, args.size)
    if args.worker == "pytorch":
        return torch_worker(args.batch, args.size, cores)

    environments = {
        "jaxgen": {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={cores}"},
        "pytorch": {"OMP_NUM_THREADS": str(cores), "HF_HUB_OFFLINE": "1"},
    }
    workers = [Worker(name, [sys.executable, *sys.argv, "--worker", name], env) for name, env in environments.items()]
    ours, theirs = (worker.facts["parameters"] for worker in workers)
    if ours != theirs:
        raise RuntimeError(f"jaxgen has {ours} parameters, diffusers {theirs}: not the same network")
    report(alternate(workers, args.steps), "jaxgen", "pytorch")
    for worker in workers:
        worker.close()


if __name__ == "__main__":
    main()

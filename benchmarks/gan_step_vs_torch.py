"""Train steps of DCGAN and of WGAN-GP's critic: jaxgen against the same networks in PyTorch, on the same CPU cores.

`dcgan`: both players' turns, non-saturating, BatchNorm with real and fake apart, Adam. `wgan_gp`: one step of a critic
without BatchNorm, fakes from a generator at rest, with the gradient penalty, Adam.

    python benchmarks/gan_step_vs_torch.py --task dcgan wgan_gp --steps 20

jaxgen runs on one virtual CPU device per core with the batch sharded over them; PyTorch runs with a thread per core
and the faster of its two memory formats, which is channels-last here. Needs the extra 'parity'. The machine should be
otherwise idle.
"""

from __future__ import annotations

import argparse
import os
import sys

from peers import Worker, alternate, report, serve

LATENTS = 100
DCGAN = {"learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}
WGAN_GP = {"learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}
PENALTY = 10.0


def jax_worker(task: str, batch: int, size: int, channels: int) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxgen.networks.dcgan import Discriminator, Generator
    from jaxgen.networks.stateful import begin, run
    from jaxgen.train.mesh import make_mesh, over_data, place, replicated

    mesh = make_mesh(0, batch)
    image = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    data = place({"image": image}, mesh)
    generator = Generator((size, size, 3), LATENTS, channels)
    critic = Discriminator(channels, norm="batch" if task == "dcgan" else "none")
    optimiser = optax.adam(**(DCGAN if task == "dcgan" else WGAN_GP))

    def start(key, image):
        z = jnp.zeros((2, LATENTS))
        groups = {"generator": begin(generator, key, z), "critic": begin(critic, key, image)}
        params = {name: group[0] for name, group in groups.items()}
        memory = {name: group[1] for name, group in groups.items()}
        return params, memory, {name: optimiser.init(params[name]) for name in params}

    def descend(name, loss, params, memory, optimisers):
        (value, changed), gradient = jax.value_and_grad(loss, has_aux=True)(params[name], params, memory)
        updates, state = optimiser.update(gradient, optimisers[name])
        params = {**params, name: optax.apply_updates(params[name], updates)}
        return value, (params, {**memory, **changed}, {**optimisers, name: state})

    def noise(key):
        return jax.lax.with_sharding_constraint(jax.random.normal(key, (batch, LATENTS)), over_data(mesh))

    def dcgan(state, image, key):
        of_critic, of_generator = jax.random.split(key)

        def critic_loss(learned, params, memory):
            fake, _ = run(generator, params["generator"], memory["generator"], noise(of_critic), train=True)
            real, kept = run(critic, learned, memory["critic"], image, train=True)
            fake, kept = run(critic, learned, kept, fake, train=True)
            value = jax.nn.softplus(-real["logits"]).mean() + jax.nn.softplus(fake["logits"]).mean()
            return value, {"critic": kept}

        def generator_loss(learned, params, memory):
            fake, kept = run(generator, learned, memory["generator"], noise(of_generator), train=True)
            outputs, _ = run(critic, params["critic"], memory["critic"], fake, train=True)
            return jax.nn.softplus(-outputs["logits"]).mean(), {"generator": kept}

        first, state = descend("critic", critic_loss, *state)
        second, state = descend("generator", generator_loss, *state)
        return state, first + second

    def wgan_gp(state, image, key):
        of_noise, of_alpha = jax.random.split(key)

        def loss(learned, params, memory):
            def logits(x):
                return run(critic, learned, memory["critic"], x, train=True)[0]["logits"]

            fake, kept = run(generator, params["generator"], memory["generator"], noise(of_noise), train=True)
            alpha = jax.random.uniform(of_alpha, (batch, 1, 1, 1))
            slope = jax.grad(lambda x: logits(x).sum())(alpha * image + (1 - alpha) * fake)
            penalty = jnp.square(jnp.sqrt(jnp.square(slope).sum((1, 2, 3))) - 1).mean()
            return logits(fake).mean() - logits(image).mean() + PENALTY * penalty, {"generator": kept}

        value, state = descend("critic", loss, *state)
        return state, value

    whole = replicated(mesh)
    state = jax.jit(start, out_shardings=whole)(jax.random.key(0), data["image"])
    step = jax.jit(
        dcgan if task == "dcgan" else wgan_gp,
        donate_argnums=0,
        in_shardings=(whole, over_data(mesh), whole),
        out_shardings=(whole, whole),
    )
    key, count = jax.random.key(1), 0

    def once() -> None:
        nonlocal state, count
        state, value = step(state, data["image"], jax.random.fold_in(key, count))
        count += 1
        jax.block_until_ready((state, value))

    parameters = sum(leaf.size for leaf in jax.tree.leaves(state[0]))
    serve(once, parameters=parameters, devices=mesh.size, version=jax.__version__)


def torch_worker(task: str, batch: int, size: int, channels: int, cores: int) -> None:
    import torch
    from torch import nn

    torch.set_num_threads(cores)
    torch.manual_seed(0)
    levels = size.bit_length() - 3
    widths = [channels * min(2**level, 8) for level in range(levels)]

    layers = [nn.ConvTranspose2d(LATENTS, widths[-1], 4, 1, 0, bias=False)]
    for width, out in zip(widths[::-1], [*widths[-2::-1], 3], strict=True):
        layers += [nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, out, 4, 2, 1, bias=out == 3)]
    generator = nn.Sequential(*layers, nn.Tanh())

    norm = task == "dcgan"
    layers = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for width, out in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(width, out, 4, 2, 1, bias=not norm), *([nn.BatchNorm2d(out)] if norm else [])]
        layers.append(nn.LeakyReLU(0.2, True))
    critic = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 0))

    form = torch.channels_last
    generator, critic = generator.to(memory_format=form), critic.to(memory_format=form)
    image = torch.empty(batch, 3, size, size).uniform_(-1, 1).contiguous(memory_format=form)
    rates = DCGAN if task == "dcgan" else WGAN_GP

    def adam(model):
        return torch.optim.Adam(model.parameters(), rates["learning_rate"], (rates["b1"], rates["b2"]), fused=True)

    of_generator, of_critic = adam(generator), adam(critic)
    softplus = nn.functional.softplus

    def noise():
        return torch.randn(batch, LATENTS, 1, 1)

    def descend(optimiser, value):
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()

    def dcgan() -> None:
        with torch.no_grad():
            fake = generator(noise())
        value = softplus(-critic(image)).mean() + softplus(critic(fake)).mean()
        descend(of_critic, value)
        critic.requires_grad_(False)
        descend(of_generator, softplus(-critic(generator(noise()))).mean())
        critic.requires_grad_(True)
        value.item()

    def wgan_gp() -> None:
        with torch.no_grad():
            fake = generator(noise())
        alpha = torch.rand(batch, 1, 1, 1)
        mixed = (alpha * image + (1 - alpha) * fake).requires_grad_()
        slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        value = critic(fake).mean() - critic(image).mean() + PENALTY * penalty
        descend(of_critic, value)
        value.item()

    parameters = sum(p.numel() for model in (generator, critic) for p in model.parameters())
    serve(dcgan if task == "dcgan" else wgan_gp, parameters=parameters, threads=cores, version=torch.__version__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=("dcgan", "wgan_gp"), default=["dcgan", "wgan_gp"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each side")
    parser.add_argument("--size", type=int, default=64, help="height and width of the images: 8, 16, 32, 64 or 128")
    parser.add_argument("--channels", type=int, default=64, help="base width of the networks")
    parser.add_argument("--worker", choices=("jaxgen", "pytorch"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if args.worker == "jaxgen":
        return jax_worker(args.task[0], args.batch, args.size, args.channels)
    if args.worker == "pytorch":
        return torch_worker(args.task[0], args.batch, args.size, args.channels, cores)

    environments = {
        "jaxgen": {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={cores}"},
        "pytorch": {"OMP_NUM_THREADS": str(cores)},
    }
    common = [f"--batch={args.batch}", f"--size={args.size}", f"--channels={args.channels}"]
    for task in args.task:
        print(f"{task}: {args.size} pixels, batch {args.batch}, {args.channels} channels")
        workers = [
            Worker(name, [sys.executable, sys.argv[0], "--task", task, *common, "--worker", name], environment)
            for name, environment in environments.items()
        ]
        ours, theirs = (worker.facts["parameters"] for worker in workers)
        if ours != theirs:
            raise RuntimeError(f"jaxgen has {ours} parameters, PyTorch {theirs}: not the same networks")
        report(alternate(workers, args.steps), "jaxgen", "pytorch")
        for worker in workers:
            worker.close()


if __name__ == "__main__":
    main()

"""Does jaxgen's side of `run.py`: its own update and its own sampler, as a run of `configs/` builds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.peers import serve
from benchmarks.workloads import (
    CLIP,
    DECAY,
    GAN_RATES,
    MATMUL,
    PENALTY,
    RATE,
    SAMPLING_STEPS,
    SPACE,
    STYLE,
    TEXT,
    TRANSLATIONS,
    WEIGHT_DECAY,
    Z_DIM,
    Row,
    diffusers_config,
)

Step = Callable[[], None]


def work(row: Row, device: str, small: bool) -> None:
    """Builds a row's work and serves it."""
    step, facts = build(row, device, small)
    serve(step, _peak, **facts)


def build(row: Row, device: str, small: bool) -> tuple[Step, dict[str, Any]]:
    """Returns a row's work, and what is to be known of it."""
    from jaxgen.host import use_compilation_cache, use_cpu_cores

    use_cpu_cores()
    use_compilation_cache()
    import jax

    step, params, counted = {"train": _train, "sample": _sample, "matmul": _matmul}[row.task](row, device, small)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    here = {"devices": len(jax.devices()), "kind": jax.devices()[0].device_kind, "version": jax.__version__}
    return step, {"parameters": parameters, "flops": counted, **here}


def _peak() -> float | None:
    import jax

    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**30 if stats else None


def _train(row: Row, device: str, small: bool) -> tuple[Step, Any, int]:
    import jax

    from jaxgen.parallel.mesh import make_mesh, must_await, place
    from jaxgen.planning import flops
    from jaxgen.runs.loaded_groups import LoadedGroups
    from jaxgen.runs.state_builder import StateBuilder
    from jaxgen.train.update import UpdateSettings, make_update

    config, method = _config_and_method(row, device, small)
    mesh = make_mesh(config.mesh.data, row.batch)
    data = place(_batch(row, method, small), mesh)
    builder = StateBuilder(config, method, mesh, LoadedGroups({}, {}, {}), data)
    state = builder.begin()
    turns = method.turns(0)
    update = make_update(
        turns[:1] if row.model == "wgan_gp" else turns,
        builder.optimizers,
        mesh,
        UpdateSettings(seed=0, images_per_step=row.batch, ema_decay=DECAY),
    )
    counted = flops.count(update.trace(state, {}, (data,)).jaxpr)

    before = None
    ahead = device == "cpu" and not must_await(mesh)

    def run() -> None:
        """On one CPU device as `jaxgen.train.loop` goes, a step ahead: the next is dispatched while this one runs. On
        GPUs both sides wait for every step, on several CPU devices the trainer does, and PyTorch on a CPU always."""
        nonlocal state, before
        state, metrics = update(state, {}, (data,))
        jax.block_until_ready(before if ahead else (state, metrics))
        before = metrics

    return run, state.params, counted


def _sample(row: Row, device: str, small: bool) -> tuple[Step, Any, int]:
    import jax

    from jaxgen.methods.base import Model
    from jaxgen.planning import flops
    from jaxgen.sampling.generator import Generator

    config, method = _config_and_method(row, device, small)
    batch = _batch(row, method, small)
    given = {"context": batch["context"]} if "context" in batch else {}
    generator = Generator(method, config, row.batch, given=given)
    start = jax.jit(lambda key, batch: method.init(key, batch, 0, {}, {}, {})[0])
    ready = {name: x for name, x in batch.items() if name != "image"}
    shape = jax.numpy.zeros((row.batch, *method.shape))
    params = start(jax.random.key(0, impl="rbg"), {"image": shape, **ready})
    model = Model(params=params, memory={}, stage=0)
    counted = flops.count(generator.trace("sample", model).jaxpr)

    def run() -> None:
        generator.images(model, 0, row.batch)

    return run, params, counted


def _matmul(row: Row, device: str, small: bool) -> tuple[Step, Any, int]:
    import jax

    side = 256 if small else MATMUL[device]
    a = jax.random.normal(jax.random.key(0), (side, side), "bfloat16" if device == "gpu" else "float32")
    product = jax.jit(lambda a: a @ a)

    def run() -> None:
        jax.block_until_ready(product(a))

    return run, {}, 2 * side**3


def _config_and_method(row: Row, device: str, small: bool) -> tuple[Any, Any]:
    from jaxgen.config import defaults, section
    from jaxgen.runs.setup import make_method

    config = defaults()
    config.train.update(batch_size=row.batch, total_images=row.batch)
    config.evaluate.batch_size = row.batch
    if row.model == "vae":
        layers = {"widths": (), "hidden": (200, 200), "activation": "tanh"}  # as configs/vae_mnist.py
        config.method = section(
            name="vae",
            encoder=section(name="encoder", unit_range=True, **layers),
            decoder=section(name="decoder", **layers),
            z_dim=50,
            likelihood=section(name="bernoulli", draw=True),
        )
        config.data.update(resolution=28, channels=1)
        config.optimizer.update(name="adam", learning_rate=1e-3, eps=1e-4)
        config.mesh.data = 1
        return config, make_method(config)
    if row.model in TRANSLATIONS:
        config.mesh.data = 1  # faster for so few images: both cores work on one device, and the state is there once
        config.method = _translation(row)
        config.data.update(resolution=row.size)
        rate, b1, b2 = GAN_RATES["dcgan"]
        config.optimizer.update(name="adam", learning_rate=rate, b1=b1, b2=b2)
        return config, make_method(config)
    if row.model == "singan":
        widths = {"width": row.channels, "least_width": row.channels}
        names = {name: section(name=f"singan_{name}", **widths) for name in ("generator", "discriminator")}
        config.method = section(name="singan", **names, scales=1, discriminator_steps=1, generator_steps=1)
        config.data.update(resolution=row.size)
        config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.5, b2=0.999)
        return config, make_method(config)
    if row.model in ("stylegan2", "triplane"):
        (_styled if row.model == "stylegan2" else _spaced)(config, row)
        return config, make_method(config)
    if row.model in GAN_RATES:
        rate, b1, b2 = GAN_RATES[row.model]
        discriminator = section(name="dcgan_discriminator", channels=row.channels)
        config.method = section(name="gan", discriminator=discriminator)
        config.method.generator = section(name="dcgan_generator", z_dim=Z_DIM, channels=row.channels)
        if row.model == "wgan_gp":
            discriminator.norm = "none"
            config.method.update(name="wgan_gp", discriminator_steps=1, gradient_penalty=PENALTY)
        config.data.update(resolution=row.size)
        config.optimizer.update(name="adam", learning_rate=rate, b1=b1, b2=b2)
        return config, make_method(config)
    config.optimizer.update(name="adamw", learning_rate=RATE, weight_decay=WEIGHT_DECAY, clip_norm=CLIP)
    return config, _diffusion(row, device, small)


def _translation(row: Row) -> Any:
    from jaxgen.config import section

    reads = ("condition",) if row.model == "pix2pix" else ()
    layers = 2 if row.size >= 32 else 1
    patches = section(name="patch_discriminator", width=row.channels, layers=layers, norm="instance", reads=reads)
    if row.model == "cyclegan":
        generator = section(name="translation_resnet", width=row.channels, downs=2, blocks=2)
        return section(name="cyclegan", generator=generator, discriminator=patches)
    downs = row.size.bit_length() - 1
    generator = section(name="translation_unet", width=row.channels, downs=downs, dropout_blocks=max(downs - 5, 0))
    return section(name="pix2pix", generator=generator, discriminator=patches)


def _styled(config: Any, row: Row) -> None:
    """Sets a config to a StyleGAN2 whose groups have the learning rates of lazy penalties."""
    from jaxgen.config import section

    widths = {"channels": row.channels, "max_channels": STYLE["widest"] * row.channels}
    sizes = {name: STYLE[name] for name in ("z_dim", "w_dim", "depth")}
    config.method = section(
        name="stylegan2",
        generator=section(name="style2_generator", **sizes, **widths),
        discriminator=section(name="style2_discriminator", **widths),
        r1_every=16,
        path_every=4,
        **{name: STYLE[name] for name in ("r1", "path_length", "mixing")},
    )
    config.data.update(resolution=row.size)
    config.optimizer.update(name="adam", learning_rate=2e-3, b1=0.0, b2=0.99)
    for group, every in (("generator", 4), ("discriminator", 16)):
        share = every / (every + 1)
        config.optimizers[group] = section(learning_rate=2e-3 * share, b1=0.0, b2=0.99**share)


def _spaced(config: Any, row: Row) -> None:
    """Sets a config to a triplane GAN without captions."""
    from jaxgen.config import section

    names = ("z_dim", "widths", "features", "hidden", "samples", "attention_side")
    config.method = section(
        name="triplane_gan",
        generator=section(
            name="triplane_generator", attention_heads=SPACE["heads"], **{name: SPACE[name] for name in names}
        ),
        discriminator=section(name="camera_discriminator", widths=SPACE["judge"]),
    )
    config.data.update(resolution=row.size)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.0, b2=0.99)


def _diffusion(row: Row, device: str, small: bool) -> Any:
    from jaxgen.diffusion import schedules
    from jaxgen.diffusion.samplers.ddim import DDIM
    from jaxgen.interop.diffusers_condition_unet import condition_unet_options
    from jaxgen.interop.diffusers_dit import dit_options
    from jaxgen.interop.diffusers_unet import unet_options
    from jaxgen.methods.diffusion.ddpm import DDPM
    from jaxgen.networks.dit import DiT
    from jaxgen.networks.unet import UNet

    @dataclasses.dataclass(frozen=True)
    class Conditioned(DDPM):
        """Sees the features of a text that a batch brings."""

        conditions = ("context",)

        def condition(self, params: Any, batch: Any, keys: Any = None, train: bool = False) -> Any:
            return {"context": batch["context"]}

    name, described = diffusers_config(row.model, small)
    find = {"UNet2DModel": unet_options, "UNet2DConditionModel": condition_unet_options}.get(name, dit_options)
    dtype = "bfloat16" if device == "gpu" else None
    network = (DiT if name.startswith("DiT") else UNet)(**find(described), dtype=dtype)
    size, channels = described["sample_size"], described["in_channels"]
    kind = Conditioned if name == "UNet2DConditionModel" else DDPM
    sampler = DDIM(steps=2 if small else SAMPLING_STEPS)
    return kind(network, schedules.Linear(), sampler, (size, size, channels), getattr(network, "num_classes", 0))


def _batch(row: Row, method: Any, small: bool) -> dict[str, Any]:
    """Returns images of bytes, as loaders give them, and conditions."""
    import numpy as np

    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (row.batch, *method.image_shape), dtype=np.uint8)}
    if "context" in method.conditions:
        width = diffusers_config(row.model, small)[1]["cross_attention_dim"]
        batch["context"] = rng.standard_normal((row.batch, TEXT, width)).astype(np.float32)
    for name in {"condition", "other_image"} & {*method.conditions}:
        batch[name] = rng.integers(0, 256, batch["image"].shape, dtype=np.uint8)
    if "camera" in method.conditions:
        from jaxgen.geometry import cameras

        batch["camera"] = cameras.orbit(row.batch)
    if "label" in method.conditions:
        batch["label"] = rng.integers(0, method.num_classes, row.batch).astype(np.int32)
    return batch

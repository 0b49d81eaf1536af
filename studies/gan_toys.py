"""Plays the two-player game where the truth is known: eight Gaussians on a ring, twenty-five on a grid, and each loss.

    python -m studies.gan_toys --out=runs/gan_toys

Three things, each printed as Markdown and kept in OUT; the same command goes on where it stopped.

1. `toys.jsonl`: for each world and loss, of 2,500 samples by the averaged generator, the modes covered (at least 10
   samples within three standard deviations), the share of such samples (of the data: 0.989), and how evenly they are
   spread: the entropy of the modes' shares over its maximum.
2. `slopes.jsonl`: the discriminator trained alone against a generator that does not move. After 0, 100, ... of its
   steps: the share of its slope that the generator's loss passes on to an image, and the norm of what the generator
   gets, medians over 1,000 fakes; and its accuracy. Minimax loses its gradient as the discriminator gets better.
3. `WORLD_LOSS.gif`: samples of the training generator over the discriminator's surface, dark where it says fake.
"""

from __future__ import annotations

import functools
import runpy
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from studies import harness

WORLDS = ("ring8", "grid25")
LOSSES = ("minimax", "non_saturating", "least_squares", "hinge", "wgan", "wgan_gp")
MOMENTS = (0, 100, 300, 1000, 3000)
SIDE = 96  # pixels of a frame
REACH = 1.2  # a frame shows [-REACH, REACH]^2
FRAMES = 40


def config_of(world: str, loss: str, steps: int) -> Any:
    config = runpy.run_path(str(harness.config_path(f"gan_{world}")))["get_config"]()
    if loss in ("wgan", "wgan_gp"):
        config.method.name = loss
        del config.method["loss"]
        config.optimizer.update(b1=0.0, b2=0.9)
    else:
        config.method.loss.name = loss
    if loss == "wgan":
        config.optimizers.discriminator = {"name": "rmsprop", "learning_rate": 5e-4, "clip_weights": 0.1}
    discriminator_steps = 5 if loss in ("wgan", "wgan_gp") else 1
    config.train.update(tensorboard=False, total_images=steps * discriminator_steps * config.train.batch_size)
    return config


def play(world: str, loss: str, steps: int, out: Path) -> dict[str, Any]:
    """Trains both players; writes the animation."""
    import jax
    import jax.numpy as jnp

    from jaxgen.adversarial.diagnostics import modes_covered
    from jaxgen.data.sources import gaussians
    from jaxgen.report.images import save_gif
    from jaxgen.train.loop import Trainer

    mixture = gaussians.WORLDS[world]
    axis = np.linspace(-REACH, REACH, SIDE)
    x, y = np.meshgrid(axis, -axis)
    plane = jnp.asarray(np.stack([x, y], -1).reshape(-1, 1, 2, 1), jnp.float32)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config_of(world, loss, steps), Path(folder))
        method = trainer.method

        @functools.partial(jax.jit, static_argnums=2)
        def draw(model: Any, seed: int, count: int) -> jax.Array:
            z, _ = method.sample_z(jax.random.split(jax.random.key(seed), count))
            return method.generate(model.params, model.memory, z, {}, train=False)[0]

        @jax.jit
        def surface(model: Any) -> jax.Array:
            return method.discriminate(model.params, model.memory, plane, {}, train=False)[0]["logits"]

        frames = []
        for step in range(steps):
            if step % (steps // FRAMES) == 0:
                now = trainer.model(ema=False)
                frames.append(frame(*map(np.asarray, (draw(now, 1, 1000), surface(now))), method.loss.boundary))
            trainer.take_step()
        samples = np.asarray(draw(trainer.model(), 2, 2500))
    save_gif(out / f"{world}_{loss}.gif", np.stack(frames), ms=120)
    coverage = modes_covered(samples, mixture.centres, mixture.std, least=10)
    share = coverage.counts / max(coverage.counts.sum(), 1)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum()
    evenness = round(float(entropy / np.log(len(share))), 4) if share.any() else None  # of no samples there is none
    return {
        "world": world, "loss": loss, "steps": steps, "modes": coverage.covered, "of": len(share),
        "high_quality": round(coverage.high_quality, 4), "evenness": evenness,
        "seconds": round(time.process_time() - begun, 1),
    }  # fmt: skip


def frame(points: np.ndarray, logits: np.ndarray, boundary: float | None) -> np.ndarray:
    """Returns uint8 `[SIDE, SIDE, 3]`: the discriminator in grey (its ranks where it has no boundary), samples in
    orange.
    """
    if boundary is None:
        grey = logits.argsort().argsort() / len(logits)
    else:
        grey = 1 / (1 + np.exp(-np.clip(logits - boundary, -30, 30)))
    picture = np.repeat((40 + 190 * grey).reshape(SIDE, SIDE, 1), 3, axis=-1)
    place = np.round((points.reshape(-1, 2) * (1, -1) / REACH + 1) / 2 * (SIDE - 1)).astype(int)
    inside = ((place >= 0) & (place < SIDE)).all(axis=1)
    picture[place[inside, 1], place[inside, 0]] = (255, 120, 0)
    return picture.astype(np.uint8)


def slopes(loss: str, moments: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Trains the discriminator alone, on the ring; see the module."""
    import jax
    import jax.numpy as jnp

    from jaxgen.adversarial.diagnostics import accuracy, generator_gradient_norm
    from jaxgen.adversarial.losses import Wasserstein
    from jaxgen.parallel.mesh import place
    from jaxgen.train.loop import Trainer

    config = config_of("ring8", loss, 2 * max(moments))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, Path(folder))
        method = trainer.method
        only = tuple(turn for turn in method.turns(0) if turn.name == "discriminator")
        update = trainer.update(only)
        real = trainer.sources[""].take(list(range(1000)))["image"]

        @jax.jit
        def look(model: Any) -> tuple[jax.Array, ...]:
            z, _ = method.sample_z(jax.random.split(jax.random.key(1), 1000))
            fake, memory = method.generate(model.params, model.memory, z, {}, train=False)

            def logits(images: jax.Array) -> jax.Array:
                return method.discriminate(model.params, memory, images, {}, train=False)[0]["logits"]

            norm, slope = (generator_gradient_norm(loss, logits, fake) for loss in (method.loss, Wasserstein()))
            return jnp.median(norm / slope), jnp.median(norm), *accuracy(logits(real), logits(fake))

        for step in range(max(moments) + 1):
            if step in moments:
                passed, norm, on_real, on_fake = map(float, look(trainer.model(ema=False)))
                row = {"loss": loss, "discriminator_steps": step * only[0].repeats, "share": passed, "norm": norm}
                yield row | ({} if method.loss.boundary is None else {"accuracy": (on_real + on_fake) / 2})
            batches = tuple(place(next(trainer.loader), trainer.mesh) for _ in range(only[0].repeats))
            trainer.state, metrics = update(trainer.state, trainer.frozen, batches)
            jax.block_until_ready(metrics)


def games_table(games: harness.Rows, steps: int) -> str:
    """Makes a table with a row for each loss and three columns for each world."""
    heads = [head for world in WORLDS for head in (f"{world}: modes", "good samples", "evenness")]
    lines = []
    for loss in LOSSES:
        rows = [games.where(world=world, loss=loss, steps=steps)[0] for world in WORLDS]
        cells = [
            (
                f"{r['modes']} of {r['of']}",
                f"{r['high_quality']:.3f}",
                "" if r["evenness"] is None else f"{r['evenness']:.3f}",
            )
            for r in rows
        ]
        lines.append([loss, *(cell for row in cells for cell in row)])
    return harness.table(["loss", *heads], lines)


def slopes_table(norms: harness.Rows, moments: tuple[int, ...]) -> str:
    """Makes a table with a row for each loss and a column for each number of steps of the discriminator alone."""
    lines = []
    for loss in LOSSES:
        cells = []
        for row in norms.where(loss=loss):
            accuracy = f" ({row['accuracy']:.3f})" if "accuracy" in row else ""
            cells.append(f"{row['share']:.3g}; {row['norm']:.2g}{accuracy}")
        lines.append([loss, *cells])
    title = "share of the discriminator's slope; norm of the gradient (accuracy) after so many steps"
    return harness.table([title, *moments], lines)


def main(
    out: Path,
    steps: Annotated[int, "steps of the generator"] = 5_000,
    moments: Annotated[tuple[int, ...], "steps of the discriminator alone at which it is looked at"] = MOMENTS,
) -> None:
    harness.prepare()
    games, norms = (harness.Rows(out / f"{name}.jsonl") for name in ("toys", "slopes"))
    for loss in LOSSES:
        if len(norms.where(loss=loss)) < len(moments):
            for row in list(slopes(loss, moments)):
                norms.add(row)
    for world in WORLDS:
        for loss in LOSSES:
            key = {"world": world, "loss": loss, "steps": steps}
            games.get(key, lambda key=key: play(**key, out=out))
    print(f"\n{games_table(games, steps)}\n\n{slopes_table(norms, moments)}")


if __name__ == "__main__":
    sys.exit(harness.run(main))

"""Rectified flow (flow matching) on 8x8 digits: straight paths, velocity, logit-normal timesteps, Euler steps.

Papers: Lipman et al. 2023, "Flow Matching for Generative Modeling"; Liu et al. 2023, "Flow Straight and Fast";
    Esser et al. 2024, Section 3.1, for the timesteps.
Command: python main.py --config=configs/flow_digits.py --workdir=runs/flow_digits
Hardware and time: two CPU cores, under 5 minutes of CPU.
Expected: an excess Fréchet distance of 0.006 and a class entropy of 0.998 of its maximum (docs/results.md).
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2),
            blocks=2,
            attention_resolutions=(4,),
            norm_groups=8,
            num_classes=0,
        ),
        schedule=section(name="rectified_flow"),
        prediction_type="velocity",
        timesteps=section(name="logit_normal"),
    )
    config.sampler = section(name="euler", steps=50)
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0, weight_decay=1e-4
    )
    config.train.update(
        batch_size=64,
        total_images=220_000,
        log_every_images=5_000,
        checkpoint_every_images=50_000,
        sample_every_images=40_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=125, network="digits", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config

"""EDM on 8x8 digits: its noise schedule, preconditioning, loss weight, noise levels and Heun sampler.

Paper: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", Table 1.
Command: python main.py --config=configs/edm_digits.py --workdir=runs/edm_digits
Hardware and time: two CPU cores, about 5 minutes.
Expected: an excess Fréchet distance of 0.010 (docs/results.md).
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
            time_embedding="fourier",
            fourier_std=1.0,
        ),
        schedule=section(name="edm", sigma_data=0.85),
        prediction_type="edm",
        weighting="edm",
        timesteps=section(name="log_normal", mean=-1.2, std=1.2),
    )
    config.sampler = section(name="heun", steps=18, spacing="karras")
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

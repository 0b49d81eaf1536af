"""unCLIP's upsampler: shapes of 64 pixels from copies of 32 pixels, without a text, as in the paper.

Noise on the copies, whose level the network is told, makes them like what the decoder draws (docs/cascades.md).

Paper: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents", section 2.1.
Command: python main.py --config=configs/unclip_upsampler_shapes.py --workdir=runs/unclip_upsampler_shapes
Hardware and time: two CPU cores, about 15 minutes of CPU, which is an estimate.
Expected: it is judged in the chain, configs/unclip_shapes_64.py; not recorded yet.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=3,
            patch_size=2,
            channels=16,
            channel_multipliers=(1, 2, 3),
            blocks=1,
            attention_levels=(),
            middle_attention=False,
            norm_groups=8,
            vector_dim=32,  # tells the network how much noise was added
        ),
        parts=section(low=section(name="image", noise=0.5, noise_features=32)),
        schedule=section(name="cosine", steps=1000),
        prediction_type="x0",
    )
    config.sampler = section(name="dpmpp_2m", steps=10, spacing="log_snr")
    config.data.update(source="caption_shapes:phrases", resolution=64, channels=3)
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    config.optimizer.update(learning_rate=1e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=8,
        total_images=24_000,
        log_every_images=2_000,
        checkpoint_every_images=6_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("psnr", "hint_error"))
    return config

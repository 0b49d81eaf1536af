"""Text to image: latent diffusion on captioned shapes at 64 pixels, with a text encoder that learns too.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
Command: python main.py --config=configs/latent_diffusion_shapes.py --workdir=runs/latent_diffusion_shapes, after the
    command of configs/kl_autoencoder_shapes.py. To evaluate it, after the command of configs/classifier_shapes.py:
    python -m studies.caption_accuracy --workdir=runs/latent_diffusion_shapes --classifier=runs/classifier_shapes
Hardware and time: two CPU cores, 27 minutes (41 minutes of CPU) on latents that were encoded once (docs/results.md).
Expected: shape, colour and place are all three right in 500 of 500 images of held-out combinations (the bar: 400).
A tenth of the combinations of shape, colour and place is in no training image; these are the split `unseen`.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="latent_diffusion",
        autoencoder=section(  # that of configs/kl_autoencoder_shapes.py
            name="autoencoder_kl",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4, 4),
            blocks=1,
            latent_channels=4,
            norm_groups=8,
        ),
        network=section(
            name="unet",
            out_channels=4,
            channels=48,
            channel_multipliers=(1, 2),
            blocks=2,
            attention_resolutions=(8, 4),
            heads=4,
            norm_groups=8,
            context_dim=64,
        ),
        text=section(name="text_encoder", vocabulary=28, length=8, width=64, depth=2, heads=4),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        label_dropout=0.1,
        decode_batch=16,
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=2.0)
    config.init_from.autoencoder = "runs/kl_autoencoder_shapes"
    config.data.update(source="caption_shapes", resolution=64, channels=3)
    config.optimizer.update(learning_rate=1e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=64,
        total_images=150_000,
        log_every_images=10_000,
        checkpoint_every_images=50_000,
        sample_every_images=50_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=200, real=2000, batch_size=50, metrics=("memorisation",))
    return config

"""Text to image: latent diffusion on emoji at 64 pixels, from their names, with a text encoder that learns too.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
Command: after the command of configs/kl_autoencoder_emoji.py,
    python -m jaxgen.sampling.latents runs/kl_autoencoder_emoji emoji_latents.npz --splits=train,test
    python -m jaxgen.data.sources.captions npz:emoji_latents.npz --length=10, which makes the vocabulary (1,342 ids of
    the names of 1,670 emoji; set method.text.vocabulary to what it says)
    python main.py --config=configs/latent_diffusion_emoji.py --workdir=runs/latent_diffusion_emoji
Data: as in configs/kl_autoencoder_emoji.py. source="captions:npz:emoji.npz" encodes the images at each step instead.
Hardware and time: two CPU cores, 55 minutes without other work.
Expected: held-out names of known words (another skin tone, another combination) give that emoji; all names whose only
    word is in no training caption give the same picture (docs/results.md).
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="latent_diffusion",
        autoencoder=section(  # the autoencoder of configs/kl_autoencoder_emoji.py
            name="autoencoder_kl",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4, 4),
            blocks=1,
            latent_channels=8,
            norm_groups=8,
        ),
        network=section(
            name="unet",
            out_channels=8,
            channels=64,
            channel_multipliers=(1, 2),
            blocks=2,
            attention_resolutions=(8, 4),
            heads=4,
            norm_groups=8,
            context_dim=64,
        ),
        text=section(name="text_encoder", vocabulary=1342, length=10, width=64, depth=2, heads=4),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        label_dropout=0.1,
        decode_batch=16,
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=2.0)
    config.init_from.autoencoder = "runs/kl_autoencoder_emoji"
    config.data.update(source="captions:npz:emoji_latents.npz", resolution=64, channels=3)
    config.optimizer.update(learning_rate=7e-4, warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=32,
        total_images=240_000,
        log_every_images=10_000,
        checkpoint_every_images=20_000,
        sample_every_images=20_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=200, batch_size=50, metrics=("memorisation",))
    return config

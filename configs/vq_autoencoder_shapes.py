"""A discrete autoencoder on captioned shapes at 32 pixels: 8x8 codes of a codebook of 128.

Papers: van den Oord et al. 2017, "Neural Discrete Representation Learning" (VQ-VAE, the codebook as a running mean);
    Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis" (the network).
Command: python main.py --config=configs/vq_autoencoder_shapes.py --workdir=runs/vq_autoencoder_shapes
Hardware and time: two CPU cores of a machine with other work, 6 minutes (8 CPU-minutes with the codes of all images).
Expected: on held-out scenes a PSNR of 31.9 dB, an absolute error of 0.017 a value, and all 128 codes in use with a
    perplexity of 79.
The second stage is configs/autoregressive_shapes.py. A discriminator and a perceptual network may be added as in
configs/kl_autoencoder_shapes.py.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="vq_autoencoder",
        network=section(
            name="autoencoder_vq",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4),
            blocks=1,
            latent_channels=8,
            codes=128,
            norm_groups=8,
        ),
        commitment=0.25,
        revive_below=0.03,
    )
    config.data.update(source="caption_shapes:phrases", resolution=32, channels=3)
    config.optimizer.update(name="adam", learning_rate=1e-3, warmup_images=2_000, decay="cosine", clip_norm=0.0)
    config.train.update(
        batch_size=16,
        total_images=32_000,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=0,
    )
    config.evaluate.update(real=1000, batch_size=50)
    return config

"""The autoencoder of latent diffusion on Fashion-MNIST (28x28, through TFDS): 7x7 latents of 4 channels.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1.
Command: python main.py --config=configs/kl_autoencoder_fashion_mnist.py --workdir=runs/kl_autoencoder_fashion_mnist
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, about 5 minutes.
Expected: a PSNR of 25.6 dB, an absolute error of 0.058 a value and a feature distance of 0.040 on the test images.
The second stage is configs/latent_diffusion_fashion_mnist.py. To train with the absolute error alone, as a control:
    --config.method.perceptual_weight=0.0 --config.method.adversarial_weight=0.0
The perceptual network is the classifier of Fashion-MNIST that comes with the package. Distances in its features are
trained directly, so they are a weaker evidence of quality here than for other models.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="kl_autoencoder",
        network=section(
            name="autoencoder_kl",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2, 2),
            blocks=1,
            latent_channels=4,
            norm_groups=8,
        ),
        discriminator=section(name="patch_discriminator", width=16, layers=2, norm="batch"),
        perceptual=section(name="classifier", widths=(16, 32, 48, 48), features=64),
        loss=section(name="hinge"),
        perceptual_weight=1.0,
        kl_weight=1e-6,
        adversarial_weight=0.1,
        adversarial_start=32_000,
        adaptive_limit=1e4,
    )
    config.init_from.perceptual = "classifier:fashion"
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1, num_classes=10)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.99, warmup_images=2_000, decay="cosine")
    config.train.update(
        batch_size=32,
        total_images=64_000,
        log_every_images=4_000,
        checkpoint_every_images=32_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(real=2000, batch_size=100)
    return config

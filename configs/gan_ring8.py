"""A non-saturating GAN on eight Gaussians on a ring, a toy problem whose distribution is known.

Paper: Goodfellow et al. 2014, "Generative Adversarial Nets"; the ring as in Metz et al. 2017 (Unrolled GAN).
Command: python main.py --config=configs/gan_ring8.py --workdir=runs/gan_ring8
For other losses: --config.method.loss.name=minimax (or least_squares, hinge). `python -m studies.gan_toys
--out=runs/gan_toys` trains all of them, counts the modes that they cover and draws the discriminator's surface.
Hardware and time: two CPU cores, under two minutes.
Expected: after 1,024,000 images the samples cover seven of the eight modes, and two thirds of the samples are
    on a mode (docs/results.md).
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="gan",
        generator=section(name="mlp_generator", z_dim=2, widths=(256, 256, 256), output="linear"),
        discriminator=section(name="mlp_discriminator", widths=(256, 256, 256)),
        loss=section(name="non_saturating"),
    )
    config.data.update(source="gaussians:ring8", resolution=(1, 2), channels=1, num_classes=8)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.99, decay="linear")
    config.train.update(
        batch_size=256,
        total_images=1_280_000,
        log_every_images=51_200,
        checkpoint_every_images=640_000,
        sample_every_images=0,
        ema_decay=0.995,
    )
    config.evaluate.update(num=2500, batch_size=500)
    return config

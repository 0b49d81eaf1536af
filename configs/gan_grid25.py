"""A non-saturating GAN on a grid of 5 x 5 Gaussians: a game whose data are known.

Paper: Goodfellow et al. 2014, "Generative Adversarial Nets"; the grid as in Dumoulin et al. 2017 (ALI).
Command: python main.py --config=configs/gan_grid25.py --workdir=runs/gan_grid25
Other losses: --config.method.loss.name=minimax (least_squares, hinge). All of them, with the modes that they cover and
pictures of the discriminator's surface: python -m studies.gan_toys --out=runs/gan_toys.
Hardware and time: two CPU cores, under two minutes.
Expected: docs/results.md.
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
    config.data.update(source="gaussians:grid25", resolution=(1, 2), channels=1, num_classes=25)
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

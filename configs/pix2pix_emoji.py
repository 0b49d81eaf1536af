"""pix2pix on emoji at 64 pixels: a black-and-white drawing becomes the emoji in colour.

The drawing does not tell the colours, so that L1 alone gives a mean of them, and the game decides for one. Controls:
--config.method.adversarial=0 (L1 alone) and --config.method.l1=0 (the game alone). A logit of the discriminator sees 70
pixels with layers=3, 16 with --config.method.discriminator.layers=1, and one with layers=0.

Paper: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks".
Command: python main.py --config=configs/pix2pix_emoji.py --workdir=runs/pix2pix_emoji
Data: emoji_pairs.npz with train_images and test_images, uint8 [N, 64, 64, 3], and the drawings train_condition and
    test_condition, uint8 [N, 64, 64, 1]; another source by --config.data.source, such as pairs:FOLDER.
Hardware and time: two CPU cores, 13 minutes while others used them too.
Expected: of 140 held-out drawings, L1 30.9 of 255 levels and PSNR 15.0 dB; Frechet distance in the network `filters`
    .022, where L1 alone has .035 and the game alone .306; real images have .006. Faces are yellow, and unusual colours
    are guessed.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="pix2pix",
        generator=section(name="translation_unet", width=16, downs=6, dropout_blocks=2),
        discriminator=section(name="patch_discriminator", width=16, layers=3, norm="instance", reads=("condition",)),
        l1=100.0,
    )
    config.data.update(source="npz:emoji_pairs.npz", resolution=64, channels=3)
    config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.5, b2=0.999)
    config.mesh.data = 1  # for a batch of 4 several CPU devices would mostly wait for each other
    config.train.update(
        batch_size=4,
        total_images=30_000,
        log_every_images=2_000,
        checkpoint_every_images=6_000,
        sample_every_images=12_000,
        ema_decay=0.995,
    )
    config.evaluate.update(num=140, real=1251, batch_size=35, network="filters", metrics=("l1", "psnr", "frechet"))
    return config

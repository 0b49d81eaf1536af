"""pix2pix on shapes at 32 pixels: a chalk drawing becomes the coloured scene.

A drawing tells all of its scene but small changes of shade, so that the distance to the true scene says how well it is
learned. Controls: --config.method.adversarial=0 (L1 alone) and --config.method.l1=0 (the game alone). The other
direction: --config.data.rename.image=style and --config.data.rename.condition=image.

Paper: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks".
Command: python main.py --config=configs/pix2pix_shapes.py --workdir=runs/pix2pix_shapes
Hardware and time: two CPU cores, about 8 minutes of CPU, which is an estimate.
Expected: not run to its end. After 8,000 images (200 held-out pairs) the mean difference to the true scene is 11.0
    of 255 levels, or .086 in [-1, 1], PSNR 23.8 dB; shapes and colours are right, and textures are blurred.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="pix2pix",
        generator=section(name="translation_unet", width=16, downs=5, dropout_blocks=2),
        discriminator=section(name="patch_discriminator", width=16, layers=2, norm="instance", reads=("condition",)),
        l1=100.0,
    )
    config.data.update(source="shapes", split="train", eval_split="test", resolution=32, channels=3)
    config.data.rename.condition = "style"
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.999)
    config.train.update(
        batch_size=16,
        total_images=32_000,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=16_000,
        ema_decay=0.995,
    )
    config.evaluate.update(num=500, real=2000, batch_size=50, network="filters", metrics=("l1", "psnr", "frechet"))
    return config

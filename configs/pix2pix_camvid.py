"""pix2pix on CamVid: street scenes of 72x96 pixels from their labels.

Paper: Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks".
Data: yours; those of configs/spade_camvid.py.
Command: python main.py --config=configs/pix2pix_camvid.py --workdir=runs/pix2pix_camvid --config.data.source=npz:FILE
    How true the pictures are to their labels, beside SPADE's:
    python -m studies.spade --run=SPADE=runs/spade_camvid --run=pix2pix=runs/pix2pix_camvid
        --segmenter=runs/segmenter_camvid --ignore=11 --num=117 --out=ROWS
Hardware and time: not recorded yet.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section

CLASSES = 12


def get_config():
    config = defaults()
    read = {"reads": ("mask",), "classes": CLASSES}
    config.method = section(
        name="pix2pix",
        generator=section(name="translation_unet", width=24, downs=3, dropout_blocks=1, **read),
        discriminator=section(name="patch_discriminator", width=24, layers=3, norm="instance", padding=2, **read),
        l1=100.0,
    )
    config.data.update(source="npz:camvid72x96.npz", resolution=(72, 96), channels=3, flip=True)
    config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.5, b2=0.999)
    config.mesh.data = 1  # for a batch of 4 several CPU devices would mostly wait for each other
    config.train.update(
        batch_size=4,
        total_images=16_000,
        log_every_images=800,
        checkpoint_every_images=4_000,
        sample_every_images=8_000,
        ema_decay=0.995,
    )
    config.evaluate.update(num=117, real=367, batch_size=39, network="filters", metrics=("l1", "psnr", "frechet"))
    return config

"""SPADE on CamVid: street scenes of 72x96 pixels from their labels, with a style encoder.

Paper: Park et al. 2019, "Semantic Image Synthesis with Spatially-Adaptive Normalization".
Data: yours. Images and maps of twelve classes in one archive, `train_images` uint8 [N, 72, 96, 3], `train_labels` uint8
    [N, 72, 96] and the same of `test`; the numbers here are of 367 and 117 frames of CamVid (Brostow et al. 2009, as in
    SegNet's repository, non-commercial), by the mean and by the most frequent label of blocks of 5x5 pixels.
Command: python main.py --config=configs/spade_camvid.py --workdir=runs/spade_camvid --config.data.source=npz:FILE
    How true the pictures are to their labels, by a segmenter of real frames:
    the command of configs/segmenter_camvid.py, then
    python -m studies.spade --run=SPADE=runs/spade_camvid --segmenter=runs/segmenter_camvid --ignore=11 --out=ROWS
Hardware and time: not recorded yet.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section

CLASSES = 12


def get_config():
    config = defaults()
    config.method = section(
        name="spade",
        generator=section(
            name="spade_generator",
            classes=CLASSES,
            z_dim=16,
            widths=(96, 96, 48, 24),
            middle=0,
            hidden=32,
            statistics="batch",
        ),
        discriminator=section(
            name="multi_scale",
            network=section(
                name="patch_discriminator",
                width=32,
                layers=3,
                norm="spectral_instance",
                padding=2,
                reads=("mask",),
                classes=CLASSES,
            ),
            scales=2,
        ),
        encoder=section(name="style_encoder", widths=(32, 64, 64)),
    )
    config.data.update(source="npz:camvid72x96.npz", resolution=(72, 96), channels=3, flip=True)
    config.optimizer.update(name="adam", learning_rate=2e-4, b1=0.0, b2=0.9)
    config.optimizers.discriminator = section(learning_rate=4e-4)
    config.train.update(
        batch_size=8,
        total_images=24_000,
        log_every_images=800,
        checkpoint_every_images=4_000,
        sample_every_images=8_000,
    )
    config.evaluate.update(num=117, real=367, batch_size=39, metrics=("conditional_diversity",))
    return config

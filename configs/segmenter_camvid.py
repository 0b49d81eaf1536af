"""A small U-Net that labels street scenes of CamVid (72x96 pixels, eleven classes): the reader of drawn scenes.

Paper: Ronneberger et al. 2015, "U-Net", for the network; the data are those of configs/spade_camvid.py.
Command: python main.py --config=configs/segmenter_camvid.py --workdir=runs/segmenter_camvid, with
    --config.data.source=npz:FILE
Hardware and time: not recorded yet.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section

CLASSES = 11  # class 11 of the data stands for none


def get_config():
    config = defaults()
    config.method = section(
        name="segmenter",
        network=section(
            name="unet",
            out_channels=CLASSES,
            channels=24,
            channel_multipliers=(1, 2, 3, 4),
            blocks=1,
            attention_levels=(),
            norm_groups=8,
            dropout=0.1,
        ),
        classes=CLASSES,
        ignore=11,
    )
    config.data.update(source="npz:camvid72x96.npz", resolution=(72, 96), channels=3, flip=True)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_images=400, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=8,
        total_images=12_000,
        log_every_images=800,
        checkpoint_every_images=4_000,
        sample_every_images=0,
        ema_decay=0.99,
    )
    config.evaluate.update(num=117, real=117, batch_size=39, metrics=(section(name="mean_iou", ignore=11),))
    return config

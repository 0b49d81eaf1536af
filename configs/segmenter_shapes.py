"""A small U-Net that labels the halves of shapes (32x32): a student of generated pairs, or an annotator.

Paper: Ronneberger et al. 2015, "U-Net", for the network; its uses are those of Zhang et al. 2021, "DatasetGAN".
Command: python main.py --config=configs/segmenter_shapes.py --workdir=runs/segmenter_shapes
    A student: --config.data.source=npz:pairs.npz, a file of python -m jaxgen.editing.dataset_gan pairs
    Its control, with few labels: --config.data.examples=16
Hardware and time: two CPU cores that were shared, 7 minutes.
Expected: a mean IoU of 0.993 on held-out images.
"""

from jaxgen.config import defaults, section

CLASSES = 3  # the ground, and what lies above and below the centre of the shape


def get_config():
    config = defaults()
    config.method = section(
        name="segmenter",
        network=section(
            name="unet",
            out_channels=CLASSES,
            channels=16,
            channel_multipliers=(1, 2, 3),
            blocks=1,
            attention_levels=(),
            norm_groups=8,
            dropout=0.1,
        ),
        classes=CLASSES,
    )
    config.data.update(source="caption_shapes:halves", resolution=32, channels=3)
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_images=400, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=24_000,
        log_every_images=1_600,
        checkpoint_every_images=8_000,
        sample_every_images=0,
        ema_decay=0.99,
    )
    config.evaluate.update(num=500, real=500, batch_size=50, metrics=("mean_iou",))
    return config

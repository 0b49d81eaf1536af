"""Masks of the halves of shapes from 16 labelled images of a StyleGAN2, and the features of its layers.

Paper: Zhang et al. 2021, "DatasetGAN: Efficient Labeled Data Factory with Minimal Human Effort".
Command: python main.py --config=configs/dataset_gan_shapes.py --workdir=runs/dataset_gan_shapes, after the commands of
    docs/dataset_gan.md that train runs/stylegan2_shapes and runs/segmenter_shapes and write labelled.npz
    Controls: --config=configs/dataset_gan_shapes.py:pixels, or :diffusion and :vae with
    --config.init_from.pretrained=RUN;
    python -m studies.dataset_gan makes the whole table.
Data: labelled.npz, see python -m jaxgen.editing.dataset_gan --help.
Hardware and time: two CPU cores, 2 minutes, which is an estimate.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section

FEATURES = {
    "generator": section(name="generator_layers"),
    "pixels": section(name="pixels"),
    "diffusion": section(
        name="diffusion_blocks",
        blocks=("middle_block_1", "up_2_block_1", "up_1_block_0", "up_1_block_1", "up_0_block_1"),
        times=(50, 150, 250),
    ),
    "vae": section(
        name="encoder_layers", layers=("encoder/down_0_block_0", "encoder/down_1_block_0", "encoder/down_2_block_0")
    ),
}
RUNS = {
    "generator": "runs/stylegan2_shapes", "pixels": "", "diffusion": "runs/ddpm_shapes",
    "vae": "runs/kl_autoencoder_shapes_32",
}  # fmt: skip


def get_config(features="generator"):
    config = defaults()
    config.method = section(
        name="segmentation",
        features=FEATURES[features],
        classes=3,  # the ground, and what lies above and below the centre of the shape
    )
    config.init_from.pretrained = RUNS[features]
    config.data.update(source="npz:labelled.npz", resolution=32, channels=3)
    if features in ("diffusion", "vae"):
        config.data.num_classes = 8  # as its run has, whose labels are not read
    config.optimizer.update(name="adam", learning_rate=2e-3, decay="cosine")
    config.train.update(
        batch_size=16,
        total_images=8_000,
        log_every_images=800,
        checkpoint_every_images=4_000,
        sample_every_images=0,
    )
    config.evaluate.update(num=100, real=100, batch_size=50, metrics=("mean_iou",))
    return config

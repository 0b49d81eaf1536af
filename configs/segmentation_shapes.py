"""Masks of shapes on patterned grounds from 20 labelled images and a diffusion model's features.

Paper: Baranchuk et al. 2022, "Label-Efficient Semantic Segmentation with Diffusion Models".
Command: python main.py --config=configs/ddpm_scenes.py --workdir=runs/ddpm_scenes, then
    python main.py --config=configs/segmentation_shapes.py --workdir=runs/segmentation_shapes
    Controls: --config.method.weights=random, or --config.method.features=pixels --config.init_from.pretrained='';
    python -m studies.segmentation_table makes the whole table (docs/segmentation.md).
Hardware and time: two CPU cores, 2 minutes of CPU with the evaluation.
Expected: a mean IoU of 0.301 on 500 held-out scenes with 20 labelled images (of three seeds on 200 scenes: 0.301, too).
    Raw pixels have 0.165, a U-Net with random weights 0.231, masked and variational autoencoders 0.244 and 0.214.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="segmentation",
        features=section(
            name="diffusion_blocks",
            blocks=("middle_block_1", "up_2_block_1", "up_1_block_0", "up_1_block_1", "up_0_block_1"),
            times=(50, 150, 250),
        ),
        classes=5,  # the ground, and the four shapes of the source
    )
    config.init_from.pretrained = "runs/ddpm_scenes"
    config.data.update(source="scenes:circle,square,triangle,cross", resolution=32, channels=3, examples=20)
    config.optimizer.update(name="adam", learning_rate=2e-3, decay="cosine")
    config.train.update(
        batch_size=10,
        total_images=1_500,
        log_every_images=250,
        checkpoint_every_images=750,
        sample_every_images=0,
    )
    config.evaluate.update(num=500, real=500, batch_size=50, metrics=("mean_iou",))
    return config

"""One Palette for six tasks on shapes at 64 pixels: colour, JPEG, three kinds of holes and uncropping.

Each training image has one of the tasks, drawn at random. A model of one task alone has the same command with
--config.data.corruptions.condition.only=<task>; the same flag evaluates this model on that task.

Paper: Saharia et al. 2022, "Palette: Image-to-Image Diffusion Models".
Command: python main.py --config=configs/palette_shapes.py --workdir=runs/palette_shapes
Hardware and time: one core of a CPU, 55 minutes.
Expected: a feature distance of 0.26 (thin strokes) to 0.58 (half) of another scene's, shuffled conditions 0.89 to 1.00;
    class kept 0.33 to 0.64, and JPEG worse than the JPEG itself: docs/palette.md has the table and what was tried.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="palette",
        network=section(
            name="unet",
            out_channels=3,
            patch_size=2,
            channels=32,
            channel_multipliers=(1, 2, 3),
            blocks=1,
            attention_levels=(2,),
            heads=4,
            norm_groups=8,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="x0",  # a patch's noise has more values than the finest level has channels to spare
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.data.update(source="shapes", resolution=64, channels=3)
    config.data.rename.object_mask = "mask"  # the shapes have one of their own, and here it says what is unknown
    config.data.corruptions.condition = section(
        name="one_of",
        tasks=section(
            colour=section(name="grey"),
            jpeg=section(name="jpeg", quality=(5, 30)),
            centre=section(name="hole", form="centre", share=0.5),
            half=section(name="hole", form="half"),
            free_form=section(name="hole", form="free_form"),
            uncrop=section(name="uncrop", sides="all", known=0.5),
        ),
    )
    config.optimizer.update(learning_rate=1e-3, warmup_images=1_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=4,  # smaller batches learn faster at first, see docs/palette.md
        total_images=40_000,
        log_every_images=2_000,
        checkpoint_every_images=6_000,
        sample_every_images=24_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=120, real=2000, batch_size=60, metrics=("psnr", "l1"))
    return config

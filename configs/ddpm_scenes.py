"""An unconditional DDPM of `scenes` at 32 pixels, whose features configs/segmentation_shapes.py reads.

Paper: Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; Baranchuk et al. 2022, "Label-Efficient Semantic
    Segmentation with Diffusion Models", for which it is trained.
Command: python main.py --config=configs/ddpm_scenes.py --workdir=runs/ddpm_scenes
Hardware and time: two CPU cores, 15 minutes on a machine with other work (18 minutes of CPU).
Expected: a denoising loss of 0.112. What its features are worth is in configs/segmentation_shapes.py.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4),
            blocks=1,
            attention_resolutions=(8,),
            norm_groups=8,
        ),
        schedule=section(name="cosine", steps=1000),
    )
    config.sampler = section(name="ddim", steps=50)
    config.data.update(source="scenes:circle,square,triangle,cross", resolution=32, channels=3)
    config.optimizer.update(learning_rate=1e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=32,
        total_images=80_000,
        log_every_images=2_000,
        checkpoint_every_images=20_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(real=1000, batch_size=50)
    return config

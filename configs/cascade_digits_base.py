"""The first stage of configs/cascade_digits.py: class-conditional DDPM on digits of 4x4 pixels.

Paper: Ho et al. 2022, "Cascaded Diffusion Models for High Fidelity Image Generation".
Command: python main.py --config=configs/cascade_digits_base.py --workdir=runs/cascade_digits_base
Hardware and time: two CPU cores, about 5 minutes, which is an estimate.
Expected: it is judged in the chain: an excess Fréchet distance of 0.013 and a label accuracy of 1.00.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2),
            blocks=2,
            attention_resolutions=(4,),
            norm_groups=8,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        label_dropout=0.1,
    )
    config.sampler = section(name="ddim", steps=50)
    config.guidance = section(name="classifier_free", scale=1.5)
    config.data.update(source="digits", resolution=4, channels=1, num_classes=10)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0, weight_decay=1e-4
    )
    config.train.update(
        batch_size=64,
        total_images=100_000,
        log_every_images=5_000,
        checkpoint_every_images=50_000,
        sample_every_images=50_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=125, metrics=("memorisation",))
    return config

"""The second stage of configs/cascade_digits.py: digits of 8x8 pixels from copies of 4x4 and their class.

Noise is added to the copies in training, so that the model forgives what a base model gets wrong (noise conditioning
augmentation, section 4.2 of the paper). Alone it is super-resolution, which PSNR and the hint error measure.

Paper: Ho et al. 2022, "Cascaded Diffusion Models for High Fidelity Image Generation".
Command: python main.py --config=configs/cascade_digits_upsampler.py --workdir=runs/cascade_digits_upsampler
Hardware and time: two CPU cores, about 5 minutes, which is an estimate.
Expected: an excess Fréchet distance of -0.009, a PSNR of 18.6 dB and a hint error of 0.083, where noise has 0.77.
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


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
            vector_dim=32,  # tells the network how much noise was added
        ),
        parts=section(low=section(name="image", noise=0.5, noise_features=32)),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        label_dropout=0.1,
    )
    config.sampler = section(name="ddim", steps=50)
    config.guidance = section(name="classifier_free", scale=1.5)
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
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
    config.evaluate.update(
        num=500, batch_size=125, network="digits", metrics=(*SAMPLE_METRICS, "label_accuracy", "psnr", "hint_error")
    )
    return config

"""A classifier of noisy 8x8 digits, p(y | x_t), which steers the unconditional model of configs/ddpm_digits.py.

Paper: Dhariwal & Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", Section 4 and Appendix I.
Command: python main.py --config=configs/noisy_classifier_digits.py --workdir=runs/noisy_classifier_digits
    then sample from runs/ddpm_digits with its guidance, see docs/guidance.md.
Hardware and time: two CPU cores, 1.5 minutes.
Expected: an accuracy of 0.99 at t = 0.05, 0.98 at 0.25, 0.77 at 0.5, 0.39 at 0.75 and 0.13 at 0.95 on held-out digits.
    If the training digits are shifted (data.crop=1), it is 0.67 at 0.5, and guidance works half as well.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="noisy_classifier",
        network=section(
            name="unet_encoder",
            channels=16,
            channel_multipliers=(1, 2),
            blocks=1,
            attention_resolutions=(4,),
            norm_groups=8,
            dropout=0.1,
        ),
        schedule=section(name="cosine", steps=1000),  # the schedule of the model that is guided
    )
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_images=5_000, decay="cosine", clip_norm=1.0, weight_decay=5e-2
    )
    config.train.update(
        batch_size=64,
        total_images=200_000,
        log_every_images=5_000,
        checkpoint_every_images=50_000,
        sample_every_images=0,
        ema_decay=0.999,
    )
    return config

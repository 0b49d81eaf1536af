"""DDPM on MNIST (28x28, through TFDS), small enough for two CPU cores.

Paper: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with a cosine schedule and v-prediction.
Command: python main.py --config=configs/ddpm_mnist.py --workdir=runs/ddpm_mnist
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, about 15 minutes. On a GPU, widen it: --config.method.network.channels=64.
Expected: a denoising loss of 0.116 on the test images; the model is an example and not tuned (docs/results.md).
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
            channel_multipliers=(1, 2, 4),
            blocks=1,
            attention_resolutions=(7,),
            norm_groups=8,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="ddim", steps=50)
    config.data.update(source="tfds:mnist", resolution=28, channels=1)
    config.optimizer.update(learning_rate=1e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=32,
        total_images=96_000,
        log_every_images=5_000,
        checkpoint_every_images=16_000,
        sample_every_images=16_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=500, batch_size=100, metrics=("memorisation",))
    return config

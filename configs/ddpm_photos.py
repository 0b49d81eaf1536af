"""DDPM on a folder of your own photos (64x64, RGB, without labels and captions).

Paper: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with a cosine schedule and v-prediction.
Command: python main.py --config=configs/ddpm_photos.py --config.data.source=folder:PHOTOS --workdir=runs/photos
Data: a folder of RGB pictures of any size, in the formats of docs/data.md; each is cropped to a square and resized, and
    a tenth is held out.
Hardware and time: meant for a GPU. To try it on two CPU cores: --config.data.resolution=32
    --config.method.network.channels=16 --config.method.network.norm_groups=8 --config.train.total_images=96000
    --config.optimizer.warmup_images=2000 --config.train.ema_decay=0.999 --config.train.log_every_images=2000
    --config.train.checkpoint_every_images=8000 --config.train.sample_every_images=16000 --config.evaluate.num=100.
    A shorter run needs a shorter warm-up and fewer images between two checkpoints.
Expected: unknown, since it has not been run to its end yet. A few thousand photos are few; the report shows
    whether samples are near copies of them.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=3,
            channels=64,
            channel_multipliers=(1, 2, 2, 4),
            blocks=2,
            attention_resolutions=(16,),
            norm_groups=32,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="ddim", steps=50)
    config.data.update(source="folder:photos", resolution=64, channels=3, flip=True)
    config.optimizer.update(learning_rate=2e-4, warmup_images=50_000, clip_norm=1.0)
    config.train.update(
        batch_size=64,
        total_images=2_000_000,
        log_every_images=10_000,
        checkpoint_every_images=100_000,
        sample_every_images=100_000,
        ema_decay=0.9999,
    )
    config.evaluate.update(num=500, batch_size=100, metrics=("memorisation",))
    return config

"""A masked autoencoder of shapes on patterned grounds (`scenes`, 32 pixels), 3 of 4 patches missing.

Paper: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".
Command: python main.py --config=configs/mae_shapes.py --workdir=runs/mae_shapes
Hardware and time: two CPU cores, 2 minutes.
Expected: a squared error of 0.590 over the missing patches of held-out images, each of which has the variance 1. The
    mean of the visible patches has 0.675, and a copy of the nearest one 1.161.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="mae",
        encoder=section(name="mae_encoder", patch_size=4, width=96, depth=4, heads=4),
        decoder=section(name="mae_decoder", width=64, depth=2, heads=4),
    )
    config.data.update(source="scenes:circle,square,triangle,cross", resolution=32, channels=3)
    config.optimizer.update(learning_rate=1e-3, warmup_images=4_000, decay="cosine", b2=0.95, weight_decay=0.05)
    config.train.update(
        batch_size=64,
        total_images=60_000,
        log_every_images=4_000,
        checkpoint_every_images=20_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(real=1000, batch_size=50)
    return config

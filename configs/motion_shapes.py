"""Videos of moving shapes at 64 pixels: temporal layers between the frozen blocks of a model of images.

Paper: Guo et al. 2024, "AnimateDiff: Animate Your Personalized Text-to-Image Diffusion Models without Specific Tuning".
Command: python main.py --config=configs/motion_shapes.py --workdir=runs/motion_shapes, after the commands of
    configs/kl_autoencoder_concepts.py and configs/latent_diffusion_concepts.py
Hardware and time: two CPU cores that other work shared, about 17 minutes of CPU.
Expected: a track error of 1.1 pixels on a way of 12.8 (true videos: 0.07 on 15.2), 3.8 with shuffled frames; the base's
    independent frames have 0.66 on 0.73. The equations and all numbers are in docs/motion.md.
"""

from jaxgen.config import defaults, section

FRAMES = 8


def get_config():
    config = defaults()
    config.method = section(
        name="tuned", grafts=section(motion=section(name="motion", frames=FRAMES, heads=4, positions=32))
    )
    config.init_from.pretrained = "runs/latent_diffusion_concepts"
    config.data.update(source="moving_shapes", resolution=64, channels=3)
    config.data.options = section(frames=FRAMES)
    config.optimizer.update(learning_rate=1e-3, warmup_images=400, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=8,  # videos, of which the U-Net sees 64 frames
        total_images=6_400,
        log_every_images=400,
        checkpoint_every_images=2_000,
        sample_every_images=0,
        ema_decay=0.995,
    )
    config.evaluate.update(num=48, real=64, batch_size=16, metrics=("tracks",))
    return config

"""Textual inversion on shapes: four vectors of a new word learn what five pictures of a ring have in common.

Paper: Gal et al. 2022, "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual
    Inversion", Eq. 2.
Command: python main.py --config=configs/textual_inversion_concepts.py --workdir=runs/textual_inversion_concepts,
    after the command of configs/latent_diffusion_concepts.py
Hardware and time: two CPU cores, 3 minutes of CPU.
Expected: 0.86 of 200 images for new captions show the ring, 0.51 with all else as asked; old texts give old images.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.init_from.pretrained = "runs/latent_diffusion_concepts"
    config.method = section(
        name="tuned", grafts=section(token=section(name="token_rows", word="<ring>", initial="circle", count=4))
    )
    config.data.update(source="concept_shapes:ring=<ring>", resolution=64, channels=3)
    config.optimizer.update(learning_rate=3e-2, warmup_images=80, weight_decay=0.0, clip_norm=1.0)
    config.train.update(
        batch_size=8,
        total_images=9_600,
        log_every_images=600,
        checkpoint_every_images=600,
        sample_every_images=0,
        keep_last=100,
        ema_decay=0.0,
    )
    config.evaluate.update(num=200, batch_size=50, metrics=("memorisation",))
    return config

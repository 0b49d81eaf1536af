"""DreamBooth on shapes: the whole U-Net and text encoder learn a ring from five pictures, under a rare word.

Paper: Ruiz et al. 2023, "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation",
    section 3.
Command: python main.py --config=configs/dreambooth_concepts.py --workdir=runs/dreambooth_concepts,
    after the command of configs/latent_diffusion_concepts.py
Hardware and time: two CPU cores, 11 minutes of CPU.
Expected: 0.925 of 200 images for new captions show the ring, and 0.97 of old captions are right (before: 0.98).
A copy without prior_weight and config.data.extra.prior forgets all old captions (0.00).
"""

from configs.latent_diffusion_concepts import known_sentences
from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.init_from.pretrained = "runs/latent_diffusion_concepts"
    config.method = section(
        name="tuned",
        grafts=section(unet=section(name="leaves"), encoder=section(name="leaves", group="text")),
        prior_weight=1.0,
    )
    config.data.update(source="concept_shapes:ring=sks", resolution=64, channels=3)
    config.data.extra.prior = section(source="sampled", captions=known_sentences(), num=200)
    config.optimizer.update(learning_rate=1e-4, warmup_images=80, weight_decay=0.0, clip_norm=1.0)
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

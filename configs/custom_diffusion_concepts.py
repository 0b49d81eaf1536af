"""Custom Diffusion on shapes: keys and values of cross-attention learn a ring, and the row of its word.

Paper: Kumari et al. 2023, "Multi-Concept Customization of Text-to-Image Diffusion", section 3.
Command: python main.py --config=configs/custom_diffusion_concepts.py --workdir=runs/custom_diffusion_concepts,
    after the command of configs/latent_diffusion_concepts.py
Hardware and time: two CPU cores, 3.5 minutes of CPU.
Expected: 0.97 of 200 images for new captions show the ring, and 0.90 of old captions are right (before: 0.98).
"""

from configs.latent_diffusion_concepts import known_sentences
from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.init_from.pretrained = "runs/latent_diffusion_concepts"
    config.method = section(
        name="tuned",
        grafts=section(
            kv=section(name="leaves", where=r"cross_attention/(key|value)/"),
            token=section(name="token_rows", word="<ring>", initial="circle", count=4),
        ),
        prior_weight=1.0,
    )
    config.data.update(source="concept_shapes:ring=<ring>", resolution=64, channels=3)
    config.data.extra.prior = section(source="sampled", captions=known_sentences(), num=200)
    config.optimizer.update(learning_rate=1e-3, warmup_images=80, weight_decay=0.0, clip_norm=1.0)
    config.train.update(
        batch_size=8,
        total_images=4_800,
        log_every_images=600,
        checkpoint_every_images=600,
        sample_every_images=0,
        keep_last=100,
        ema_decay=0.0,
    )
    config.evaluate.update(num=200, batch_size=50, metrics=("memorisation",))
    return config

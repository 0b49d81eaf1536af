"""The classifier of textured shapes on black, which tells what a tuned model has drawn, new things too.

Command: python main.py --config=configs/classifier_concepts.py --workdir=runs/classifier_concepts; then
    python -m studies.concepts --base=runs/latent_diffusion_concepts --classifier=runs/classifier_concepts ...
Hardware and time: two CPU cores, 4 minutes beside other work.
Expected: all four attributes are right in 800 of 800 held-out scenes, with and without the concepts.
It learns from every combination of shape, colour, texture and place, those with a ring, stripes or purple too.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="classifier",
        network=section(name="classifier", num_classes=29, widths=(8, 16, 32, 48, 48), features=64, dropout=0.1),
        attributes=(("shape", 8), ("colour", 8), ("texture", 4), ("position", 9)),
        label_smoothing=0.05,
        noise=0.1,
    )
    config.data.update(source="concept_shapes", split="all", resolution=64, channels=3, num_classes=8)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", weight_decay=1e-2)
    config.train.update(
        batch_size=64,
        total_images=90_000,
        log_every_images=5_000,
        checkpoint_every_images=30_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(batch_size=50)
    return config

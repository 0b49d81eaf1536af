"""ControlNet on contours, on the text-to-image model of textured shapes: texts say what, drawings say where.

Paper: Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models".
Command: python main.py --config=configs/control_shapes.py --workdir=runs/control_shapes, after the commands of
    configs/kl_autoencoder_concepts.py and configs/latent_diffusion_concepts.py
Hardware and time: one CPU core, 19 minutes.
Expected: an edge F-score of 0.965 and an RMSE of edges of 0.047 with held-out contours, where the base has 0.917 and
    0.069; the contours begin to be followed after 2,000 of the 6,000 steps (docs/controlnet.md).
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(name="tuned", grafts=section(control=section(name="control")), label_dropout=0.5)
    config.init_from.pretrained = "runs/latent_diffusion_concepts"
    config.data.update(source="concept_shapes", resolution=64, channels=3)
    config.data.corruptions.hint = section(name="edges")
    config.optimizer.update(learning_rate=1e-3, warmup_images=800, clip_norm=1.0)
    config.train.update(
        batch_size=8,
        total_images=48_000,
        log_every_images=800,
        checkpoint_every_images=4_800,
        keep_last=20,  # the curves of docs/controlnet.md are read from all of them
        sample_every_images=0,
        ema_decay=0.99,
    )
    config.evaluate.update(num=100, real=1000, batch_size=50, metrics=("hint_error",))
    return config

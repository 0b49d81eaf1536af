"""Text to image on textured shapes at 64 pixels: the small trained model that tuning starts from.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
Command: python main.py --config=configs/latent_diffusion_concepts.py --workdir=runs/latent_diffusion_concepts, after
    the command of configs/kl_autoencoder_concepts.py
Hardware and time: two CPU cores, 24 minutes of CPU on latents that were encoded once (docs/results/tuning.md).
Expected: shape, colour, texture and place are all right in 0.98 of 200 images of held-out captions.
No image of its data has a ring, stripes or purple, and no caption their names (`concept_shapes`): they are what the
configs of docs/tuning.md teach it.
"""

from configs.kl_autoencoder_concepts import NETWORK
from jaxgen.config import defaults, section

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star", "heart")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "pink")
TEXTURES = ("", "dotted ", "checked ")
PLACES = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")


def known_sentences() -> tuple[str, ...]:
    """Returns 63 of the sentences that this model learns from, for the images of a tuning's prior."""
    found = []
    for i in range(len(COLOURS) * len(PLACES)):
        described = f"{TEXTURES[i % 3]}{COLOURS[i % 7]} {SHAPES[(i + i // 7) % 7]}"
        found.append(f"{'an' if described[0] in 'aeiou' else 'a'} {described} at the {PLACES[i % 9]}")
    return tuple(found)


def get_config():
    config = defaults()
    config.method = section(
        name="latent_diffusion",
        autoencoder=section(**NETWORK),
        network=section(
            name="unet",
            out_channels=4,
            channels=48,
            channel_multipliers=(1, 2),
            blocks=2,
            attention_resolutions=(8, 4),
            heads=4,
            norm_groups=8,
            context_dim=64,
            patch_size=2,
        ),
        text=section(name="text_encoder", vocabulary=30, length=12, width=64, depth=2, heads=4),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        label_dropout=0.1,
        decode_batch=16,
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=2.0)
    config.init_from.autoencoder = "runs/kl_autoencoder_concepts"
    config.data.update(source="concept_shapes", resolution=64, channels=3)
    config.optimizer.update(learning_rate=1e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=64,
        total_images=110_000,
        log_every_images=10_000,
        checkpoint_every_images=22_000,
        sample_every_images=0,
        ema_decay=0.999,
    )
    config.evaluate.update(num=200, real=2000, batch_size=50, metrics=("memorisation",))
    return config

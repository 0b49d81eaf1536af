"""Imagen's super-resolution from 64x64 to 256x256 pixels with T5-XXL, at the published sizes; for accelerators.

The network is the Efficient U-Net of appendix F: 128 channels, multipliers (1, 2, 4, 8), blocks (2, 4, 8, 8), attention
to the text at the coarsest level. Its data are captioned pictures in `photos` (docs/data.md), and `t5` is a folder of
T5-XXL with its tokenizer, as transformers writes it.

Paper: Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding".
Command: python main.py --config=configs/imagen_256.py --workdir=runs/imagen_256
Hardware and time: it was only planned: --mode=plan --topology=v5e:4x4 says what it needs, see docs/imagen.md.
Expected: not run.
"""

from jaxgen.config import defaults, section

XXL = dict(name="t5_encoder", length=128, width=4096, depth=24, heads=64, head_width=64, mlp_features=10240)


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=3,
            channels=128,
            channel_multipliers=(1, 2, 4, 8),
            blocks=(2, 4, 8, 8),
            skip_scale=2**-0.5,
            attention_levels=(3,),
            only_cross_attention=True,
            head_channels=64,
            context_dim=4096,
            vector_dim=4096 + 128,
            dtype="bfloat16",
            remat="block",
        ),
        parts=section(
            low=section(name="image", noise=1.0, noise_features=128),
            text=section(
                name="text", network=section(**XXL, dtype="bfloat16"), learns=False, pooled=True, normalise=True,
                dropout=0.1,
            ),
        ),
        schedule=section(name="cosine", steps=1000),
    )  # fmt: skip
    config.init_from.update(text="t5_encoder:t5", dtype="bfloat16")
    config.sampler = section(name="ddpm", steps=100)
    config.guidance = section(name="classifier_free", scale=4.0, threshold=0.995)
    config.data.update(source="folder:photos", tokenizer="t5", token_length=128, resolution=256, channels=3)
    config.data.corruptions.condition = section(name="low_resolution", factor=4)
    config.mesh.fsdp = 8
    config.optimizer.update(learning_rate=1e-4, warmup_images=10_000 * 2048, clip_norm=1.0)
    config.train.update(
        batch_size=64,
        total_images=5_000_000,
        log_every_images=25_000,
        checkpoint_every_images=250_000,
        sample_every_images=0,
        ema_decay=0.9999,
    )
    config.evaluate.update(num=1000, real=1000, batch_size=64, metrics=())
    return config

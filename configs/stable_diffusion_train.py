"""Text to image at 512 pixels in the shapes of Stable Diffusion 1.5; text encoder and autoencoder are frozen.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; batch 2048, AdamW at 1e-4,
    a tenth of the captions dropped and EMA 0.9999 as for the published weights.
Command: python main.py --config=configs/stable_diffusion_train.py --config.data.source=captions:folder:PHOTOS
    --config.init_from.autoencoder=autoencoder_kl:FOLDER/vae --config.init_from.text=clip_text:FOLDER/text_encoder
    --workdir=runs/stable_diffusion, where FOLDER is a pipeline that diffusers wrote. Copy its folder `tokenizer` to
    PHOTOS.tokenizer. On a pod also --config.mesh.fsdp=N.
Hardware and time: planned for TPU v5e slices (docs/scale.md), never run at this size.
Expected: it has not been measured. Planned: 14.9 of a chip's 17.2 GB on v5e:16x16 with mesh.fsdp=16.
"""

from jaxgen.config import defaults, section


def autoencoder():
    """Returns that of Stable Diffusion, computed in bfloat16."""
    return section(
        name="autoencoder_kl",
        out_channels=3,
        channels=128,
        channel_multipliers=(1, 2, 4, 4),
        blocks=2,
        latent_channels=4,
        norm_groups=32,
        dtype="bfloat16",
    )


def denoiser():
    """Returns the U-Net of Stable Diffusion, computed in bfloat16."""
    return section(
        name="unet",
        out_channels=4,
        channels=320,
        channel_multipliers=(1, 2, 4, 4),
        blocks=2,
        attention_levels=(0, 1, 2),
        heads=8,
        norm_groups=32,
        context_dim=768,
        dtype="bfloat16",
        remat="block",
    )


def get_config():
    config = defaults()
    config.method = section(
        name="latent_diffusion",
        autoencoder=autoencoder(),
        scale=0.18215,
        network=denoiser(),
        text=section(
            name="text_tower",
            vocabulary=49408,
            length=77,
            width=768,
            depth=12,
            heads=12,
            mlp_features=3072,
            dtype="bfloat16",
        ),
        text_learns=False,
        empty=(49406, 49407),
        pad=49407,
        mask_padding=False,
        schedule=section(name="scaled_linear", steps=1000),
        prediction_type="epsilon",
        label_dropout=0.1,
        decode_batch=1,
    )
    config.sampler = section(name="ddim", steps=50, clip=False, guidance_scale=7.5)
    config.init_from.update(autoencoder="autoencoder_kl:sd/vae", text="clip_text:sd/text_encoder")
    config.data.update(
        source="captions:folder:photos", split="train", eval_split="test", resolution=512, channels=3, flip=True
    )
    config.optimizer.update(name="adamw", learning_rate=1e-4, warmup_images=10_000 * 2048, weight_decay=1e-2)
    config.train.update(
        batch_size=2048,
        total_images=200_000 * 2048,
        log_every_images=100 * 2048,
        checkpoint_every_images=2_000 * 2048,
        sample_every_images=10_000 * 2048,
        ema_decay=0.9999,
    )
    config.evaluate.update(num=1_000, batch_size=64)
    return config

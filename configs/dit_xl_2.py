"""DiT-XL/2 on ImageNet at 256 pixels, by class, in the latents of Stable Diffusion's autoencoder.

Paper: Peebles & Xie 2023, "Scalable Diffusion Models with Transformers" (675 million parameters, batch 256, AdamW at a
    constant 1e-4, EMA 0.9999), here with a fixed variance instead of a learned one.
Command: python main.py --config=configs/dit_xl_2.py --config.data.source=folder:IMAGENET --workdir=runs/dit_xl_2
    --config.init_from.autoencoder=autoencoder_kl:FOLDER, the `vae` of a pipeline that diffusers wrote; on a pod also
    --config.mesh.fsdp=N. IMAGENET holds train/<class>/*.png and val/<class>/*.png.
Hardware and time: planned for TPU v5e slices (docs/scale.md), never run at this size.
Expected: it has not been measured. The paper reports an FID of 2.27 with a learned variance after 7
    million steps, with a guidance of 1.5.
"""

from configs.stable_diffusion_train import autoencoder
from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="latent_diffusion",
        autoencoder=autoencoder(),
        scale=0.18215,
        network=section(
            name="dit",
            out_channels=4,
            patch_size=2,
            width=1152,
            depth=28,
            heads=16,
            dtype="bfloat16",
            remat="block",
            scan_blocks=True,
        ),
        schedule=section(name="linear", steps=1000),
        prediction_type="epsilon",
        label_dropout=0.1,
        decode_batch=8,
    )
    config.sampler = section(name="ddpm", steps=250, clip=False, guidance_scale=1.5)
    config.init_from.autoencoder = "autoencoder_kl:sd-vae"
    config.data.update(
        source="folder:imagenet",
        split="train",
        eval_split="val",
        resolution=256,
        channels=3,
        num_classes=1000,
        flip=True,
    )
    config.optimizer.update(name="adamw", learning_rate=1e-4, weight_decay=0.0)
    config.train.update(
        batch_size=256,
        total_images=400_000 * 256,
        log_every_images=25_600,
        checkpoint_every_images=1_280_000,
        sample_every_images=5_000 * 256,
        ema_decay=0.9999,
    )
    config.evaluate.update(num=10_000, batch_size=256)
    return config

"""Fine-tunes a whole Stable Diffusion 1 or 2 that diffusers wrote, on captioned pictures of one's own.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; learning rate, batch size
    and clipping are those of diffusers' example `train_text_to_image.py`.
Command: python main.py --config=configs/stable_diffusion_finetune.py --config.init_from.pretrained=FOLDER
    --config.data.source=folder:PHOTOS --workdir=runs/finetune, where PHOTOS has captions (docs/data.md); then
    python -m jaxgen.sampling.export runs/finetune OUT writes a folder that diffusers loads.
Hardware and time: it has been tried with tiny networks only; at the size of Stable Diffusion 1.5 it needs 18 GB
    with gradients, and 21 GB with the activations of four images in bfloat16 and remat="block" (docs/scale.md).
Expected: it has not been measured.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.init_from.pretrained = ""  # the folder: networks, noise, scale, tokenizer and weights
    config.init_from.dtype = "float32"  # type of the weights that do not learn; "bfloat16" halves them
    config.method = section(
        name="latent_diffusion",
        network=section(dtype="float32", remat=""),  # changes to the folder's U-Net, such as "bfloat16" and "block"
        text_learns=False,  # True trains the text encoder too
        label_dropout=0.0,  # share of captions that are replaced by the empty one
        decode_batch=1,
    )
    config.sampler = section(name="ddim", steps=50, clip=False, guidance_scale=7.5)
    config.data.update(source="folder:photos", split="train", eval_split="test", resolution=512, channels=3)
    config.optimizer.update(
        name="adamw", learning_rate=1e-5, warmup_images=500 * 16, decay="constant", clip_norm=1.0, weight_decay=1e-2
    )
    config.train.update(
        batch_size=16,
        total_images=15_000 * 16,
        log_every_images=50 * 16,
        checkpoint_every_images=1_000 * 16,
        sample_every_images=1_000 * 16,
        ema_decay=0.9999,
    )
    config.evaluate.update(num=64, batch_size=4)
    return config

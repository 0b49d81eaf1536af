"""Few-shot diffusion on 8x8 digits: is shown five eights or five nines, classes that it has never met.

Paper: Giannone, Nielsen & Winther 2022, "Few-Shot Diffusion Models".
Command: python main.py --config=configs/fsdm_digits.py --workdir=runs/fsdm_digits
Hardware and time: two CPU cores, about 7 minutes (11 CPU minutes).
To sample for pictures of your own: --mode=sample --image=FOLDER --out=DIR
Expected: unseen classes are NOT drawn: accuracy 0.003, no set 0.013; 8 classes are too few (docs/few_shot.md).
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    width = 32
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2),
            blocks=2,
            attention_resolutions=(4,),
            heads=4,
            norm_groups=8,
            time_mode="adaptive",
            context_dim=width,
            vector_dim=width,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        parts=section(
            set=section(
                name="set",
                dropout=0.1,
                network=section(name="set_encoder", patch_size=2, width=width, depth=2, heads=4),
            )
        ),
    )
    config.sampler = section(name="ddim", steps=50)
    config.guidance = section(name="classifier_free", scale=1.5)
    config.data.update(source="sets:digits", split="train", eval_split="train/unseen", resolution=8, channels=1)
    config.data.options = section(size=5, unseen=("8", "9"))
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0, weight_decay=1e-4
    )
    config.train.update(
        batch_size=64,
        total_images=180_000,
        log_every_images=5_000,
        checkpoint_every_images=50_000,
        sample_every_images=50_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=500, batch_size=125, network="digits", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config

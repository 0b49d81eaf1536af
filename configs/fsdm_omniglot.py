"""Few-shot diffusion on Omniglot (28x28): draws a character of an unknown alphabet from five drawings of it.

Two of the eight alphabets are held out (Balinese and Korean, 64 of 242 characters). The data are yours to give, as an
npz file with `images` uint8 [N, 28, 28] (ink is 255), `character` and `alphabet` int [N]:
--config.data.source=sets:npz:PATH

Paper: Giannone, Nielsen & Winther 2022, "Few-Shot Diffusion Models".
Command: python main.py --config=configs/fsdm_omniglot.py --config.data.source=sets:npz:omniglot28.npz \
    --workdir=runs/fsdm_omniglot
Hardware and time: two CPU cores, about 15 minutes.
To sample for drawings of your own: --mode=sample --image=FOLDER --out=DIR
Expected: accuracy 0.172 on unseen characters, no set 0.045, another set 0.041, real 0.920 (docs/few_shot.md).
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    width = 64
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2, 4),
            blocks=1,
            attention_resolutions=(7,),
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
                network=section(name="set_encoder", patch_size=7, width=width, depth=2, heads=4),
            )
        ),
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=1.5)
    config.data.update(
        source="sets:npz:omniglot28.npz", split="all", eval_split="all/unseen", resolution=28, channels=1
    )
    config.data.rename = section(label="character")
    config.data.options = section(size=5, by="alphabet", unseen=(0, 4))
    config.optimizer.update(
        name="adamw", learning_rate=1e-3, warmup_images=5_000, decay="cosine", clip_norm=1.0, weight_decay=1e-4
    )
    config.train.update(
        batch_size=32,
        total_images=100_000,
        log_every_images=2_000,
        checkpoint_every_images=10_000,
        sample_every_images=50_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=320, batch_size=80, metrics=("memorisation",))
    return config

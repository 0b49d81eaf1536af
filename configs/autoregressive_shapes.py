"""Text to image, token by token: a transformer over captions and the codes of shapes at 32 pixels.

Paper: Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation" (DALL-E). Here the codes are those of a VQ autoencoder,
    attention is dense, and texts are dropped in training for classifier-free guidance.
Command: python main.py --config=configs/autoregressive_shapes.py --workdir=runs/autoregressive_shapes, after the
    command of configs/vq_autoencoder_shapes.py. It trains faster on codes that are written once:
    python -m jaxgen.sampling.latents runs/vq_autoencoder_shapes shapes_codes.npz --splits=train,test,unseen
    and then --config.data.source=npz:shapes_codes.npz in the command above.
Hardware and time: two CPU cores of a machine with other work, 11 minutes, on codes that were written once.
Expected: 1.51 bits a code on held-out scenes, and 4.45 under the text of another; shape, colour and place are all three
    right in 0.885 of 200 images of held-out captions at guidance 2, in 0.775 without guidance, and in 0.88 of 200
    images of unseen combinations at guidance 2.
A tenth of the combinations of shape, colour and place is in no training image; these are the split `unseen`.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="autoregressive",
        network=section(name="causal_transformer", width=128, depth=6, heads=4),
        autoencoder=section(  # that of configs/vq_autoencoder_shapes.py
            name="autoencoder_vq",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4),
            blocks=1,
            latent_channels=8,
            codes=128,
            norm_groups=8,
        ),
        vocabulary=56,
        length=16,
        text_dropout=0.1,
        text_weight=1 / 8,
    )
    config.sampler = section(temperature=1.0, top_k=0)
    config.guidance = section(name="classifier_free", scale=2.0)
    config.init_from.autoencoder = "runs/vq_autoencoder_shapes"
    config.data.update(source="caption_shapes:phrases", resolution=32, channels=3)
    config.optimizer.update(name="adam", learning_rate=1e-3, warmup_images=5_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=64,
        total_images=60_000,
        log_every_images=3_000,
        checkpoint_every_images=15_000,
        sample_every_images=30_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy",))
    return config

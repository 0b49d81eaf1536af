"""A ControlNet that reads what is light and dark, so that a QR code can steer pictures of textured scenes.

The hint is made of each training image (`brightness`); at sampling it is a QR code of any text, or another picture in
black and white.

Paper: Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models".
Command: python main.py --config=configs/control_qr.py --workdir=runs/control_qr, after the command of
    configs/ddpm_scenes.py. A code of 32x32 pixels, and pictures that it steers (docs/controlnet.md):
    python -m studies.qr --text=JAXGEN --code=code.png
    python main.py --workdir=runs/control_qr --mode=sample --num=16 --hint=code.png --out=samples
    and, for a larger scale than in training, --config.method.grafts.control.scale=1.5
Hardware and time: two CPU cores, 2 minutes of CPU for training.
Expected: at a conditioning scale of 1, 1.5 and 2 ZBar reads 0.12, 0.66 and 0.96 of 50 samples; 0 without the hint.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(name="tuned", grafts=section(control=section(name="control")))
    config.init_from.pretrained = "runs/ddpm_scenes"
    config.sampler = section(name="ddim", steps=50)
    config.data.update(source="scenes:circle,square,triangle,cross", resolution=32, channels=3)
    config.data.corruptions.hint = section(name="brightness")
    config.optimizer.update(learning_rate=1e-3, warmup_images=800, decay="constant", clip_norm=1.0)
    config.train.update(
        batch_size=8,
        total_images=6_400,
        log_every_images=800,
        checkpoint_every_images=1_600,
        sample_every_images=0,
        ema_decay=0.99,
    )
    config.evaluate.update(num=100, real=1000, batch_size=50, metrics=("hint_error",))
    return config

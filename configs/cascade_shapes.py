"""Three models behind each other: shapes of 16x16, 32x32 and 64x64 pixels; the class goes to all of them.

A cascade has no training of its own. Its stages are trained first, each by its own config, at the same time if there
are machines for it:

    python main.py --config=configs/cascade_shapes_base.py --workdir=runs/cascade_shapes_base
    python main.py --config=configs/cascade_shapes_32.py --workdir=runs/cascade_shapes_32
    python main.py --config=configs/cascade_shapes_64.py --workdir=runs/cascade_shapes_64

Paper: Ho et al. 2022, "Cascaded Diffusion Models for High Fidelity Image Generation".
Command: python main.py --config=configs/cascade_shapes.py --mode=sample --labels=3,7 --out=DIR
Hardware and time: one CPU core, 15 minutes for the three stages.
Expected: a Fréchet distance of 7.6 (real images: 4.5) and a class accuracy of 0.99; the control,
    configs/ddpm_shapes_64.py, has 49 and 0.19 after the same time (docs/cascades.md).
To measure it, with a classifier as docs/metrics.md exports one: --mode=evaluate --config.evaluate.network=classifier
    --config.evaluate.weights=shapes.npz --config.evaluate.metrics="('frechet','label_accuracy')"
To change a stage: --config.method.overrides.stage_1.parts.low.sampling_noise=0.1.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="cascade",
        overrides=section(stage_1=section(parts=section(low=section(sampling_noise=0.2)))),
    )
    config.init_from.pretrained = ("runs/cascade_shapes_base", "runs/cascade_shapes_32", "runs/cascade_shapes_64")
    config.data.update(source="caption_shapes", resolution=64, channels=3, num_classes=8)
    config.evaluate.update(num=400, real=2000, batch_size=50, metrics=())
    return config

"""Two models behind each other: digits of 4x4 pixels, and from them digits of 8x8; a label goes to both.

A cascade has no training of its own. Its stages are trained first, each by its own config:

    python main.py --config=configs/cascade_digits_base.py --workdir=runs/cascade_digits_base
    python main.py --config=configs/cascade_digits_upsampler.py --workdir=runs/cascade_digits_upsampler

Paper: Ho et al. 2022, "Cascaded Diffusion Models for High Fidelity Image Generation".
Command: python main.py --config=configs/cascade_digits.py --mode=sample --labels=3,7 --out=DIR
Hardware and time: two CPU cores, about 5 minutes for each stage, and seconds to sample.
Expected: an excess Fréchet distance of 0.013 and a label accuracy of 1.00. The upsampler alone, from true copies, has
    an excess of -0.009, a PSNR of 18.6 dB and a hint error of 0.083, where noise has 0.77.
To measure the chain as a whole: --mode=evaluate. Other stages: --config.init_from.pretrained="('runs/a','runs/b')".
To change a stage: --config.method.overrides.stage_1.sampler.steps=20.
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="cascade",
        # Noise on the base's images hides its errors from the upsampler: the excess is 0.023 without it.
        overrides=section(stage_1=section(parts=section(low=section(sampling_noise=0.3)))),
    )
    config.init_from.pretrained = ("runs/cascade_digits_base", "runs/cascade_digits_upsampler")
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.evaluate.update(num=1000, batch_size=125, network="digits", metrics=(*SAMPLE_METRICS, "label_accuracy"))
    return config

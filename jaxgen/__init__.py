"""jaxgen holds generative image models in JAX and Flax, each one config away.

`import jaxgen as jg` gives the names that most programs need; `jg.__all__` lists them. Each is imported when it is
first used, so that `import jaxgen` alone is quick and does not start JAX. Everything else is imported from its room,
such as `jaxgen.diffusion.likelihood`. A name that begins with an underscore may change without notice.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    # configs, and names in them
    "jaxgen.config.schema": ("defaults", "section"),
    "jaxgen.config.files": ("load_config",),
    "jaxgen.registry": ("classes",),
    "jaxgen.errors": ("UserError",),
    # data
    "jaxgen.data.source": ("Source",),
    "jaxgen.data.sources": ("open_source",),
    # training, and what was trained
    "jaxgen.methods.base": ("Method", "Model", "State", "Turn"),
    "jaxgen.runs.setup": ("make_method",),
    "jaxgen.train.loop": ("Trainer",),
    "jaxgen.sampling.restore": ("restore",),
    "jaxgen.sampling.generator": ("Generator",),
    # networks
    "jaxgen.networks.unet": ("UNet",),
    "jaxgen.networks.dit": ("DiT",),
    # diffusion
    "jaxgen.diffusion.schedules.base": ("Schedule",),
    "jaxgen.diffusion.schedules.continuous": ("ContinuousCosine", "RectifiedFlow", "VP"),
    "jaxgen.diffusion.schedules.discrete": ("Cosine", "Linear"),
    "jaxgen.diffusion.prediction_types": ("Epsilon", "PredictionType", "V", "Velocity"),
    "jaxgen.diffusion.prediction": ("Prediction", "denoiser"),
    "jaxgen.diffusion.noise": ("per_image_noise",),
    "jaxgen.diffusion.samplers.base": ("Sampler",),
    "jaxgen.diffusion.samplers.ddim": ("DDIM",),
    "jaxgen.diffusion.samplers.ddpm": ("DDPM",),
    "jaxgen.diffusion.samplers.dpmpp": ("DPMpp2M",),
    "jaxgen.diffusion.samplers.runge_kutta": ("Heun",),
    "jaxgen.diffusion.guidance.base": ("Guidance",),
    "jaxgen.diffusion.guidance.contrast": ("ClassifierFree",),
    "jaxgen.diffusion.likelihood": ("log_likelihood",),
    # games
    "jaxgen.adversarial.losses": ("GANLoss",),
    # scores and pictures
    "jaxgen.evaluation.evaluate": ("evaluate",),
    "jaxgen.metrics.base": ("Metric", "SetMetric"),
    "jaxgen.metrics.choice": ("open_network",),
    "jaxgen.metrics.compare": ("compare",),
    "jaxgen.metrics.networks.base": ("FeatureNetwork",),
    "jaxgen.report.images": ("grid", "save_png"),
    "jaxgen.report.page": ("write_report",),
}
_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Imports a public name from its module when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxgen' has no attribute {name!r}; its public names are in jaxgen.__all__")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # Python then finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*(k for k in globals() if k.startswith("__")), *__all__})

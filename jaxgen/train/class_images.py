"""Draws the images that a config asks of its pretrained model before the first step, once for each run.

Every process takes part in the drawing, and the first one writes `<workdir>/<name>.npz`. The same config draws the same
images, so that a run whose file is lost goes on as before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ml_collections import ConfigDict

from jaxgen.config import image_shape, section
from jaxgen.data.wrappers.sampled import Sampled
from jaxgen.errors import some
from jaxgen.parallel.distributed import all_agree, barrier, is_first
from jaxgen.runs.pretrained import SAMPLER, pretrained_config, pretrained_run
from jaxgen.runs.tuning.words import base_tokenizer
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.prompts import TextRequest
from jaxgen.sampling.restore import TrainedModel, pretrained, restore

log = logging.getLogger("jaxgen")


def draw_missing(config: ConfigDict, sources: Iterable[Sampled]) -> None:
    """Fills the sources that are not drawn yet, and writes their files.

    Raises:
      NotFinite: images are not finite.
      UserError: the weights cannot be read.
    """
    for source in sources:
        if all_agree(source.drawn):
            continue
        sentences = [str(text) for text in source.arrays["caption"]] if source.arrays else []
        told = some(map(repr, dict.fromkeys(sentences)))
        log.info("%d images are drawn for %s; %s keeps them", len(source), told, source.path)
        trained = _pretrained(config, sentences)
        drawn = trained.generator.images(trained.model, config.seed, len(source))
        source.fill(drawn.need_finite("no class images are kept").images)
        if is_first():
            source.write()
        barrier(f"class images {source.path}")


def _pretrained(config: ConfigDict, sentences: list[str]) -> TrainedModel:
    """Returns the model of `config.init_from.pretrained`, which draws image i for sentence i, and nothing learned."""
    run, stored = pretrained_run(config), pretrained_config(config)
    tokenizer = base_tokenizer(config)
    if run is not None and stored is not None and tokenizer is not None:
        trained = restore(stored, run)
        generator: Generator = trained.generator.changed(trained.generator.method, {"tokens": tokenizer(sentences)})
        return TrainedModel(generator, trained.model, trained.step, trained.images, trained.example)
    height, width, _ = image_shape(config)
    asked = ConfigDict(config.to_dict(), type_safe=False)
    dtype = config.init_from.get("dtype") or "float32"
    asked.method = section(name="stable_diffusion", height=height, width=width, param_dtype=dtype)
    asked.init_from = section(pretrained=config.init_from.pretrained)
    asked.sampler = config.sampler if len(config.sampler) else section(**SAMPLER)
    return pretrained(asked, TextRequest(sentences))

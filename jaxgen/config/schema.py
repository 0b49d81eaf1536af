"""Lists the keys that every config has, what each means, and its default.

A config is an `ml_collections.ConfigDict`. A file in `configs/` starts from `defaults()` and fills it in. The sections
`method`, `sampler`, `guidance` and `optimizer` take further keys: they are the arguments of the class that `name` means
(`jaxgen.build`). `jaxgen.config.checks` refuses a misspelt key, and `jaxgen.config.record` stores the config of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

# What most configs measure on their samples, through the network of `evaluate.network`; docs/metrics.md explains each.
SAMPLE_METRICS = ("frechet", "kid", "class_entropy", "confidence", "precision", "recall", "density", "coverage")

# Lengths and cadences are counted in images drawn from the data, so that they survive a change of batch size.
DEFAULTS: dict[str, Any] = dict(
    seed=0,  # everything random follows from it: the first weights, the order of the data, the noise
    method=dict(
        name="",  # a method, such as "ddpm"; its fields are further keys of this section
    ),
    data=dict(
        source="",  # "digits", "folder:photos", "tfds:mnist", "my_package.sources:Cells", ...: see docs/data.md
        split="train",  # the split that is trained on
        eval_split="test",  # the held-out split, for numbers and for the pictures of the report
        resolution=32,  # every image's size in pixels, one number or (height, width)
        channels=3,  # 1 for grey, 3 for RGB, 4 for RGBA images
        examples=0,  # how many examples of the split are learned from, chosen by the seed; 0 takes all
        num_classes=0,  # labels lie in [0, num_classes); with 0 they are not used
        flip=False,  # whether each image is mirrored left to right with a probability of 1/2
        crop=0,  # each image is shifted at random by up to this many pixels; its reflection fills the gap
        root="",  # the folder that relative paths and TFDS's data start from; "" is the current one, or TFDS's own
        workers=0,  # extra processes that read ahead, for data that do not fit in memory
        corruptions=dict(),  # corruptions.<entry> = {name, ...}: a picture that each image gives, see docs/data.md
        rename=dict(),  # rename.<new> = "<old>": other names for the source's entries, all taken from the old ones
        options=dict(),  # options of the source's own, such as {size: 5, unseen: ("8", "9")} of "sets:digits"
        tokenizer="",  # a folder with a tokenizer of T5 or CLIP, which takes the place of the source's own
        token_length=0,  # how many tokens a caption has then; 0 for what is usual, 128 for T5 and 77 for CLIP
        captions=(),  # texts, such as ("a photo of {}",): each image has each of them; {} is the word of a graft
        # Further sources: data.extra.<name> = {source, split, eval_split, channels, rename, options, captions}, whose
        # entries come as <name>_image, ...; eval_split, by default that of the data, gives the conditions of samples;
        # channels is by default that of the data, too. {source="sampled", captions, num} has the pretrained model draw
        # images.
        extra=dict(),
    ),
    optimizer=dict(
        name="adamw",  # any optimiser of optax that takes a learning rate; its arguments are further keys here
        learning_rate=1e-4,  # the rate after the warm-up and before the decay
        warmup_images=0,  # the rate rises in a straight line over this many images
        constant_images=0,  # after the warm-up, images before the decay begins, as in CycleGAN's schedule
        decay="constant",  # how the rate falls to 0 at decay_images: "cosine" or "linear"; "constant" keeps it
        decay_images=0,  # with 0 the rate falls until train.total_images, also where that is changed later
        restart_images=0,  # warm-up and decay begin again after so many images, as at each scale of SinGAN; 0: never
        clip_norm=0.0,  # a larger norm of a turn's gradients, over all groups, is scaled to this; 0 does not clip
        clip_weights=0.0,  # each weight is clipped to [-this, this] after its update, as in WGAN; 0 does not clip
    ),
    optimizers=dict(),  # optimizers.<group> = {...} replaces keys of `optimizer` for one parameter group
    train=dict(
        batch_size=64,  # images of one update, over all devices
        total_images=0,  # the length of the run; a higher one extends a run that has ended
        log_every_images=10_000,  # how often a line of numbers is written
        checkpoint_every_images=100_000,  # how often the state is saved; 0 saves it at the end only
        sample_every_images=100_000,  # how often pictures are made; 0 makes them at the end only
        evaluate_every_images=0,  # how often the numbers of `evaluate` are made; 0 makes them at the end only
        accumulate=1,  # parts that a batch is cut into and that run one after the other, to save memory
        ema_decay=0.999,  # decay of the averaged weights per update, lower in the first ones; 0 does not average
        keep_last=2,  # how many of the newest checkpoints are kept
        keep_best=0,  # how many of the best checkpoints are kept beside those, by best_metric
        best_metric="",  # the name of a number in metrics.json or metrics.jsonl
        best_mode="min",  # whether the best has the lowest number ("min") or the highest ("max")
        max_nonfinite_updates=10,  # the run stops after so many updates in a row that were not finite and were undone
        tensorboard=True,  # whether TensorBoard's files are written too
        trackers=(),  # where else the run is shown: "wandb", "mlflow", or a class of your own, see docs/launch.md
    ),
    # How images are drawn, such as {"name": "ddim", "steps": 50}; empty for the method's own default, where it has one.
    sampler=dict(),
    guidance=dict(),  # how sampling is guided, such as {"name": "classifier_free", "scale": 2.0}; empty for no guidance
    mesh=dict(
        data=0,  # devices that a batch is split over; 0 takes as many as fsdp and tensor leave and as divide the batch
        fsdp=1,  # devices that both the batch and the state are split over
        tensor=1,  # devices that layers are split over
    ),
    sharding=dict(
        # ((expression, (axis or None, ...)), ...): the first expression that is found in a parameter's path gives the
        # mesh axis of each of its dimensions.
        rules=(),
        min_size=1024,  # arrays of fewer values than this are not split by fsdp unless a rule says so
    ),
    distributed=dict(
        # "host:port" of process 0; "auto" asks the cluster; "" reads JAX_COORDINATOR_ADDRESS, and without that there is
        # one process.
        coordinator="",
        num_processes=0,  # how many processes there are; 0 reads JAX_NUM_PROCESSES
        process_id=-1,  # this process's number; -1 reads JAX_PROCESS_ID
        heartbeat=30,  # a process that has been silent for this many seconds counts as gone
        timeout=300,  # processes wait this many seconds for each other at the start and at the end
    ),
    init_from=dict(),  # init_from.<group> = "<workdir of a run>[#<group there>]": where a group's weights come from
    evaluate=dict(
        num=1000,  # how many samples the metrics use
        real=50_000,  # how many real images of each split the metrics use at most
        batch_size=250,  # images that are sampled at a time, by --mode=sample too
        metrics=(),  # what is measured on the samples, such as ("frechet", "precision"): see docs/metrics.md
        network="",  # the feature network of most metrics: "inception", "clip", "digits", "fashion", or your own class
        weights="",  # a file or folder of that network's published weights; "" finds or fetches them
        reference="",  # a file of published statistics (mu, sigma) that fid uses in place of held-out images
        resize="",  # how images are resized for Inception: "legacy", as for the first FID and by default, or "clean"
        at_end=True,  # whether training ends with an evaluation
    ),
)


def section(**entries: Any) -> ConfigDict:
    """Returns a config section whose values may change their type, so that an int may replace a float."""
    return ConfigDict(entries, type_safe=False)


def defaults() -> ConfigDict:
    """Returns a new config with every key of `DEFAULTS`."""
    return _section_of(DEFAULTS)


def _section_of(entries: Mapping[str, Any]) -> ConfigDict:
    return section(**{key: _section_of(v) if isinstance(v, Mapping) else v for key, v in entries.items()})


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """Returns `(H, W, C)`, the shape of the images of the config's data."""
    side = config.data.resolution
    height, width = side if isinstance(side, tuple | list) else (side, side)
    return int(height), int(width), int(config.data.channels)

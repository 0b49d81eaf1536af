"""Types of the JSON files in folders of diffusers and transformers: what each entry must be before it is used.

A file may lack an entry, and may have entries that are not named here. Which values of an entry are understood is
checked where it is read.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from msgspec import Meta

Count = Annotated[int, Meta(ge=1, le=2**24)]
Small = Annotated[int, Meta(ge=1, le=1024)]  # layers and blocks, which are unrolled
Positive = Annotated[float, Meta(gt=0, lt=1e30)]
Texts = Annotated[list[str], Meta(min_length=1, max_length=64)]
Widths = Annotated[list[Count], Meta(min_length=1, max_length=64)]
Levels = Annotated[int, Meta(ge=1, le=100_000)]
Beta = Annotated[float, Meta(gt=0, le=1)]


class ModelIndex(TypedDict, total=False):
    """Is `model_index.json`."""

    _class_name: str


class UNetFile(TypedDict, total=False):
    """Is `config.json` of a `UNet2DConditionModel`."""

    sample_size: Count | Annotated[list[Count], Meta(min_length=2, max_length=2)] | None
    in_channels: Count
    out_channels: Count
    flip_sin_to_cos: bool
    freq_shift: float
    down_block_types: Texts
    mid_block_type: str | None
    up_block_types: Texts
    only_cross_attention: bool | list[bool]
    block_out_channels: Widths
    layers_per_block: Small | list[Small]
    downsample_padding: int
    dropout: Annotated[float, Meta(ge=0, lt=1)]
    act_fn: str
    norm_num_groups: Count | None
    norm_eps: Positive
    cross_attention_dim: Count | list[Count]
    transformer_layers_per_block: Small | list[Small]
    attention_head_dim: Count | list[Count]
    use_linear_projection: bool
    class_embed_type: str | None
    num_class_embeds: Count | None
    resnet_time_scale_shift: str
    time_embedding_dim: Count | None
    conv_in_kernel: int
    conv_out_kernel: int
    projection_class_embeddings_input_dim: Count | None


class ControlNetFile(UNetFile, total=False):
    """Is `config.json` of a `ControlNetModel`."""

    conditioning_channels: Count
    conditioning_embedding_out_channels: Widths | None
    controlnet_conditioning_channel_order: str
    global_pool_conditions: bool


class MotionFile(TypedDict, total=False):
    """Is `config.json` of a `MotionAdapter`."""

    _class_name: str
    block_out_channels: Widths
    motion_layers_per_block: Small | list[Small]
    motion_transformer_layers_per_block: Small | list[Small | list[Small]]
    motion_mid_block_layers_per_block: Small
    motion_transformer_layers_per_mid_block: Small | list[Small]
    motion_num_attention_heads: Count | list[Count]
    motion_norm_num_groups: Count
    motion_max_seq_length: Small
    use_motion_mid_block: bool
    conv_in_channels: Count | None


class PriorFile(TypedDict, total=False):
    """Is `config.json` of a `PriorTransformer`."""

    num_attention_heads: Count
    attention_head_dim: Count
    num_layers: Small
    embedding_dim: Count
    num_embeddings: Count
    additional_embeddings: int
    dropout: Annotated[float, Meta(ge=0, lt=1)]
    time_embed_act_fn: str
    norm_in_type: str | None
    embedding_proj_norm_type: str | None
    encoder_hid_proj_type: str | None
    added_emb_type: str | None
    time_embed_dim: Count | None
    embedding_proj_dim: Count | None
    clip_embed_dim: Count | None


class AutoencoderFile(TypedDict, total=False):
    """Is `config.json` of an `AutoencoderKL`."""

    in_channels: Count
    out_channels: Count
    down_block_types: Texts
    up_block_types: Texts
    block_out_channels: Widths
    layers_per_block: Small
    act_fn: str
    latent_channels: Count
    norm_num_groups: Count
    sample_size: Count | list[Count]
    scaling_factor: Positive | None
    use_quant_conv: bool
    use_post_quant_conv: bool
    mid_block_add_attention: bool


class TowerFile(TypedDict, total=False):
    """Is the config of one tower of CLIP."""

    hidden_size: Count
    num_hidden_layers: Small
    num_attention_heads: Count
    intermediate_size: Count
    hidden_act: str
    layer_norm_eps: Positive
    vocab_size: Count
    max_position_embeddings: Count
    image_size: Count
    patch_size: Count
    num_channels: Count
    eos_token_id: int | None


class ClipFile(TowerFile, total=False):
    """Is `config.json` of a `CLIPTextModel` or a `CLIPModel`."""

    architectures: list[str] | None
    use_attention_mask: bool | None
    projection_dim: Count
    text_config: TowerFile | None
    vision_config: TowerFile | None
    text_config_dict: TowerFile | None
    vision_config_dict: TowerFile | None


class T5File(TypedDict, total=False):
    """Is `config.json` of a `T5EncoderModel`, or of a whole T5."""

    model_type: str
    vocab_size: Count
    d_model: Count
    d_kv: Count
    d_ff: Count
    num_layers: Small
    num_heads: Count
    relative_attention_num_buckets: Count
    relative_attention_max_distance: Count
    layer_norm_epsilon: Positive
    feed_forward_proj: str


class SchedulerFile(TypedDict, total=False):
    """Is `scheduler_config.json`."""

    num_train_timesteps: Levels
    beta_start: Beta
    beta_end: Beta
    beta_schedule: str
    trained_betas: Annotated[list[Beta], Meta(min_length=1, max_length=100_000)] | None
    prediction_type: str
    timestep_spacing: str
    steps_offset: int
    set_alpha_to_one: bool
    rescale_betas_zero_snr: bool | None
    use_karras_sigmas: bool | None
    use_exponential_sigmas: bool | None
    use_beta_sigmas: bool | None
    use_lu_lambdas: bool | None
    sigma_min: Positive | None
    sigma_max: Positive | None
    final_sigmas_type: str
    interpolation_type: str
    timestep_type: str
    lambda_min_clipped: float | None


class WeightsIndex(TypedDict):
    """Is an index of several files of weights; other entries, such as `metadata`, are passed over."""

    weight_map: Annotated[dict[str, str], Meta(min_length=1)]


class TensorEntry(TypedDict):
    """Is a tensor in the header of a safetensors file."""

    dtype: str
    shape: Annotated[list[Annotated[int, Meta(ge=0, lt=2**48)]], Meta(max_length=32)]
    data_offsets: Annotated[list[Annotated[int, Meta(ge=0, lt=2**62)]], Meta(min_length=2, max_length=2)]


Header = dict[str, Any]


class LoraConfig(TypedDict, total=False):
    """Is the part of peft's config of a low-rank update that says its factor."""

    lora_alpha: Positive | None
    alpha_pattern: dict[str, Positive] | None
    use_rslora: bool | None
    use_dora: bool | None

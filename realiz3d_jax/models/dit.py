"""The diffusion transformer of PixArt-Sigma, for grids of views.

With x the tokens of a sequence, y its projected caption, e the timestep's embedding, LN a layer norm without affine:

    m  = W_mod SiLU(e) + b_mod                                   six vectors, shared by all blocks (adaLN-single)   (1)
    (s1, c1, g1, s2, c2, g2) = table_l + m                       per block                                          (2)
    x <- x + block_shift_l                                       the domain's shift, if any                         (3)
    x <- x + g1 * SelfAttention(LN(x) (1 + c1) + s1)                                                                (4)
    x <- x + CrossAttention(x, y)                                no norm, no gate                                   (5)
    x <- x + g2 * MLP(LN(x) (1 + c2) + s2)                       GELU (tanh)                                        (6)
    (s, c) = table + e;  out = W_out (LN(x) (1 + c) + s) + b_out                                                    (7)

Source: PixArt-alpha (arXiv 2310.00426) section 2.3; diffusers ``PixArtTransformer2DModel``, whose arithmetic, order of
channels and epsilon are reproduced so that its weights load.

A grid ``[B, V, h, w, C]`` is divided into groups of views that attend to one another and share a caption and a timestep;
the number of groups G is read from ``timestep: int32[B, G]``. Positions are added before views are folded into sequences.

Parameters are a nested dict of float32 arrays; the blocks' are stacked on a leading axis L and scanned. Flax NNX
modules describe the layers and are used as pytrees only.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from realiz3d_jax.models import attention, embeddings, parallel
from realiz3d_jax.models.backbone import Captions, Params, Parts
from realiz3d_jax.models.layers import (
    NumberEmbedding,
    Perceptron,
    modulated,
    narrow,
    remat,
    run_unless_frozen,
    shift_of_sequences,
    shifted,
    unpatch,
    xavier,
    zeros,
)

PARTS = Parts(
    stacked=("blocks",),
    input=("patch_embedding",),
    shared=("timestep_embedding", "resolution_embedding", "aspect_embedding", "modulation", "caption_projection"),
    split=(
        (r"blocks/.+/(query_key_value|query|key_value)/kernel", 1),  # [L, D, (3|2), K, h]
        (r"blocks/.+/out/kernel", 3),  # [L, K, h, D]
        (r"blocks/mlp/(first|second)/kernel", 1),  # [L, D, 4D], [L, 4D, D]
        (r"(patch_embedding|(timestep|resolution|aspect)_embedding/.+|caption_projection/.+|final/linear)/kernel", 0),
        (r"modulation/kernel", 0),  # [D, 6, D]
        (r".+/bias", None),
        (r"(blocks|final)/table", None),
    ),
)


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Size and execution of a transformer.

    Attributes:
          width: D, a multiple of 4 and of ``heads``.
      depth: L, number of blocks.
      heads: K.
      patch_size: side of a token, in latent pixels.
      in_channels: C of the latents.
      out_channels: channels of the prediction; 2 C for a learned sigma, of which only the first C (epsilon) are used.
      caption_channels: channels of the text encoder's states.
      mlp_ratio: hidden width of the MLP over D.
      sample_size: side of one view, in latent pixels.
      base_size: side of the token grid at which positions are integers (diffusers: sample_size // patch_size).
      position_scale: divides all positions (diffusers: interpolation_scale).
      positions: "canvas" or "view", see ``embeddings.grid_position_features``.
      timestep_channels: channels of the timestep's sinusoid.
      size_conditions: pixels per latent pixel if the model is conditioned on an image's height, width and aspect ratio, as
        PixArt-alpha at 1024 px is; 0 if not.
      dtype: dtype of the matrix products, "float32" or "bfloat16". Parameters, softmax, norms and modulation are always
        float32.
      residual_dtype: dtype of the tokens between blocks. In bfloat16 they take half the memory and lose small additions, such
        as the shifts of the domains (``python -m benchmarks.residual`` measures it).
      remat: the activations of a block that the backward pass keeps: "none" (no rematerialisation, all are kept), "attention"
        (the attention's output alone), "full" (none are kept).
      scan_unroll: blocks per step of the scan; unrolling all of them is faster for small models on the CPU.
      attention: back end, see ``attention.BACKENDS``.
      skip_frozen_backward: whether the backward pass of frozen blocks is skipped at run time (a conditional in the
        scan) or computed and masked. The gradients are the same; which is faster depends on size and platform.
      name: this module, see ``backbone``.
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    in_channels: int
    out_channels: int
    caption_channels: int
    sample_size: int
    base_size: int
    position_scale: float = 1.0
    positions: str = "canvas"
    mlp_ratio: float = 4.0
    timestep_channels: int = 256
    size_conditions: int = 0
    dtype: str = "float32"
    residual_dtype: str = "float32"
    remat: str = "none"
    scan_unroll: int = 1
    attention: str = "xla"
    skip_frozen_backward: bool = True
    name: str = "dit"


Config = DiTConfig


def init(config: DiTConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters, initialised as PixArt's, a nested dict with the blocks stacked [L, ...]."""
    return nnx.to_pure_dict(nnx.state(_Transformer(config, nnx.Rngs(params=key)), nnx.Param))


def apply(
    config: DiTConfig,
    params: Params,
    latents: jax.Array,
    timestep: jax.Array,
    captions: Captions,
    *,
    block_shift: jax.Array | None = None,
    control_tokens: jax.Array | None = None,
    frozen_blocks: jax.Array | None = None,
    freeze_input: bool = False,
    freeze_shared: bool = False,
) -> jax.Array:
    """Predicts the noise (and a variance) of a batch of grids.

    Args:
      params: as ``init`` makes them.
      latents: float[B, V, h, w, C].
      timestep: int32 or float32[B, G], G = 1 (joint mode) or G = V (single-image mode), or any divisor of V.
      captions: ``states`` float[B, G, T, caption_channels] and ``mask`` bool[B, G, T].
      block_shift: float[L, B|1, D], added to all tokens before each block; None is no shift.
      control_tokens: float[B|1, V, N|1, D], added to the embedded patches; None is no control.
      frozen_blocks: int32[], the number of first blocks that receive no gradient, nor do their shifts, nor anything through
        them; None freezes nothing. One compilation serves every number.
      freeze_input: whether the inputs of block 0 (patches, control) receive no gradient.
      freeze_shared: whether the parts that all blocks share (timestep, modulation, projected caption) receive no gradient.

    Returns:
      float32[B, V, h, w, out_channels].

    Raises:
      UserError: the attention back end is not available.
    """
    batch, views, height = latents.shape[:3]
    groups = timestep.shape[1]
    model = nnx.merge(_graph(config), params)

    x = model.embed(latents)
    if control_tokens is not None:
        x = x + control_tokens.astype(jnp.float32)
    if freeze_input:
        x = jax.lax.stop_gradient(x)
    x = rearrange(x.astype(config.residual_dtype), "b (g v) n d -> (b g) (v n) d", g=groups)

    embedding = model.timestep_embedding(timestep.reshape(-1))
    if config.size_conditions:
        embedding = embedding + model.size_embedding(*latents.shape[2:4])
    conditions = _Conditions(
        modulation=model.modulation(jax.nn.silu(embedding)),
        text=model.caption_projection(rearrange(captions["states"], "b g t c -> (b g) t c")),
        text_bias=jnp.where(rearrange(captions["mask"], "b g t -> (b g) t"), 0.0, attention.MASKED),
    )
    if freeze_shared:
        embedding, conditions = jax.lax.stop_gradient((embedding, conditions))
    conditions = parallel.split_batch(conditions)
    block_shift = shift_of_sequences(block_shift, groups)
    x = _run_blocks(config, model.blocks, x, conditions, block_shift, frozen_blocks)

    return unpatch(model.final(x, embedding), batch, views, height, config.patch_size)


def flops(config: DiTConfig, views: int, groups: int, text_tokens: int) -> float:
    """Operations of the forward pass of one grid: matrix products and attention, two per multiply-add."""
    width, tokens = config.width, (config.sample_size // config.patch_size) ** 2
    patch = config.patch_size**2
    per_token = 4 * width**2 + 2 * width**2 + 2 * config.mlp_ratio * width**2  # self, cross (q, out), MLP
    attended = 2 * width * (tokens * views // groups + text_tokens)  # scores and weighted sums
    per_group_and_block = 2 * text_tokens * width**2
    per_group = (
        config.timestep_channels * width + 7 * width**2 + text_tokens * (config.caption_channels * width + width**2)
    )
    ends = (config.in_channels + config.out_channels) * patch * width
    total = tokens * views * (config.depth * (per_token + attended) + ends)
    total += groups * (config.depth * per_group_and_block + per_group)
    return 2.0 * total


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Conditions:
    """The conditions that all blocks share, for S = B G sequences."""

    modulation: jax.Array  # float32[S, 6, D]
    text: jax.Array  # dtype[S, T, D]
    text_bias: jax.Array  # float32[S, T]


def _run_blocks(
    config: DiTConfig,
    blocks: "_Block",
    x: jax.Array,
    conditions: _Conditions,
    block_shift: jax.Array | None,
    frozen_blocks: jax.Array | None,
) -> jax.Array:
    """Equations (2) to (6) for all blocks. x: residual_dtype[S, n, D]; block_shift: float32[L, S|1, 1, D] or None."""

    def run(x: jax.Array, block: _Block, shift: jax.Array | None, conditions: _Conditions) -> jax.Array:
        return block(shifted(x, shift), conditions)

    def step(x: jax.Array, scanned: tuple[_Block, jax.Array | None, jax.Array]) -> tuple[jax.Array, None]:
        block, shift, layer = scanned
        frozen = None if frozen_blocks is None else layer < frozen_blocks
        operands = (parallel.split_batch(x), block, shift, conditions)
        return run_unless_frozen(run, operands, frozen, config.skip_frozen_backward), None

    step = remat(step, config.remat, config.scan_unroll)
    x, _ = jax.lax.scan(step, x, (blocks, block_shift, jnp.arange(config.depth)), unroll=config.scan_unroll)
    return x


@functools.cache
def _graph(config: DiTConfig) -> nnx.GraphDef:
    """The static half of the model, which turns a dict of parameters into modules."""
    return nnx.graphdef(nnx.eval_shape(lambda: _Transformer(config, nnx.Rngs(params=jax.random.key(0)))))


class _SelfAttention(nnx.Module):
    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, heads = config.width, config.heads
        square, dtype = xavier(width, width), config.dtype
        head = (heads, width // heads)
        self.backend = config.attention
        self.query_key_value = nnx.LinearGeneral(width, (3, *head), kernel_init=square, dtype=dtype, rngs=rngs)
        self.out = nnx.LinearGeneral(head, width, axis=(-2, -1), kernel_init=square, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        fused = self.query_key_value(x)
        attended = attention.attend(fused[:, :, 0], fused[:, :, 1], fused[:, :, 2], backend=self.backend)
        return self.out(checkpoint_name(attended, "attention"))


class _CrossAttention(nnx.Module):
    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, heads = config.width, config.heads
        square, dtype = xavier(width, width), config.dtype
        head = (heads, width // heads)
        self.query = nnx.LinearGeneral(width, head, kernel_init=square, dtype=dtype, rngs=rngs)
        self.key_value = nnx.LinearGeneral(width, (2, *head), kernel_init=square, dtype=dtype, rngs=rngs)
        self.out = nnx.LinearGeneral(head, width, axis=(-2, -1), kernel_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, text: jax.Array, text_bias: jax.Array) -> jax.Array:
        fused = self.key_value(text)
        return self.out(attention.attend(self.query(x), fused[:, :, 0], fused[:, :, 1], text_bias))


class _Block(nnx.Module):
    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, hidden = config.width, int(config.mlp_ratio * config.width)
        self.dtype = config.dtype
        self.table = nnx.Param(jax.random.normal(rngs.params(), (6, width)) * width**-0.5)
        self.self_attention = _SelfAttention(config, rngs)
        self.cross_attention = _CrossAttention(config, rngs)
        inits = (xavier(width, hidden), xavier(hidden, width))
        gelu = functools.partial(jax.nn.gelu, approximate=True)
        self.mlp = Perceptron(width, hidden, width, gelu, inits, config.dtype, rngs)

    def __call__(self, x: jax.Array, conditions: _Conditions) -> jax.Array:
        modulation = (self.table[...] + conditions.modulation)[:, :, None, :]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (modulation[:, i] for i in range(6))
        x = self._add(x, self.self_attention(modulated(x, scale, shift, self.dtype)), gate)
        x = self._add(x, self.cross_attention(x, conditions.text, conditions.text_bias))
        return self._add(x, self.mlp(modulated(x, mlp_scale, mlp_shift, self.dtype)), mlp_gate)

    def _add(self, x: jax.Array, update: jax.Array, gate: jax.Array | float = 1.0) -> jax.Array:
        return (x.astype(jnp.float32) + gate * update.astype(jnp.float32)).astype(x.dtype)


class _Final(nnx.Module):
    """Equation (7). x: residual_dtype[S, n, D], embedding: float32[S, D] -> float32[S, n, p * p * out_channels]."""

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        out = config.patch_size**2 * config.out_channels
        self.dtype = config.dtype
        self.table = nnx.Param(jax.random.normal(rngs.params(), (2, config.width)) * config.width**-0.5)
        self.linear = nnx.Linear(config.width, out, kernel_init=zeros, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        shift_scale = (self.table[...] + embedding[:, None])[:, :, None, :]
        return self.linear(modulated(x, shift_scale[:, 1], shift_scale[:, 0], self.dtype)).astype(jnp.float32)


class _Transformer(nnx.Module):
    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        width, patch = config.width, config.patch_size**2 * config.in_channels
        self.config = config
        square = xavier(patch, width)
        self.patch_embedding = nnx.Linear(patch, width, kernel_init=square, dtype=config.dtype, rngs=rngs)
        self.timestep_embedding = NumberEmbedding(config.timestep_channels, width, rngs)
        if config.size_conditions:
            self.resolution_embedding = NumberEmbedding(config.timestep_channels, width // 3, rngs)
            self.aspect_embedding = NumberEmbedding(config.timestep_channels, width // 3, rngs)
        self.modulation = nnx.LinearGeneral(width, (6, width), kernel_init=narrow, dtype=jnp.float32, rngs=rngs)
        gelu = functools.partial(jax.nn.gelu, approximate=True)
        self.caption_projection = Perceptron(
            config.caption_channels, width, width, gelu, (narrow, narrow), config.dtype, rngs
        )
        keys = jax.random.split(rngs.params(), config.depth)
        self.blocks = jax.vmap(lambda key: _Block(config, nnx.Rngs(params=key)))(keys)
        self.final = _Final(config, rngs)

    def embed(self, latents: jax.Array) -> jax.Array:
        """Patches and positions of latents: float[B, V, h, w, C] -> float32[B, V, N, D]."""
        config, side = self.config, self.config.patch_size
        views, rows, columns = latents.shape[1], latents.shape[2] // side, latents.shape[3] // side
        patches = rearrange(latents, "b v (r p) (c q) e -> b v (r c) (e p q)", p=side, q=side)
        features = lambda rows, columns: embeddings.position_features(  # noqa: E731
            rows, columns, config.width, config.base_size, config.position_scale
        )
        places = embeddings.grid_position_features(features, views, rows, columns, config.positions)
        return self.patch_embedding(patches).astype(jnp.float32) + places

    def size_embedding(self, height: int, width: int) -> jax.Array:
        """The embedding float32[D] of a latent's size, a third each for height, width and aspect ratio."""
        pixels = jnp.array([height, width], jnp.float32) * self.config.size_conditions
        ratio = jnp.array([height / width], jnp.float32)
        return jnp.concatenate([self.resolution_embedding(pixels), self.aspect_embedding(ratio)]).reshape(-1)

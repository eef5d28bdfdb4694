"""The two-stream transformer of Stable Diffusion 3 (MMDiT), for grids of views.

Image tokens x and text tokens y keep weights of their own and attend to one another as one sequence. With e the sum of the
timestep's and the pooled caption's embeddings, LN a layer norm without affine, and the same written for y with its own weights:

    (s1, c1, g1, s2, c2, g2) = W_mod SiLU(e) + b_mod                                per block and stream            (1)
    x <- x + block_shift_l                                                          the domain's shift, if any      (2)
    x' = LN(x) (1 + c1) + s1,  y' likewise
    [a_x; a_y] = softmax([q_x; q_y] [k_x; k_y]^T / sqrt(h)) [v_x; v_y]                                              (3)
    x <- x + g1 * W_out a_x;   x <- x + g2 * MLP(LN(x) (1 + c2) + s2)               GELU (tanh)                     (4)
    (c, s) = W SiLU(e) + b;    out = W_out (LN(x) (1 + c) + s) + b_out                                              (5)

The last block reads the text and does not update it: the text stream ends with its keys and values, modulated as in (5).
Source: Esser et al. (arXiv 2403.03206), section 4; diffusers ``SD3Transformer2DModel``, whose arithmetic is reproduced so that
its weights load. Domain Shifters act on the image stream.

Parameters are a nested dict; ``blocks`` (image) are stacked [L, ...], ``text_blocks`` [L - 1, ...] and scanned.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

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

Streams = tuple[jax.Array, jax.Array]
"""The tokens of image and text, x and y."""

PARTS = Parts(
    stacked=("blocks", "text_blocks"),
    last=("last_text",),
    input=("patch_embedding", "text_embedding"),
    shared=("timestep_embedding", "pooled_embedding"),
    split=(
        (r"(text_)?blocks/(query_key_value|modulation|mlp/(first|second))/kernel", 1),  # [L, D, ...], [L, 4D, D]
        (r"(text_)?blocks/out/kernel", 3),  # [L, K, h, D]
        (r"(last_text|final)/(query_key_value|modulation|linear)/kernel", 0),
        (r"((patch|text)_embedding|(timestep|pooled)_embedding/.+)/kernel", 0),
        (r".+/bias", None),
    ),
)


@dataclasses.dataclass(frozen=True)
class MMDiTConfig:
    """Size and execution of a transformer; the defaults are those of Stable Diffusion 3 medium.

    Attributes:
      width, depth, heads: D, L, K.
      patch_size: side of a token, in latent pixels.
      in_channels: C of the latents and of the prediction.
      caption_channels: channels of the text encoders' states.
      pooled_channels: channels of the caption's pooled vector.
      sample_size: side of one view, in latent pixels.
      base_size, max_size: sides of token grids: positions are i / (max_size / base_size), cropped from the middle of max_size.
      all others: as in ``dit.DiTConfig``.
    """

    width: int = 1536
    depth: int = 24
    heads: int = 24
    patch_size: int = 2
    in_channels: int = 16
    caption_channels: int = 4096
    pooled_channels: int = 2048
    sample_size: int = 64
    base_size: int = 64
    max_size: int = 192
    positions: str = "canvas"
    mlp_ratio: float = 4.0
    timestep_channels: int = 256
    dtype: str = "float32"
    residual_dtype: str = "float32"
    remat: str = "none"
    scan_unroll: int = 1
    attention: str = "xla"
    skip_frozen_backward: bool = True
    name: str = "mmdit"


Config = MMDiTConfig


def init(config: MMDiTConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters, a nested dict with the blocks stacked [L, ...] (text [L - 1, ...])."""
    return nnx.to_pure_dict(nnx.state(_Transformer(config, nnx.Rngs(params=key)), nnx.Param))


def apply(
    config: MMDiTConfig,
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
    """Predicts the velocity of a batch of grids; arguments that are not listed are those of ``dit.apply``.

    Args:
      latents: float[B, V, h, w, C].
      timestep: float32[B, G], 0 to 1000: 1000 times the noise level.
      captions: ``states`` float[B, G, T, caption_channels], of which every token counts, and ``pooled`` float[B, G, P].

    Returns:
      float32[B, V, h, w, C].
    """
    batch, views, height = latents.shape[:3]
    groups = timestep.shape[1]
    model = nnx.merge(_graph(config), params)

    x = model.embed(latents)
    if control_tokens is not None:
        x = x + control_tokens.astype(jnp.float32)
    y = model.text_embedding(rearrange(captions["states"], "b g t c -> (b g) t c"))
    if freeze_input:
        x, y = jax.lax.stop_gradient((x, y))
    x = rearrange(x.astype(config.residual_dtype), "b (g v) n d -> (b g) (v n) d", g=groups)
    y = y.astype(config.residual_dtype)
    embedding = model.timestep_embedding(timestep.reshape(-1))
    embedding = jax.nn.silu(embedding + model.pooled_embedding(rearrange(captions["pooled"], "b g c -> (b g) c")))
    if freeze_shared:
        embedding = jax.lax.stop_gradient(embedding)
    embedding = parallel.split_batch(embedding)

    block_shift = shift_of_sequences(block_shift, groups)
    x = _run_blocks(config, model, x, y, embedding, block_shift, frozen_blocks)

    return unpatch(model.final(x, embedding), batch, views, height, config.patch_size)


def flops(config: MMDiTConfig, views: int, groups: int, text_tokens: int) -> float:
    """Operations of the forward pass of one grid: matrix products and attention, two per multiply-add."""
    square, depth = config.width**2, config.depth
    tokens = (config.sample_size // config.patch_size) ** 2 * views // groups  # of a sequence, as all that follows
    stream = (4 + 2 * config.mlp_ratio) * square
    image = tokens * (depth * stream + 2 * config.in_channels * config.patch_size**2 * config.width)
    text = text_tokens * ((depth - 1) * stream + 3 * square + config.caption_channels * config.width)
    attended = depth * 2 * config.width * (tokens + text_tokens) ** 2
    conditions = (12 * depth - 4 + 2 + 2) * square + (config.timestep_channels + config.pooled_channels) * config.width
    return 2.0 * groups * (image + text + attended + conditions)


def _run_blocks(
    config: MMDiTConfig,
    model: "_Transformer",
    x: jax.Array,
    y: jax.Array,
    embedding: jax.Array,
    block_shift: jax.Array | None,
    frozen_blocks: jax.Array | None,
) -> jax.Array:
    """Equations (1) to (4) for all blocks. x, y: residual_dtype[S, n|T, D]; embedding: float32[S, D]."""

    def run(
        x: jax.Array,
        y: jax.Array,
        block: _Stream,
        text_block: _Stream | _LastText,
        shift: jax.Array | None,
        embedding: jax.Array,
    ) -> Streams:
        return _joint_block(shifted(x, shift), y, block, text_block, embedding, config.attention)

    def step(
        carry: Streams, scanned: tuple[_Stream, _Stream | _LastText, jax.Array | None, jax.Array]
    ) -> tuple[Streams, None]:
        block, text_block, shift, layer = scanned
        frozen = None if frozen_blocks is None else layer < frozen_blocks
        operands = (*parallel.split_batch(carry), block, text_block, shift, embedding)
        return run_unless_frozen(run, operands, frozen, config.skip_frozen_backward), None

    step = remat(step, config.remat, config.scan_unroll)
    cut = lambda tree, part: jax.tree.map(lambda leaf: leaf[part], tree)  # noqa: E731
    layers = jnp.arange(config.depth)
    last = slice(0, config.depth - 1)
    scanned = (cut(model.blocks, last), model.text_blocks, cut(block_shift, last), layers[last])
    (x, y), _ = jax.lax.scan(step, (x, y), scanned, unroll=config.scan_unroll)
    (x, _), _ = step((x, y), (cut(model.blocks, -1), model.last_text, cut(block_shift, -1), layers[-1]))
    return x


def _joint_block(
    x: jax.Array,
    y: jax.Array,
    block: "_Stream",
    text_block: "_Stream | _LastText",
    embedding: jax.Array,
    backend: str,
) -> Streams:
    """One block on both streams; the last block returns the text unchanged."""
    image, words = block.modulation(embedding)[:, :, None, :], text_block.modulation(embedding)[:, :, None, :]
    queries = block.query_key_value(modulated(x, image[:, 1], image[:, 0], block.dtype))
    if isinstance(text_block, _LastText):
        words = words[:, ::-1]  # (scale, shift), as before the output
    text_queries = text_block.query_key_value(modulated(y, words[:, 1], words[:, 0], block.dtype))
    fused = jnp.concatenate([queries, text_queries], axis=1)
    attended = attention.attend(fused[:, :, 0], fused[:, :, 1], fused[:, :, 2], backend=backend)
    x = block.update(x, attended[:, : x.shape[1]], image)
    if not isinstance(text_block, _LastText):
        y = text_block.update(y, attended[:, x.shape[1] :], words)
    return x, y


@functools.cache
def _graph(config: MMDiTConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: _Transformer(config, nnx.Rngs(params=jax.random.key(0)))))


class _Stream(nnx.Module):
    """The weights of one stream in a block."""

    def __init__(self, config: MMDiTConfig, rngs: nnx.Rngs):
        width, hidden, dtype = config.width, int(config.mlp_ratio * config.width), config.dtype
        head, square = (config.heads, width // config.heads), xavier(width, width)
        self.dtype = dtype
        self.modulation = nnx.LinearGeneral(width, (6, width), kernel_init=zeros, dtype=jnp.float32, rngs=rngs)
        self.query_key_value = nnx.LinearGeneral(width, (3, *head), kernel_init=square, dtype=dtype, rngs=rngs)
        self.out = nnx.LinearGeneral(head, width, axis=(-2, -1), kernel_init=square, dtype=dtype, rngs=rngs)
        gelu = functools.partial(jax.nn.gelu, approximate=True)
        inits = (xavier(width, hidden), xavier(hidden, width))
        self.mlp = Perceptron(width, hidden, width, gelu, inits, dtype, rngs)

    def update(self, x: jax.Array, attended: jax.Array, modulation: jax.Array) -> jax.Array:
        """Equation (4)."""
        _, _, gate, mlp_shift, mlp_scale, mlp_gate = (modulation[:, index] for index in range(6))
        x = self._add(x, self.out(attended), gate)
        return self._add(x, self.mlp(modulated(x, mlp_scale, mlp_shift, self.dtype)), mlp_gate)

    def _add(self, x: jax.Array, update: jax.Array, gate: jax.Array) -> jax.Array:
        return (x.astype(jnp.float32) + gate * update.astype(jnp.float32)).astype(x.dtype)


class _LastText(nnx.Module):
    """The weights of the text in the last block."""

    def __init__(self, config: MMDiTConfig, rngs: nnx.Rngs):
        width, head = config.width, (config.heads, config.width // config.heads)
        self.modulation = nnx.LinearGeneral(width, (2, width), kernel_init=zeros, dtype=jnp.float32, rngs=rngs)
        square = xavier(width, width)
        self.query_key_value = nnx.LinearGeneral(width, (3, *head), kernel_init=square, dtype=config.dtype, rngs=rngs)


class _Final(nnx.Module):
    """Equation (5). x: residual_dtype[S, n, D], embedding (after SiLU): float32[S, D] -> float32[S, n, p * p * C]."""

    def __init__(self, config: MMDiTConfig, rngs: nnx.Rngs):
        width, out = config.width, config.patch_size**2 * config.in_channels
        self.dtype = config.dtype
        self.modulation = nnx.LinearGeneral(width, (2, width), kernel_init=zeros, dtype=jnp.float32, rngs=rngs)
        self.linear = nnx.Linear(width, out, kernel_init=zeros, dtype=config.dtype, rngs=rngs)

    def __call__(self, x: jax.Array, embedding: jax.Array) -> jax.Array:
        scale_shift = self.modulation(embedding)[:, :, None, :]
        return self.linear(modulated(x, scale_shift[:, 0], scale_shift[:, 1], self.dtype)).astype(jnp.float32)


class _Transformer(nnx.Module):
    def __init__(self, config: MMDiTConfig, rngs: nnx.Rngs):
        width, patch = config.width, config.patch_size**2 * config.in_channels
        self.config = config
        fan = xavier(patch, width)
        self.patch_embedding = nnx.Linear(patch, width, kernel_init=fan, dtype=config.dtype, rngs=rngs)
        self.text_embedding = nnx.Linear(config.caption_channels, width, dtype=config.dtype, rngs=rngs)
        self.timestep_embedding = NumberEmbedding(config.timestep_channels, width, rngs)
        inits = (narrow, narrow)
        self.pooled_embedding = Perceptron(config.pooled_channels, width, width, jax.nn.silu, inits, jnp.float32, rngs)
        keys = jax.random.split(rngs.params(), 2 * config.depth)
        make = jax.vmap(lambda key: _Stream(config, nnx.Rngs(params=key)))
        self.blocks, self.text_blocks = make(keys[: config.depth]), make(keys[config.depth : -1])
        self.last_text = _LastText(config, rngs)
        self.final = _Final(config, rngs)

    def embed(self, latents: jax.Array) -> jax.Array:
        """Patches and positions of latents: float[B, V, h, w, C] -> float32[B, V, N, D]."""
        config, side = self.config, self.config.patch_size
        views, rows, columns = latents.shape[1], latents.shape[2] // side, latents.shape[3] // side
        patches = rearrange(latents, "b v (r p) (c q) e -> b v (r c) (e p q)", p=side, q=side)
        features = lambda rows, columns: embeddings.middle_position_features(  # noqa: E731
            rows, columns, config.width, config.base_size, config.max_size
        )
        places = embeddings.grid_position_features(features, views, rows, columns, config.positions)
        return self.patch_embedding(patches).astype(jnp.float32) + places

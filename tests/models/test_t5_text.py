"""Captions become T5's states: the same for a caption whatever stands around it, on any device mesh, and in half the memory."""

import dataclasses
import io
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
import torch
from transformers import T5Config as Theirs
from transformers import T5EncoderModel, T5Tokenizer

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints.importers import mapping
from realiz3d_jax.checkpoints.importers import t5 as table
from realiz3d_jax.errors import UserError
from realiz3d_jax.models import t5
from realiz3d_jax.models.t5 import T5Config
from realiz3d_jax.models.t5_text import T5Encoder
from realiz3d_jax.models.tokenizer import Tokenizer
from realiz3d_jax.sharding import DeviceConfig

CONFIG = T5Config(width=64, depth=2, heads=4, head_channels=16, hidden=128, vocabulary=256, dtype="float32")
CAPTIONS = ("a red cone on a blue cube", "", "a chair " * 200, "an old wooden chair", "a small green torus")
CORPUS = ("a red cone on a blue cube", "an old wooden chair", "a small green torus behind the large yellow sphere") * 5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    model, folder = io.BytesIO(), tmp_path_factory.mktemp("tokenizer")
    options = {"vocab_size": 60, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2}
    numbers = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, **options, **numbers)
    (folder / "spiece.model").write_bytes(model.getvalue())
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def reference() -> T5EncoderModel:
    torch.manual_seed(0)
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 256}
    model = T5EncoderModel(Theirs(**sizes, feed_forward_proj="gated-gelu")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.5 if parameter.ndim == 1 else 0.2))
    return model


@pytest.fixture(scope="module")
def params(reference) -> t5.Params:
    state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    like = jax.eval_shape(lambda: t5.init(CONFIG, jax.random.key(0)))
    shapes = {name: array.shape for name, array in state.items()}
    return mapping.import_params(
        "here", table.rules(CONFIG), like, shapes, state.__getitem__, np.float32, table.IGNORED
    )


@pytest.fixture(scope="module")
def encoder(params, tokenizer) -> T5Encoder:
    return T5Encoder(CONFIG, jax.device_put(params, jax.devices()[0]), tokenizer, 120, batch_size=4)


@pytest.mark.parametrize("max_tokens", [120, 300])
def test_states_are_those_of_transformers_and_0_behind_the_end(max_tokens: int, reference, params, tokenizer):
    options = {"padding": "max_length", "truncation": True, "max_length": max_tokens, "return_tensors": "pt"}
    inputs = T5Tokenizer.from_pretrained(tokenizer.folder)(list(CAPTIONS), **options)
    with torch.no_grad():
        expected = reference(inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state.numpy()
    encoder = T5Encoder(CONFIG, params, tokenizer, max_tokens)
    assert (encoder.channels, encoder.max_tokens) == (64, max_tokens)
    found = encoder.encode(CAPTIONS)
    states, mask = found["states"], found["mask"]
    assert (states.shape, states.dtype) == ((len(CAPTIONS), max_tokens, 64), np.float32)
    np.testing.assert_array_equal(mask, inputs.attention_mask.numpy().astype(bool))
    assert np.abs(states - expected)[mask].max() < 1e-5 * np.abs(expected[mask]).max()
    assert (states[~mask] == 0).all()


def test_the_null_text_is_the_end_alone(encoder):
    null = encoder.encode([""])
    assert null["mask"].sum() == 1
    assert null["mask"][0, 0]
    assert np.abs(null["states"][0, 0]).max() > 0.1


def test_no_captions_have_no_states(encoder):
    assert encoder.encode([])["states"].shape == (0, 120, 64)


def test_the_captions_around_it_change_no_bit_of_a_caption(encoder):
    """In each row of a batch, among any others, in whatever batch of a call, in a full batch and in one that is filled up."""
    for row in range(4):
        alone = encoder.encode([""] * row + [CAPTIONS[0]])["states"][row]
        for others in (CAPTIONS[1:], CAPTIONS[:0:-1]):
            captions = [*others, *others[:row], CAPTIONS[0], *others]  # row of the second batch
            np.testing.assert_array_equal(encoder.encode(captions)["states"][4 + row], alone)


def test_any_number_of_captions_is_one_compilation_for_a_length(params, tokenizer):
    encoder = T5Encoder(CONFIG, params, tokenizer, 120, batch_size=4)
    for number in (1, 4, 5, 9):
        assert len(encoder.encode([CAPTIONS[1]] * number)["states"]) == number
    assert encoder._states._cache_size() == 1
    encoder.encode([CAPTIONS[1], CAPTIONS[2], CAPTIONS[1]])
    assert encoder._states._cache_size() == 2, "</s> alone at 16 tokens, the longest at all 120"


def sharded(params: t5.Params, data: int, fsdp: int):
    """The parameters on eight devices, and the sharding of a batch."""
    device_mesh = sharding.make_device_mesh(DeviceConfig(data=data, fsdp=fsdp))
    where = sharding.params_sharding({"text_encoder": params}, device_mesh)["text_encoder"]
    return jax.device_put(params, where), sharding.batch_sharding(device_mesh)


@pytest.mark.parametrize(("data", "fsdp"), [(1, 8), (2, 4)])
def test_eight_devices_encode_like_one(data: int, fsdp: int, params, tokenizer):
    expected = T5Encoder(CONFIG, jax.device_put(params, jax.devices()[0]), tokenizer, 120).encode(CAPTIONS)
    laid, batch = sharded(params, data, fsdp)
    kernel = laid["layers"]["query_key_value"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 64 // fsdp, 3, 4, 16)
    found = T5Encoder(CONFIG, laid, tokenizer, 120, sharding=batch).encode(CAPTIONS)
    np.testing.assert_array_equal(found["mask"], expected["mask"])
    assert np.abs(found["states"] - expected["states"]).max() < 1e-6 * np.abs(expected["states"]).max()


def test_each_device_gathers_one_layer_at_a_time_and_computes_its_own_captions(params, tokenizer):
    laid, batch = sharded(params, 1, 8)
    encoder = T5Encoder(CONFIG, laid, tokenizer, 120, sharding=batch)
    program = encoder._states.lower(laid, *tokenizer.encode([""] * 8, 120)).compile().as_text()
    assert "all-reduce(" not in program, "sums over devices: widths are split instead of captions"
    gathered = re.findall(r"= (?:f32|s32|pred)\[([0-9,]+)\]\S* all-gather\(", program)
    assert max(np.prod([int(size) for size in shape.split(",")]) for shape in gathered) <= 8 * 120 * 64, "the states"
    assert "64,3,4,16" in gathered, "the kernel of one layer"


def test_bfloat16_parameters_are_never_copied_to_float32():
    config = T5Config(width=128, depth=24, heads=4, head_channels=32, hidden=384, vocabulary=1000)
    like = jax.eval_shape(lambda: t5.init(config, jax.random.key(0)))
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), like)
    inputs = jax.ShapeDtypeStruct((2, 10), np.int32), jax.ShapeDtypeStruct((2, 10), bool)
    apply = partial(t5.apply, config)
    shapes = {leaf.shape for leaf in jax.tree.leaves(like) if leaf.ndim > 2} | {like["embedding"]["embedding"].shape}
    shapes |= {leaf.shape[1:] for leaf in jax.tree.leaves(like["layers"]) if leaf.ndim > 2}
    assert len(shapes) == 9
    jaxpr = str(jax.make_jaxpr(apply)(half, *inputs))
    written = {tuple(map(int, shape.split(","))) for shape in re.findall(r"f32\[([0-9,]+)\]", jaxpr)}
    assert not shapes & written
    assert (2, 10, 128) in written, "norms are in float32"
    kernels = sum(2 * leaf.size for leaf in jax.tree.leaves(half))
    memory = jax.jit(apply).lower(half, *inputs).compile().memory_analysis()
    assert memory.argument_size_in_bytes < 1.01 * kernels
    assert memory.temp_size_in_bytes < 0.25 * kernels, "several layers' worth at most"


def test_bfloat16_states_are_float32_and_close(tokenizer):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    full = jax.jit(partial(t5.init, CONFIG))(jax.random.key(0))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), full)
    expected = T5Encoder(CONFIG, full, tokenizer, 120).encode(CAPTIONS)["states"]
    found = T5Encoder(config, half, tokenizer, 120).encode(CAPTIONS)["states"]
    assert found.dtype == np.float32
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 0 < error < 0.03


def test_a_tokenizer_with_more_tokens_than_embeddings_is_a_user_error(params, tokenizer):
    small = dataclasses.replace(CONFIG, vocabulary=tokenizer.size - 1)
    with pytest.raises(UserError, match=rf"has {tokenizer.size} tokens .*, expected at most {tokenizer.size - 1}"):
        T5Encoder(small, params, tokenizer, 120)

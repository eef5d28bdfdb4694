"""One table says how every array lies on the devices, and any device mesh computes what one device computes."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import adam_state, encoded, leaves, load_config, random_params

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints.bases import BASES
from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.errors import UserError
from realiz3d_jax.method import interface
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.model import Model
from realiz3d_jax.models import t5, vae
from realiz3d_jax.models.t5 import T5Config
from realiz3d_jax.models.vae import VAEConfig
from realiz3d_jax.sampling import generator
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.training import setup
from realiz3d_jax.training.state import new_state, stream_key

MESHES = {"data": (8, 1), "fsdp": (1, 8), "both": (2, 4)}
LEARNING_RATE = 1e-3
PARTS = {
    "backbone": {"patch_embedding", "timestep_embedding", "modulation", "caption_projection", "blocks", "final"},
    "shifters": {"left", "right", "embedding"},
    "control": {"kernel"},
}


def stages() -> list[tuple[str, str]]:
    return [(name, stage) for name in interface.names() for stage in interface.load(name, {}).stages()]


def shapes_of(method: str, stage: str, base: str = "tiny", task: str = "texture"):
    model = Model(BASES[base].model, interface.load(method, {}), task, BASES[base].diffusion, BASES[base].codec)
    partitions = model.method.stages()[stage].partitions
    return jax.eval_shape(lambda: model.init(partitions, jax.random.key(0)))


# Partitions


@pytest.mark.parametrize(("method", "stage"), stages())
def test_the_partitions_of_a_stage_are_exactly_those_it_names_and_hold_exactly_their_parts(method: str, stage: str):
    declared = interface.load(method, {}).stages()[stage]
    shapes = shapes_of(method, stage)
    assert set(shapes) == set(declared.partitions)
    assert len(set(declared.partitions)) == len(declared.partitions)
    assert set(declared.trainable) <= set(declared.partitions)
    assert declared.trainable
    for name, tree in shapes.items():
        assert set(tree) == PARTS[name], name


def test_no_shifter_is_a_leaf_of_the_backbone_and_stage_1_and_2_share_the_trees_that_they_share():
    first, second, base = (
        shapes_of(*names) for names in [("realiz3d", "stage1"), ("realiz3d", "stage2"), ("pretraining", "pretrain")]
    )
    for name in ("backbone", "shifters"):
        assert jax.tree.structure(first[name]) == jax.tree.structure(second[name])
    assert jax.tree.structure(first["backbone"]) == jax.tree.structure(base["backbone"])
    total = len(jax.tree.leaves(second))
    assert total == sum(len(jax.tree.leaves(second[name])) for name in ("backbone", "shifters", "control"))


# The table


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("method", "stage"), stages())
def test_every_parameter_of_every_method_and_base_is_matched_by_exactly_one_rule(method: str, stage: str, base: str):
    device_mesh = sharding.make_device_mesh(DeviceConfig(data=1, fsdp=8))
    for task in ("texture", "text_to_multiview"):
        shapes = shapes_of(method, stage, base, task)
        laid = sharding.params_sharding(shapes, device_mesh, sharding.rules_of(BASES[base].model))
        assert jax.tree.structure(laid) == jax.tree.structure(shapes)
        backbone = [
            (leaf.size, rule)
            for leaf, rule in zip(*map(jax.tree.leaves, (shapes["backbone"], laid["backbone"])), strict=True)
        ]
        replicated = sum(size for size, rule in backbone if rule.is_fully_replicated)
        assert replicated < 0.1 * sum(size for size, _ in backbone), "nine tenths of the backbone are split"


@pytest.mark.parametrize("base", ["pixart_alpha_1024", "shapes_sd3"])
def test_every_rule_is_needed_by_the_two_stages_and_the_frozen_models(base: str):
    used, rules = set(), sharding.rules_of(BASES[base].model)
    for path, _ in leaves_of_paths(shapes_of("realiz3d", "stage2", base) | frozen_shapes()):
        used |= {number for number, (pattern, _) in enumerate(rules) if sharding.re.fullmatch(pattern, path)}
    assert used == set(range(len(rules)))


@cache
def frozen_shapes():
    """The text encoder and the autoencoder of PixArt."""
    inits = {"text_encoder": partial(t5.init, T5Config()), "autoencoder": partial(vae.init, VAEConfig())}
    return {name: jax.eval_shape(init, jax.random.key(0)) for name, init in inits.items()}


def test_every_parameter_of_the_frozen_models_is_matched_by_one_rule_and_the_text_encoder_is_split():
    shapes = frozen_shapes()
    laid = sharding.params_sharding(shapes, sharding.make_device_mesh(DeviceConfig(data=1, fsdp=8)))
    assert jax.tree.structure(laid) == jax.tree.structure(shapes)
    assert all(rule.is_fully_replicated for rule in jax.tree.leaves(laid["autoencoder"]))
    encoder = list(zip(*map(jax.tree.leaves, (shapes["text_encoder"], laid["text_encoder"])), strict=True))
    split = [(leaf, rule.spec.index("fsdp")) for leaf, rule in encoder if not rule.is_fully_replicated]
    assert {leaf.shape[axis] for leaf, axis in split} == {T5Config().width, T5Config().hidden}, "only widths are split"
    assert sum(leaf.size for leaf, _ in encoder) == 4_762_310_656
    assert sum(leaf.size for leaf, _ in split) > 0.999 * 4_762_310_656


def leaves_of_paths(tree) -> list[tuple[str, jax.ShapeDtypeStruct]]:
    return [
        ("/".join(str(key.key) for key in path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


@pytest.mark.parametrize("path", [("backbone", "blocks", "gate"), ("shifters", "scale"), ("adapter", "kernel")])
def test_a_parameter_without_a_rule_is_refused(path: tuple[str, ...]):
    tree = jax.ShapeDtypeStruct((8, 8), jnp.float32)
    for part in reversed(path):
        tree = {part: tree}
    with pytest.raises(ValueError, match=rf"{'/'.join(path)}' is matched by 0 sharding rules, expected exactly one"):
        sharding.params_sharding(tree, sharding.make_device_mesh(DeviceConfig()))


def test_moments_and_averages_lie_like_their_parameters():
    run = setup.make_run(load_config("stage2", {"devices.data": 1, "devices.fsdp": 8}))
    state = run.abstract_state
    adam = adam_state(state.opt_state)
    assert not state.params["backbone"]["blocks"]["mlp"]["first"]["kernel"].sharding.is_fully_replicated
    for name in run.stage.trainable:
        expected = [leaf.sharding for leaf in jax.tree.leaves(state.params[name])]
        for tree in (adam.mu, adam.nu, state.ema):
            assert [leaf.sharding for leaf in jax.tree.leaves(tree[name])] == expected


@pytest.mark.parametrize(("data", "fsdp"), [(3, 1), (-1, 3), (-1, -1), (-1, 0), (0, -1), (2, 8), (-2, -4)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(data: int, fsdp: int):
    with pytest.raises(UserError, match=rf"config.devices: data={data}, fsdp={fsdp} does not fit 8 devices"):
        sharding.make_device_mesh(DeviceConfig(data, fsdp))


def test_minus_one_takes_the_devices_that_are_left():
    assert dict(sharding.make_device_mesh(DeviceConfig(-1, 2)).shape) == {"data": 4, "fsdp": 2}
    assert dict(sharding.make_device_mesh(DeviceConfig(4, -1)).shape) == {"data": 4, "fsdp": 2}
    assert dict(sharding.make_device_mesh(DeviceConfig(-1, 1), jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1}


def test_a_batch_that_the_devices_cannot_share_is_refused():
    with pytest.raises(
        UserError, match=r"config.data.batch_grids: found 6 in total, expected a multiple of the 8 devices"
    ):
        setup.make_run(load_config("stage2", {"data.batch_grids": 6}))


# One device and eight


def test_one_and_eight_devices_draw_the_same_noise():
    shape, key = (8, 4, 8, 8, 3), stream_key(0, "noise", 3)
    expected = jax.jit(lambda: jax.random.normal(key, shape))()
    for data, fsdp in MESHES.values():
        split = sharding.batch_sharding(sharding.make_device_mesh(DeviceConfig(data, fsdp)))
        drawn = jax.jit(lambda: jax.random.normal(key, shape), out_shardings=split)()
        assert len(drawn.sharding.device_set) == 8
        np.testing.assert_array_equal(drawn, expected)


def three_steps(data: int, fsdp: int, devices: list[jax.Device]):
    """A real iteration, a synthetic one and another real one; what they leave, and their losses."""
    changes = {
        "model.depth": 2,
        "method.tau": 1.0,
        "devices.data": data,
        "devices.fsdp": fsdp,
        "optimizer.learning_rate": LEARNING_RATE,
        "optimizer.warmup_steps": 0,
        "optimizer.schedule": "constant",
    }
    run = setup.make_run(load_config("stage2", changes), devices)
    params = random_params(run.config)
    where = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    state = jax.jit(lambda params: new_state(params, run.stage, run.step_config.optimizer), out_shardings=where)(params)
    random = np.random.default_rng(0)
    losses = []
    for number in (1, 0, 1):
        kind = run.stage.iterations[number]
        groups = 1 if kind.joint else 4
        batch = {
            "image": random.integers(0, 256, (8, 4, 32, 32, 3), np.uint8),
            "captions": encoded(run.encoder, ["a red cone", "a blue cone"] * (4 * groups), 8),
        }
        if kind.control:
            batch["control"] = random.uniform(-1, 1, (8, 4, 32, 32, 6)).astype(np.float32)
        state, metrics = run.steps[kind.name](state, run.put(batch))
        losses.append(float(metrics["loss"]))
    adam = adam_state(state.opt_state)
    return losses, leaves(state.params), leaves(adam.mu)


@pytest.fixture(scope="module")
def alone():
    return three_steps(1, 1, jax.devices()[:1])


@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_train_like_one(mesh: str, alone):
    """Losses agree to 1e-5, gradients to 1e-4 of each array's largest, parameters as far as Adam lets them.

    On more devices float32 sums run in another order, so a gradient g carries an error of some 1e-6 of its array's scale. Adam
    divides g by its own size: on its first steps it moves a parameter by the learning rate lr in the direction of sign(g),
    whatever |g| is. Where |g| is far above the error, the moves agree to a small part of lr; where g is nothing but that error
    its sign is arbitrary, and each of the three steps may differ by 2 lr. (By Cauchy and Schwarz |m| / sqrt(v) is at most 1.004
    over three steps.) So all entries are held to 3 x 2.01 lr, and all but one in a thousand to lr / 100.
    """
    losses, params, moments = three_steps(*MESHES[mesh], jax.devices())
    assert losses == pytest.approx(alone[0], rel=1e-5)
    for path, moment in moments.items():
        error = np.max(np.abs(moment - alone[2][path])) / np.max(np.abs(alone[2][path]))
        assert error < 1e-4, (path, error)
    errors = np.concatenate([np.abs(params[path] - alone[1][path]).ravel() for path in params])
    assert errors.max() <= 3 * 2.01 * LEARNING_RATE
    assert np.quantile(errors, 0.999) <= LEARNING_RATE / 100


@pytest.mark.parametrize(("items", "shared"), [(8, True), (3, False)])
def test_eight_devices_draw_the_images_of_one_and_share_a_batch_that_they_divide(items: int, shared: bool, monkeypatch):
    config = load_config("stage2", {"sampling.steps": 3})
    model, encoder = setup.make_model(config), Encoders(config).open_text()
    params, random = random_params(config), np.random.default_rng(0)
    control = random.uniform(0, 1, (items, 4, 32, 32, 6)).astype(np.float32)
    where, draw = [], generator._sample
    monkeypatch.setattr(
        generator, "_sample", lambda *arguments: where.append(arguments[7].sharding) or draw(*arguments)
    )

    def images(devices: list[jax.Device]) -> np.ndarray:
        there = jax.device_put(params, sharding.replicated(sharding.make_device_mesh(DeviceConfig(), devices)))
        sample = generator.Generator(model, encoder, config.sampling)
        return sample(there, [["a red cone"]] * items, range(items), Domain.REAL, control)

    found, expected = images(jax.devices()), images(jax.devices()[:1])
    assert where[0].is_fully_replicated != shared
    assert np.std(expected) > 10
    assert np.mean(found != expected) < 0.01  # a value at the edge of rounding to uint8 may fall to the other side
    np.testing.assert_allclose(found, expected.astype(float), atol=1)

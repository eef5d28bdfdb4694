"""What the compiled programs do on several devices: who holds what, what is exchanged, and that they lower for TPUs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from worlds import adam_state, encoded, leaves, load_config, random_params

from realiz3d_jax import sharding
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.models import attention
from realiz3d_jax.sampling import generator
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.training import compiled, setup
from realiz3d_jax.training.setup import Run
from realiz3d_jax.training.state import new_state, unsplit_parameters

GRIDS = 8
SIZES = ("tiny", "tiny_sd3")


def make_run(stage: str, size: str = "tiny", devices: int = 8, **changes: Any) -> Run:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return setup.make_run(load_config(stage, named, size=size), jax.devices()[:devices])


def long_run(stage: str, size: str, data: int, fsdp: int, **changes: Any) -> Run:
    """With so many tokens that activations outweigh parameters: 256 a view, 1,024 a grid."""
    long = {"model.patch_size": 2, "model.width": 64, "devices.data": data, "devices.fsdp": fsdp}
    return make_run(stage, size, **long, **changes)


def batch_of(run: Run, kind, random: np.random.Generator | None = None) -> dict[str, Any]:
    random = random or np.random.default_rng(0)
    grids, groups = run.config.data.batch_grids, 1 if kind.joint else 4
    batch = {
        "image": random.integers(0, 256, (grids, 4, 32, 32, 3), np.uint8),
        "captions": encoded(run.encoder, ["a red cone", "a blue cube"] * (grids * groups // 2), grids),
    }
    if kind.control:
        batch["control"] = random.uniform(0, 1, (grids, 4, 32, 32, 6)).astype(np.float32)
    return batch


# Reading a compiled program


def test_collectives_are_counted_with_the_loops_that_run_them_and_by_the_branch_that_exchanges_most():
    device_mesh = sharding.make_device_mesh(DeviceConfig(data=8))
    split = NamedSharding(device_mesh, PartitionSpec("data"))
    whole = sharding.replicated(device_mesh)

    def shared(x):
        return jax.lax.with_sharding_constraint(jnp.sum(x, axis=0, keepdims=True), whole)  # float32[1, 128] of all

    def step(x, number):
        x = jax.lax.cond(number < 2, lambda x: x, lambda x: x + shared(jnp.sin(x)), x)
        return jax.lax.with_sharding_constraint(x, split), None

    program = jax.jit(lambda x: jax.lax.scan(step, x, jnp.arange(5))[0], in_shardings=split, out_shardings=split)
    report = compiled.report(program.lower(jnp.zeros((64, 128))).compile())
    assert report.by_kind() == {"all-reduce": (5, 5 * 128 * 4)}
    assert (report.exchanged, report.largest) == (5 * 128 * 4, 128 * 4)


def test_a_shape_is_as_many_bytes_as_it_says():
    text = """ENTRY %main (x: f32[2]) -> f32[2] {
  %a = (bf16[3,5]{1,0}, f32[]) all-reduce(%x, %y), to_apply=%add
  ROOT %b = s8[7]{0} all-gather-start(%x), dimensions={0}
}"""
    assert [(one.kind, one.size, one.times) for one in compiled.collectives(text)] == [
        ("all-reduce", 3 * 5 * 2 + 4, 1),
        ("all-gather", 7, 1),
    ]


# fsdp


@pytest.mark.parametrize(("size", "kind"), [("tiny", 1), ("tiny_sd3", 0)], ids=["real", "synthetic"])
def test_under_fsdp_a_device_computes_its_own_part_of_the_batch(size: str, kind: int):
    """Or the partitioner would follow the split parameters, and every device would compute the activations of all grids."""
    reports = {}
    for data, fsdp in ((8, 1), (1, 8)):
        run = long_run("stage2", size, data, fsdp)
        iteration = run.stage.iterations[kind]
        program = run.steps[iteration.name].lower(run.abstract_state, batch_of(run, iteration))
        reports[fsdp] = compiled.report(program.compile())
    activations = GRIDS * 4 * 256 * 64 * 4  # tokens of the whole batch, float32
    assert reports[8].temporaries <= 1.5 * reports[1].temporaries, reports
    assert reports[8].largest < activations, reports[8]
    assert reports[8].arguments < 0.5 * reports[1].arguments, "parameters, moments and averages are split"


def test_parameters_that_do_not_train_have_no_gradients_even_of_zeros():
    """In Stage 1 the backbone's are never there: less is held while a step computes than its gradients would take."""
    run = make_run(
        "stage1", "tiny", 1, model__width=256, model__scan_unroll=1, data__batch_grids=1, model__remat="full"
    )
    iteration = run.stage.iterations[0]
    program = run.steps[iteration.name].lower(run.abstract_state, batch_of(run, iteration))
    report = compiled.report(program.compile())
    held = sum(leaf.size * 4 for leaf in jax.tree.leaves(run.abstract_state.params["backbone"]))
    assert report.temporaries < 0.6 * held, (report.temporaries, held)


def test_parameters_that_fsdp_does_not_divide_are_told_with_what_they_cost():
    run = make_run("stage2", devices__data=1, devices__fsdp=8, model__patch_size=2, model__width=32)
    message = unsplit_parameters(run.abstract_state, run.device_mesh, run.config.model)
    size = 3 * 2 * 2 * 32 * 4 * 4 * 7 / 8 / 2**20  # [12, 32], with two moments and an average, seven eighths of it
    assert f"fsdp=8 does not divide 1 parameters, so every device holds them whole, {size:.2f} MiB more" in message
    assert f"backbone/patch_embedding/kernel [12, 32], axis 0: {size:.2f} MiB" in message
    assert (
        unsplit_parameters(run.abstract_state, sharding.make_device_mesh(DeviceConfig(data=8)), run.config.model) == ""
    )


# TPUs


def check_kernels(traced: Any) -> None:
    """The kernel is reached, through ``shard_map`` alone, and the program lowers for TPUs."""
    kernels = compiled.kernels(traced.jaxpr)
    assert kernels
    assert all("shard_map" in within for within in kernels)
    assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_every_step_on_eight_devices_lowers_for_tpus_with_their_fused_attention(stage: str, size: str):
    tokens = {"data.text_tokens": 128} if size == "tiny_sd3" else {}  # text and image are one sequence there
    with attention.compiling_for("tpu"):
        run = long_run(stage, size, 2, 4, model__attention="splash", model__dtype="bfloat16", **tokens)
        for iteration in run.stage.iterations:
            check_kernels(run.steps[iteration.name].trace(run.abstract_state, batch_of(run, iteration)))


@pytest.mark.parametrize("items", [8, 3], ids=["shared", "not shared"])
def test_sampling_on_eight_devices_lowers_for_tpus_with_their_fused_attention(items: int, monkeypatch):
    traced = []

    def trace(*arguments: Any) -> np.ndarray:
        traced.append(draw.trace(*arguments))
        return np.zeros(0)

    draw = generator._sample
    monkeypatch.setattr(generator, "_sample", trace)
    with attention.compiling_for("tpu"):
        run = long_run("stage2", "tiny", 8, 1, model__attention="splash", sampling__steps=2)
        params = jax.device_put(random_params(run.config), sharding.replicated(run.device_mesh))
        control = np.zeros((items, 4, 32, 32, 6), np.float32)
        sample = generator.Generator(run.model, run.encoder, run.config.sampling)
        sample(params, [["a red cone"]] * items, range(items), Domain.REAL, control)
        check_kernels(traced[0])


# Batches


def test_a_batch_is_given_for_the_run_or_for_each_device():
    of_run = make_run("stage2", devices=4, data__batch_grids=8)
    of_device = make_run("stage2", devices=4, data__batch_grids=2, data__batch_of="device")
    assert of_run.config == of_device.config
    assert of_device.config.data.batch_grids == 8
    with pytest.raises(
        UserError, match=r"found 8 in total, expected a multiple of the 4 devices times config.accumulation = 4"
    ):
        make_run("stage2", devices=4, accumulation=4)
    with pytest.raises(UserError, match=r"config.data.batch_of: found 'host', expected \"run\" or \"device\""):
        make_run("stage2", data__batch_of="host")


@functools.cache
def steps_taken(devices: int, accumulation: int) -> tuple[Any, ...]:
    """Moments, parameters, loss and bucket losses after a synthetic and a real iteration that freezes some blocks, not all."""
    run = make_run(
        "stage2",
        devices=devices,
        accumulation=accumulation,
        data__batch_grids=16,
        method__tau=1.0,
        devices__fsdp=devices // 2 or 1,
        optimizer__schedule="constant",
        optimizer__warmup_steps=0,
        timestep_weight_cap=10.0,
    )
    where = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    fresh = jax.jit(lambda params: new_state(params, run.stage, run.step_config.optimizer), out_shardings=where)
    state, metrics = fresh(random_params(run.config)), []
    drawn = [
        int(run.stage.iterations[1].plan(setup.stream_key(run.config.seed, "plan", step), 3).frozen)
        for step in (1, 2, 3)
    ]
    assert set(drawn) - {0, 3}, "blocks are frozen, and not all of them"
    for number in (0, 1, 1, 1):
        kind = run.stage.iterations[number]
        state, message = run.steps[kind.name](state, run.put(batch_of(run, kind)))
        metrics.append(jax.device_get({name: message[name] for name in ("loss", "bucket_loss", "bucket_count")}))
    return leaves(adam_state(state.opt_state).mu), leaves(adam_state(state.opt_state).count), metrics


@pytest.mark.parametrize(("devices", "accumulation"), [(1, 4), (8, 2)])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole_batch(devices: int, accumulation: int):
    """To the rounding of sums in another order; what rests does so in every part."""
    moments, counts, metrics = steps_taken(devices, accumulation)
    expected, expected_counts, expected_metrics = steps_taken(1, 1)
    for path, moment in moments.items():
        error = np.max(np.abs(moment - expected[path])) / np.max(np.abs(expected[path]))
        assert error < 1e-4, (path, error)
        np.testing.assert_array_equal(counts[path], expected_counts[path])
    for one, other in zip(metrics, expected_metrics, strict=True):
        np.testing.assert_array_equal(one["bucket_count"], other["bucket_count"])
        np.testing.assert_allclose(one["bucket_loss"], other["bucket_loss"], rtol=1e-5)
        assert one["loss"] == pytest.approx(float(other["loss"]), rel=1e-5)


def test_a_batch_in_parts_holds_the_activations_of_one_at_a_time():
    reports = {}
    for accumulation in (1, 8):
        run = make_run("stage2", devices=1, accumulation=accumulation, model__patch_size=2)
        kind = run.stage.iterations[0]
        program = run.steps[kind.name].lower(run.abstract_state, batch_of(run, kind))
        reports[accumulation] = compiled.report(program.compile())
    assert reports[8].temporaries < 0.3 * reports[1].temporaries, reports

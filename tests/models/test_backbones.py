"""A second family of backbones and of processes, behind the same seams: what the method promises holds there, too."""

import dataclasses
import functools

import by_hand
import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from autoencoder_reference import SMALL as VAE
from autoencoder_reference import make_reference as make_autoencoder
from sd3_reference import SMALL, make_reference
from worlds import encoded, load_config, random_params, run_command, write_exported

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints import exported
from realiz3d_jax.checkpoints.workdirs import flatten
from realiz3d_jax.diffusion import samplers
from realiz3d_jax.diffusion.rectified_flow import RectifiedFlow
from realiz3d_jax.diffusion.samplers import DDIM, DPMSolverPP2M
from realiz3d_jax.method import interface
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.model import Model
from realiz3d_jax.models import backbone, mmdit
from realiz3d_jax.models.text import WordEncoder
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.training import setup
from realiz3d_jax.training.state import new_state

GRIDS, DEPTH = 2, 3


@functools.cache
def make_run(stage: str) -> setup.Run:
    changes = {"data.batch_grids": GRIDS, "optimizer.warmup_steps": 0}
    if stage == "stage2":
        changes["method.tau"] = 1.0  # real iterations freeze any number of blocks, from none to all
    return setup.make_run(load_config(stage, changes, size="tiny_sd3"), jax.devices()[:1])


def take_step(run: setup.Run, kind: interface.Iteration, step: int):
    """States before and after a step, on the host, and its metrics."""
    random = np.random.default_rng(step)
    state = jax.device_get(new_state(random_params(run.config), run.stage, run.step_config.optimizer))
    state = dataclasses.replace(state, step=np.int32(step))
    captions = ["a red cone", "a blue cube"] * (GRIDS // 2 if kind.joint else 2 * GRIDS)
    batch = {
        "image": random.integers(0, 256, (GRIDS, 4, 32, 32, 3), np.uint8),
        "captions": encoded(run.encoder, captions, GRIDS),
    }
    if kind.control:
        batch["control"] = random.uniform(0, 1, (GRIDS, 4, 32, 32, 6)).astype(np.float32)
    where = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    after, metrics = jax.device_get(run.steps[kind.name](jax.device_put(state, where, may_alias=False), run.put(batch)))
    return state, after, metrics


@pytest.mark.parametrize("task", ["texture", "text_to_multiview"])
def test_with_fresh_shifters_and_control_the_model_is_the_base_model_bit_for_bit(task: str):
    config = load_config("stage2", size="tiny_sd3")
    model = Model(config.model, interface.load("realiz3d", {}), task, config.diffusion)
    base = Model(config.model, interface.load("pretraining", {}), task, config.diffusion)
    params = jax.jit(lambda key: model.init(("shifters", "control"), key))(jax.random.key(0))
    params["backbone"] = random_params(config)["backbone"]
    random = np.random.default_rng(0)
    noise, timestep = random.normal(size=(1, 4, 32, 32, 3)).astype(np.float32), np.array([[417.5]], np.float32)
    captions = encoded(WordEncoder(64, 20), ["a red cone"], 1)
    control = random.uniform(0, 1, (1, 4, 32, 32, 6)).astype(np.float32)
    domain = jnp.array([Domain.REAL, Domain.SYNTHETIC, Domain.REAL])
    expected = jax.jit(base.predict)({"backbone": params["backbone"]}, noise, timestep, captions, domain=domain)
    assert np.std(expected) > 0.01
    found = jax.jit(model.predict)(params, noise, timestep, captions, domain=domain, control=control)
    np.testing.assert_array_equal(found, expected)


def test_views_with_positions_of_their_own_are_the_pictures_that_the_transformer_makes_of_each_alone():
    config = dataclasses.replace(load_config("base", size="tiny_sd3").model, positions="view")
    params = random_params(load_config("base", size="tiny_sd3"))["backbone"]
    random = np.random.default_rng(0)
    latents = random.normal(size=(1, 4, 32, 32, 3)).astype(np.float32)
    timestep = random.uniform(0, 1000, (1, 4)).astype(np.float32)
    captions = encoded(WordEncoder(64, 20), ["a red cone", "a blue cube", "a cone", "a cube"], 1)
    alone = lambda array: np.moveaxis(array, 1, 0)  # noqa: E731
    expected = jax.jit(functools.partial(mmdit.apply, config))(
        params, alone(latents), alone(timestep), jax.tree.map(alone, captions)
    )[:, 0]
    for positions, same in (("view", True), ("canvas", False)):
        apply = jax.jit(functools.partial(mmdit.apply, dataclasses.replace(config, positions=positions)))
        error = np.abs(apply(params, latents, timestep, captions)[0] - expected).max() / np.abs(expected).max()
        assert (error < 1e-5) == same, (positions, error)


def test_stage_1_trains_the_shifters_of_the_image_stream_and_nothing_else():
    run = make_run("stage1")
    for number, kind in enumerate(run.stage.iterations):
        before, after, metrics = take_step(run, kind, number)
        assert metrics["finite"]
        old, new = dict(flatten(before.params)), dict(flatten(after.params))
        for path in old:
            assert np.array_equal(old[path], new[path]) == path.startswith("backbone"), path


def test_a_real_iteration_leaves_the_first_blocks_of_both_streams_and_what_feeds_them_bit_identical():
    run = make_run("stage2")
    kind = run.stage.iterations[1]
    seen = set()
    for step in range(8):
        before, after, metrics = take_step(run, kind, step)
        frozen = int(kind.plan(setup.stream_key(run.config.seed, "plan", step), DEPTH).frozen)
        seen.add(frozen)
        assert metrics["finite"]
        old, new = dict(flatten(before.params["backbone"])), dict(flatten(after.params["backbone"]))
        for path in old:
            part = path.split("/")[0]
            if part in ("blocks", "text_blocks"):
                moved = [not np.array_equal(*pair) for pair in zip(old[path], new[path], strict=True)]
                assert moved == [layer >= frozen for layer in range(len(moved))], (path, frozen)
            else:
                rests = part in mmdit.PARTS.input or (part == "last_text" and frozen == DEPTH)
                assert np.array_equal(old[path], new[path]) == rests, (path, frozen)
    assert len(seen) == DEPTH + 1


def test_shared_parts_can_be_frozen_so_that_features_behind_frozen_blocks_stay_as_they_are():
    """All that feeds several blocks rests, bit for bit, whichever blocks a real iteration freezes."""
    for size in ("tiny", "tiny_sd3"):
        changes = {
            "data.batch_grids": GRIDS,
            "method.freeze_shared": True,
            "method.tau": 1.0,
            "optimizer.warmup_steps": 0,
        }
        run = setup.make_run(load_config("stage2", changes, size=size), jax.devices()[:1])
        kind = run.stage.iterations[1]
        before, after, metrics = take_step(run, kind, 1)
        assert metrics["finite"]
        parts = backbone.of(run.config.model).PARTS
        old, new = dict(flatten(before.params["backbone"])), dict(flatten(after.params["backbone"]))
        moved = {path.split("/")[0] for path in old if not np.array_equal(old[path], new[path])}
        assert not moved & set(parts.input + parts.shared)
        assert "final" in moved


def test_a_synthetic_iteration_trains_the_whole_backbone_and_the_control():
    run = make_run("stage2")
    before, after, metrics = take_step(run, run.stage.iterations[0], 0)
    assert metrics["finite"]
    old, new = dict(flatten(before.params)), dict(flatten(after.params))
    assert [path for path in old if np.array_equal(old[path], new[path])] == [
        path for path in old if path.startswith("shifters")
    ]


def test_images_are_drawn_in_either_domain_under_control_as_by_hand():
    """Euler's method and guidance, call by call; levels of 255 are rounded."""
    changes = {"sampling.steps": 3, "sampling.timestep_max": 900, "sampling.block_max": 0.4}
    config = load_config("stage2", {**changes, "sampling.guidance_scale": 2.0}, size="tiny_sd3")
    model, encoder, params = setup.make_model(config), WordEncoder(64, 20), random_params(config)
    here = jax.device_put(params, sharding.replicated(sharding.make_device_mesh(DeviceConfig(1), jax.devices()[:1])))
    generate, predict = Generator(model, encoder, config.sampling), jax.jit(model.predict)
    maps = np.random.default_rng(0).uniform(0, 1, (1, 4, 32, 32, 6)).astype(np.float32)
    trailing = np.array([1.0, 2 / 3, 1 / 3])
    timesteps = np.float32(1000 * 3 * trailing / (1 + 2 * trailing))  # the shift of 3
    drawn = []
    for domain, control in ((Domain.REAL, maps), (Domain.SYNTHETIC, maps), (Domain.REAL, 0 * maps)):
        expected = by_hand.sample(
            predict,
            params,
            by_hand.initial_noise([7], (4, 32, 32, 3)),
            encoded(encoder, ["a red cone"], 1),
            {name: array[0] for name, array in encoder.encode([""]).items()},
            np.array([[Domain.SYNTHETIC] * 3, *[[Domain.SYNTHETIC, domain, domain]] * 2], np.int32),
            control,
            timesteps=timesteps,
            guidance_scale=2.0,
            seeds=[7],
            levels=by_hand.flow_levels,
            data=by_hand.flow_data,
        )
        drawn.append(generate(here, [["a red cone"]], [7], domain, control).astype(float))
        assert np.abs(drawn[-1] - np.clip((expected + 1.0) * 127.5, 0, 255)).max() < 1.0
    assert all(np.abs(drawn[0] - other).max() > 4 for other in drawn[1:]), "four times the tolerance"


def test_the_commands_train_both_stages_of_it_and_sample(world, tmp_path, capsys):
    data = f"--config.data.directory={world.data}"
    base = tmp_path / "base.safetensors"
    write_exported(base, load_config("base", size="tiny_sd3"))
    few = ["--config.steps=2", "--config.data.batch_grids=8", "--config.log.samples_every=0", data]
    for stage, source in (("stage1", base), ("stage2", tmp_path / "stage1")):
        arguments = [f"--config=configs/{stage}.py:tiny_sd3", f"--workdir={tmp_path / stage}"]
        arguments += ["--config.method.real_warmup_steps=1"]
        assert run_command("train", *arguments, f"--config.init.source={source}", *few) == 0
    output = ["--output", str(tmp_path / "out"), "--limit", "1", "--steps", "2", "--batch", "1"]
    assert run_command("sample", "--workdir", str(tmp_path / "stage2"), "--data", str(world.data), *output) == 0
    assert "1 item, 0 problems" in capsys.readouterr().out


def test_published_weights_of_it_convert_with_their_process_and_go_back_bit_for_bit(tmp_path):
    theirs = make_reference(SMALL)
    theirs.save_pretrained(tmp_path / "source" / "transformer")
    make_autoencoder(VAE).save_pretrained(tmp_path / "source" / "vae")
    assert run_command("convert", f"--source={tmp_path / 'source'}", f"--output={tmp_path / 'ours'}") == 0
    config = exported.read_config(tmp_path / "ours")
    assert config.diffusion == RectifiedFlow()
    assert config.model == dataclasses.replace(SMALL, dtype="bfloat16", remat="attention", positions="view")
    assert run_command("convert", f"--workdir={tmp_path / 'ours'}", f"--export={tmp_path / 'back'}") == 0
    again, said = diffusers.SD3Transformer2DModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(said.values()), said
    again, theirs = again.state_dict(), theirs.state_dict()
    # No parameter: each computes it, and torch's sines change by a rounding with the place of the array in memory.
    torch.testing.assert_close(again.pop("pos_embed.pos_embed"), theirs.pop("pos_embed.pos_embed"), rtol=0, atol=2e-7)
    for name, tensor in theirs.items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.parametrize("groups", [1, 4])
def test_analytic_flops_are_those_that_the_compiler_counts(groups: int):
    config = dataclasses.replace(
        load_config("base", size="tiny_sd3").model, width=512, heads=8, sample_size=64, scan_unroll=3
    )
    params = jax.eval_shape(lambda: mmdit.init(config, jax.random.key(0)))
    shape = (2, groups)
    captions = {"states": jnp.zeros((*shape, 20, 64)), "pooled": jnp.zeros((*shape, 64))}
    latents, timestep = jnp.zeros((2, 4, 64, 64, 3)), jnp.zeros(shape)
    counted = jax.jit(functools.partial(mmdit.apply, config)).lower(params, latents, timestep, captions).cost_analysis()
    assert 0.0 <= counted["flops"] / (2 * mmdit.flops(config, 4, groups, 20)) - 1.0 < 0.03


# Rectified flow


def exact_velocity(x, sigma):
    """Of data N(0.7, 0.4²): E[ε - x_0 | x]."""
    variance = (1 - sigma) ** 2 * 0.16 + sigma**2
    centred = (x - (1 - sigma) * 0.7) / variance
    return sigma * centred - 0.7 - (1 - sigma) * 0.16 * centred


@pytest.mark.parametrize("steps", [1, 7, 28])
def test_sampling_equals_diffusers_euler_scheduler_on_the_same_predictions(steps: int):
    process, random = RectifiedFlow(), np.random.default_rng(0)
    reference = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    reference.set_timesteps(steps)
    timesteps = process.sampling_timesteps(steps, "linspace")
    np.testing.assert_allclose(timesteps, reference.timesteps.numpy(), rtol=1e-5)
    noise, velocities = random.normal(size=(2, 5)), random.normal(size=(steps, 2, 5)).astype(np.float32)
    x = torch.from_numpy(noise)
    for index, timestep in enumerate(reference.timesteps):
        x = reference.step(torch.from_numpy(velocities[index]), timestep, x).prev_sample
    denoise = lambda x, timestep, index: jnp.asarray(velocities)[index]  # noqa: E731
    start = jnp.asarray(noise, jnp.float32)
    found = samplers.sample(DDIM(), process, timesteps, denoise, start, jax.random.key(0))
    parity.check(
        "Euler's method on a rectified flow", "diffusers FlowMatchEulerDiscreteScheduler", found, x.numpy(), 1e-5
    )


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (DPMSolverPP2M(), 2)])
def test_samplers_converge_to_the_solution_of_gaussian_data_with_their_order(sampler, order: int):
    process, counts = RectifiedFlow(shift=1.0), np.array([65, 129, 257, 513])
    z = jnp.linspace(-2.0, 2.0, 5)

    def error(steps: int) -> float:
        sigmas = 1 / (
            1 + np.exp(np.linspace(-2.0, 2.0, steps))
        )  # equal steps of log-SNR, as the solver's order is stated
        moments = [((1 - s) * 0.7, np.sqrt((1 - s) ** 2 * 0.16 + s**2)) for s in sigmas[[0, -1]]]
        start, exact = (mean + spread * z for mean, spread in moments)
        denoise = lambda x, timestep, index: exact_velocity(x, timestep / 1000)  # noqa: E731
        found = samplers.sample(sampler, process, sigmas * 1000, denoise, start, jax.random.key(0))
        return float(np.max(np.abs(found - (exact - sigmas[-1] * exact_velocity(exact, sigmas[-1])))))

    with jax.enable_x64(True):
        errors = [error(int(steps)) for steps in counts]
    assert -np.polyfit(np.log(counts - 1), np.log(errors), 1)[0] == pytest.approx(order, abs=0.07), errors


def test_from_pure_noise_both_samplers_reach_the_data():
    process, z = RectifiedFlow(), jnp.linspace(-2.0, 2.0, 5)
    denoise = lambda x, timestep, index: exact_velocity(x, timestep / 1000)  # noqa: E731
    for sampler in (DDIM(), DPMSolverPP2M()):
        timesteps = sampler.timesteps(process, 400, "trailing")
        found = samplers.sample(sampler, process, timesteps, denoise, z, jax.random.key(0))
        np.testing.assert_allclose(found, 0.7 + 0.4 * z, atol=0.01)


def test_training_draws_noise_levels_as_the_reference_does():
    """The density of a shifted logit-normal, whose median is the shift of 1/2."""
    timestep = np.asarray(RectifiedFlow().draw_timesteps(jax.random.key(0), (50_000,)))
    assert 0 < timestep.min() < timestep.max() < 1000
    assert np.median(timestep) == pytest.approx(750, abs=5)
    level = timestep / 1000
    unshifted = level / (3 - 2 * level)
    normal = np.log(unshifted / (1 - unshifted))
    assert normal.mean() == pytest.approx(0, abs=0.02)
    assert normal.std() == pytest.approx(1, abs=0.02)


def test_a_prediction_is_split_into_the_data_and_the_noise_that_made_it():
    process = RectifiedFlow()
    x0, noise = jax.random.normal(jax.random.key(0), (2, 3, 6))
    timestep = jnp.array([0.0, 300.0, 1000.0])
    noisy = process.add_noise(x0, noise, timestep)
    signal, sigma = (jnp.float32(level)[:, None] for level in process.levels(timestep))
    for found, expected in zip(
        process.split(noisy, process.target(x0, noise, timestep), signal, sigma), (x0, noise), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)

"""One iteration: what it computes, what it changes, and what it must leave exactly as it is."""

import dataclasses
import functools
import itertools

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import adam_state, assert_same, encoded, leaves, load_config, random_params

from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.method import interface, plans
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.model import Model
from realiz3d_jax.models import dit
from realiz3d_jax.models.codec import PixelCodec
from realiz3d_jax.training import monitoring, setup
from realiz3d_jax.training.setup import Run
from realiz3d_jax.training.state import TrainState, new_state, stream_key

GRIDS, DEPTH, SEED = 2, 3, 3


def config_of(file: str, **changes) -> TrainConfig:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return load_config(file, {"data.batch_grids": GRIDS, "seed": SEED, **named})


def make_run(file: str, **changes) -> Run:
    return setup.make_run(config_of(file, **changes), jax.devices()[:1])


def random_state(run: Run) -> TrainState:
    """A state in the middle of training, on the host: random parameters, fresh moments."""
    make = jax.jit(lambda params: new_state(params, run.stage, run.step_config.optimizer))
    return jax.device_get(make(random_params(run.config)))


def random_batch(run: Run, kind: interface.Iteration, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    groups = 1 if kind.joint else 4
    captions = [f"a {'red' if random.random() < 0.5 else 'blue'} cone" for _ in range(GRIDS * groups)]
    batch = {
        "image": random.integers(0, 256, (GRIDS, 4, 32, 32, 3), np.uint8),
        "captions": encoded(run.encoder, captions, GRIDS),
    }
    if kind.control:
        batch["control"] = random.uniform(-1, 1, (GRIDS, 4, 32, 32, 6)).astype(np.float32)
    return batch


def take_step(run: Run, state: TrainState, kind: interface.Iteration, batch=None) -> tuple[TrainState, dict]:
    """A step from a state on the host, which stays as it is, to one on the host."""
    where = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    batch = random_batch(run, kind) if batch is None else batch
    there = jax.device_put(state, where, may_alias=False)  # the step eats its argument
    return jax.device_get(run.steps[kind.name](there, run.put(batch)))


SECOND = {
    "method__tau": 1.0,
    "timestep_weight_cap": 100.0,
    "data__caption_dropout": 0.3,
    "ema_decay": 0.999,
    "optimizer__clip_norm": 0.0,
}


@pytest.fixture(scope="module")
def first() -> Run:
    return make_run("stage1", timestep_weight_cap=300.0, data__caption_dropout=0.5, ema_decay=0.5)


@pytest.fixture(scope="module")
def second() -> Run:
    """Stage 2; real iterations freeze any number of blocks, from none to all."""
    return make_run("stage2", **SECOND)


class DrawnCodec(PixelCodec):
    """Stores nothing but noise: latents are what the key gives."""

    def latents(self, stored, key=None):
        return jax.random.normal(key, stored.shape)


@pytest.fixture(scope="module")
def plain() -> Run:
    """Stage 1 under the plain objective, on latents that are drawn in every step; two steps long."""
    changes = {"steps": 2, "optimizer__warmup_steps": 0, "timestep_weight_cap": 1.0, "data__caption_dropout": 0.0}
    config = config_of("stage1", **changes)
    return setup.make_run(dataclasses.replace(config, codec=DrawnCodec()), jax.devices()[:1])


predict = jax.jit(setup.make_model(config_of("stage2")).predict)


# What a fresh model is


@pytest.mark.parametrize("task", ["texture", "text_to_multiview"])
@pytest.mark.parametrize("groups", [1, 4])
def test_with_fresh_shifters_and_control_the_model_is_the_base_model_bit_for_bit(task: str, groups: int):
    config = load_config("stage2")
    model = Model(config.model, interface.load("realiz3d", {}), task, config.diffusion)
    params = jax.jit(lambda key: model.init(("shifters", "control"), key))(jax.random.key(0))
    params["backbone"] = random_params(config)["backbone"]
    base = Model(config.model, interface.load("pretraining", {}), task, config.diffusion)
    random = np.random.default_rng(0)
    inputs = (
        random.normal(size=(GRIDS, 4, 32, 32, 3)).astype(np.float32),
        random.integers(0, 1000, (GRIDS, groups)),
        encoded(Encoders(config).open_text(), ["a red cone"] * GRIDS * groups, GRIDS),
    )
    control = random.uniform(-1, 1, (GRIDS, 4, 32, 32, 6)).astype(np.float32)
    uniform = jnp.full(DEPTH, Domain.REAL)
    expected = np.array(jax.jit(base.predict)({"backbone": params["backbone"]}, *inputs, domain=uniform))
    assert np.std(expected) > 0.01, "the base model answers, so that equality means something"
    predict = jax.jit(model.predict)
    for number in range(2**DEPTH):
        domain = jnp.array([number >> layer & 1 for layer in range(DEPTH)])
        for given in (None, control):
            found = predict(params, *inputs, domain=domain, control=given)
            np.testing.assert_array_equal(found, expected, err_msg=f"{domain}, control {given is not None}")


def test_a_prediction_is_the_backbones_under_the_shifts_of_its_domains_and_the_tokens_of_its_control():
    config, random = config_of("stage2"), np.random.default_rng(0)
    params, side, width = random_params(config), config.model.patch_size, config.model.width
    noise = random.normal(size=(GRIDS, 4, 32, 32, 3)).astype(np.float32)
    control = random.uniform(0, 1, (GRIDS, 4, 32, 32, 6)).astype(np.float32)
    timestep, domain = np.array([[40], [700]]), np.array([Domain.REAL, Domain.SYNTHETIC, Domain.SYNTHETIC])
    captions = encoded(Encoders(config).open_text(), ["a red cone", "a blue cube"], GRIDS)
    left, right, embedding = (params["shifters"][name] for name in ("left", "right", "embedding"))
    shift = np.stack([left[block] @ (right[block] @ embedding[block, domain[block]]) for block in range(DEPTH)])
    patches = control.reshape(GRIDS, 4, 32 // side, side, 32 // side, side, 6).transpose(0, 1, 2, 4, 6, 3, 5)
    tokens = patches.reshape(GRIDS, 4, -1, 6 * side**2) @ params["control"]["kernel"]
    apply = jax.jit(functools.partial(dit.apply, config.model))
    expected = apply(
        params["backbone"],
        noise,
        timestep,
        captions,
        block_shift=shift.reshape(DEPTH, 1, width),
        control_tokens=tokens,
    )
    found = predict(params, noise, timestep, captions, domain=domain, control=control)
    assert expected.shape[-1] > 3, "a sigma is predicted, too, and not read"
    np.testing.assert_allclose(found, expected[..., :3], atol=1e-5)
    for change in ({"domain": domain[[1, 0, 2]]}, {"control": 0 * control}):
        other = predict(params, noise, timestep, captions, **{"domain": domain, "control": control, **change})
        assert np.std(found - other) > 1e-3, change


# What a stage leaves alone


def test_stage_1_trains_the_shifters_and_leaves_every_backbone_parameter_alone(first: Run):
    state = random_state(first)
    trained = state
    for step in range(4):
        trained, _ = take_step(first, trained, first.stage.iteration(step))
    assert_same(trained.params["backbone"], state.params["backbone"])
    for path, leaf in leaves(trained.params["shifters"]).items():
        assert not np.array_equal(leaf, leaves(state.params["shifters"])[path]), path
    assert (
        set(adam_state(trained.opt_state).mu)
        == set(adam_state(trained.opt_state).nu)
        == set(trained.ema)
        == {"shifters"}
    )


def test_stage_2_trains_backbone_and_control_and_leaves_every_shifter_alone(second: Run):
    state = random_state(second)
    trained = state
    steps = range(second.stage.second_warmup - 1, second.stage.second_warmup + 3)
    for step in steps:
        trained, _ = take_step(second, trained, second.stage.iteration(step))
    assert {second.stage.iteration(step).name for step in steps} == {"real", "synthetic"}
    assert_same(trained.params["shifters"], state.params["shifters"])
    before, after = leaves(state.params), leaves(trained.params)
    for path in before:
        if "shifters" not in path:
            assert not np.array_equal(before[path], after[path]), path
    assert (
        set(adam_state(trained.opt_state).mu)
        == set(adam_state(trained.opt_state).nu)
        == set(trained.ema)
        == {"backbone", "control"}
    )


# Layer-aware training


def frozen_at(run: Run, step: int) -> int:
    kind = run.stage.iterations[1]
    return int(kind.plan(stream_key(run.config.seed, "plan", step), DEPTH).frozen)


def test_frozen_blocks_keep_parameters_and_optimizer_state_for_every_number_in_one_compilation(second: Run):
    """The blocks that are frozen, what feeds block 0 and the control rest bit for bit; everything else moves."""
    synthetic, real = second.stage.iterations
    state, _ = take_step(second, random_state(second), synthetic)  # moments and counts that are not zero
    steps = {frozen_at(second, step): step for step in range(1, 40)}
    assert sorted(steps) == list(range(DEPTH + 1))
    for frozen, step in steps.items():
        before = dataclasses.replace(state, step=np.int32(step))
        after, metrics = take_step(second, before, real)
        assert metrics["finite"]
        adam, new_adam = adam_state(before.opt_state), adam_state(after.opt_state)
        trained = [
            ({name: state.params[name] for name in second.stage.trainable}, after.params),
            (adam.mu, new_adam.mu),
            (adam.nu, new_adam.nu),
            (adam.count, new_adam.count),
        ]
        for old, new in trained:
            new = leaves({name: new[name] for name in old})
            for path, value in leaves(old).items():
                if "blocks" in path:
                    same = [np.array_equal(value[layer], new[path][layer]) for layer in range(DEPTH)]
                    assert same == [layer < frozen for layer in range(DEPTH)], (frozen, path)
                else:
                    rests = "patch_embedding" in path or "control" in path
                    assert np.array_equal(value, new[path]) == rests, (frozen, path)
    assert second.steps["real"]._cache_size() == 1


def test_skipping_the_backward_pass_of_frozen_blocks_or_masking_it_gives_the_same_update(second: Run):
    masking = make_run("stage2", **SECOND, model__skip_frozen_backward=False)
    real = second.stage.iterations[1]
    state = random_state(second)
    for frozen, step in {frozen_at(second, step): step for step in range(1, 40)}.items():
        at_step = dataclasses.replace(state, step=np.int32(step))
        skipped, metrics = take_step(second, at_step, real)
        masked, other_metrics = take_step(masking, at_step, real)
        assert metrics["loss"] == pytest.approx(float(other_metrics["loss"]), rel=1e-6)
        assert metrics["gradient_norm"] == pytest.approx(float(other_metrics["gradient_norm"]), rel=1e-5)
        moments = [np.sum(np.square(moment / 0.1)) for moment in leaves(adam_state(skipped.opt_state).mu).values()]
        assert metrics["gradient_norm"] == pytest.approx(np.sqrt(sum(moments)), rel=1e-5), "of what trains alone"
        for path, moment in leaves(adam_state(skipped.opt_state).mu).items():
            other = leaves(adam_state(masked.opt_state).mu)[path]
            error = np.max(np.abs(moment - other)) / max(np.max(np.abs(other)), 1e-12)
            assert error < 2e-5, (frozen, path, error)
    assert masking.steps["real"]._cache_size() == 1


def test_without_layer_aware_training_a_real_iteration_trains_every_block_and_what_feeds_them():
    kind = interface.load("realiz3d", {"layer_aware": False, "tau": 1.0}).stages()["stage2"].iterations[1]
    assert not kind.freeze_input
    drawn = [kind.plan(jax.random.key(seed), DEPTH) for seed in range(60)]
    assert {int(plan.frozen) for plan in drawn} == {0}
    assert any((plan.domain == Domain.SYNTHETIC).any() for plan in drawn), "reassignment stays"


# Steps that are not finite


def test_a_step_that_is_not_finite_changes_nothing_but_the_step_and_the_counts(second: Run):
    synthetic, _ = second.stage.iterations
    state, _ = take_step(second, random_state(second), synthetic)
    batch = random_batch(second, synthetic)
    batch["control"][0, 0, 0, 0, 0] = np.nan
    skipped, metrics = take_step(second, state, synthetic, batch)
    assert not metrics["finite"]
    for part in ("params", "opt_state", "ema"):
        assert_same(getattr(skipped, part), getattr(state, part))
    assert [int(count) for count in (skipped.step, skipped.skipped, skipped.skipped_in_a_row)] == [2, 1, 1]
    again, _ = take_step(second, skipped, synthetic, batch)
    assert [int(count) for count in (again.step, again.skipped, again.skipped_in_a_row)] == [3, 2, 2]
    healed, metrics = take_step(second, again, synthetic)
    assert metrics["finite"]
    assert [int(count) for count in (healed.step, healed.skipped, healed.skipped_in_a_row)] == [4, 2, 0]
    assert all(np.isfinite(leaf).all() for leaf in leaves(healed).values())


def test_a_finite_loss_whose_gradient_is_not_finite_is_skipped_too(second: Run):
    synthetic, _ = second.stage.iterations
    state = random_state(second)
    last = state.params["backbone"]["final"]["linear"]
    last["kernel"] = last["kernel"] * np.float32(1e17)
    after, metrics = take_step(second, state, synthetic)
    assert np.isfinite(metrics["loss"])
    assert not np.isfinite(metrics["gradient_norm"])
    assert int(after.skipped) == 1
    assert_same(after.params, state.params)


# What is learnt


def loud_batch(run: Run, kind: interface.Iteration) -> dict[str, np.ndarray]:
    """A batch whose captions weigh so much in the loss that one that is dropped, or not, is seen there."""
    batch = random_batch(run, kind)
    return {**batch, "captions": {**batch["captions"], "states": 10 * batch["captions"]["states"]}}


def loss_by_hand(run: Run, kind: interface.Iteration, state: TrainState, batch, **changes):
    config, step = run.config, int(state.step)
    latents = batch["image"] / 127.5 - 1.0
    if isinstance(config.codec, DrawnCodec):
        latents = np.asarray(jax.random.normal(by_hand.stream(SEED, "latents", step), batch["image"].shape))
    settings = {"caption_dropout": config.data.caption_dropout, "cap": config.timestep_weight_cap, **changes}
    return by_hand.training_loss(
        predict,
        {name: state.params[name] for name in ("backbone", "shifters", "control") if name != "control" or kind.control},
        batch,
        latents,
        {name: array[0] for name, array in run.encoder.encode([""]).items()},
        np.asarray(kind.draw_plan(by_hand.stream(SEED, "plan", step), DEPTH).domain)
        if kind.draw_plan
        else np.full(DEPTH, kind.domain),
        batch["control"] if kind.control else None,
        seed=SEED,
        step=step,
        joint=kind.joint,
        **settings,
    )


@pytest.mark.parametrize(("name", "number"), [("first", 0), ("first", 1), ("second", 0), ("second", 1), ("plain", 0)])
def test_the_loss_is_that_of_the_draws_of_the_named_streams_in_every_step(request, name: str, number: int):
    """Noise, timesteps (each single image has its own), dropped captions, domains, weights, drawn latents: done by hand."""
    run = request.getfixturevalue(name)
    kind = run.stage.iterations[number]
    state, batch, seen = random_state(run), loud_batch(run, kind), []
    for step in (0, 1, 2, 3, 700):
        at_step = dataclasses.replace(state, step=np.int32(step))
        _, metrics = take_step(run, at_step, kind, batch)
        loss, losses, timestep = loss_by_hand(run, kind, at_step, batch)
        assert metrics["loss"] == pytest.approx(loss, rel=2e-5)
        quarter = np.digitize(timestep, [250, 500, 750])
        for bucket in range(4):
            assert metrics["bucket_count"][bucket] == (quarter == bucket).sum()
            assert metrics["bucket_loss"][bucket] == pytest.approx(losses[quarter == bucket].sum(), rel=2e-5)
        seen += timestep.ravel().tolist()
    assert len(set(seen)) == len(seen), "no timestep comes twice"


def test_caps_and_dropped_captions_would_be_seen_in_the_loss(first: Run):
    """The test above tells them apart by hundreds of times its tolerance."""
    kind = first.stage.iterations[1]
    state, batch = random_state(first), loud_batch(first, kind)
    given = loss_by_hand(first, kind, state, batch)[0]
    for change in ({"cap": 1.0}, {"cap": 100.0}, {"caption_dropout": 0.0}, {"caption_dropout": 1.0}):
        assert abs(loss_by_hand(first, kind, state, batch, **change)[0] / given - 1) > 5e-3, change


@pytest.mark.parametrize(
    ("name", "decays"), [("first", [0.1, 0.5, 0.5, 0.5]), ("second", [0.1, 10 / 19, 101 / 110, 0.999])]
)
def test_the_average_follows_the_parameters_with_its_decay_and_faster_early_on(request, name: str, decays: list[float]):
    run = request.getfixturevalue(name)
    state = random_state(run)
    assert_same(state.sampling_params(), state.params)
    average = random_params(run.config, seed=1)
    state = dataclasses.replace(state, ema={name: average[name] for name in state.ema})
    for step, decay in zip((0, 9, 100, 100_000), decays, strict=True):
        after, _ = take_step(run, dataclasses.replace(state, step=np.int32(step)), run.stage.iterations[0])
        new, old = leaves({name: after.params[name] for name in after.ema}), leaves(state.ema)
        for path, found in leaves(after.ema).items():
            np.testing.assert_allclose(found, decay * old[path] + (1 - decay) * new[path], rtol=1e-5, atol=1e-6)
        assert_same(after.sampling_params(), {**after.params, **after.ema})


def test_a_cosine_has_come_to_rest_after_the_last_step_of_the_run(plain: Run):
    kind = plain.stage.iterations[0]
    states = [random_state(plain)]
    for _ in range(3):
        states.append(take_step(plain, states[-1], kind)[0])
    moved = [
        max(np.abs(new - leaves(before.params)[path]).max() for path, new in leaves(after.params).items())
        for before, after in itertools.pairwise(states)
    ]
    peak = plain.config.optimizer.learning_rate
    assert moved[0] == pytest.approx(peak, rel=1e-2)
    assert 0.0 < moved[1] < peak
    assert moved[2] == 0.0


# What a step reports


def test_flops_are_those_of_the_backbone_times_the_passes_that_a_stage_needs(first: Run, second: Run):
    synthetic, real = second.stage.iterations
    config = second.config
    joint = dit.flops(config.model, 4, 1, config.data.text_tokens)
    single = dit.flops(config.model, 4, 4, config.data.text_tokens)
    assert joint > single, "attention over all views costs more"
    assert monitoring.iteration_flops(config, second.stage, synthetic, 4) == pytest.approx(3 * GRIDS * joint)
    assert monitoring.iteration_flops(config, second.stage, real, 4) == pytest.approx(3 * GRIDS * single)
    one = monitoring.iteration_flops(first.config, first.stage, first.stage.iterations[0], 4)
    assert one == pytest.approx(2 * GRIDS * single)


def test_the_plan_of_a_real_iteration_is_drawn_from_the_step_number_alone():
    for tau, probability in ((0.4, 0.1), (0.7, 0.9)):
        options = {"tau": tau, "reassignment_probability": probability}
        kind = interface.load("realiz3d", options).stages()["stage2"].iterations[1]
        for step in range(5):
            one, other = (kind.plan(stream_key(3, "plan", step), 10) for _ in range(2))
            assert_same(one._asdict(), other._asdict())
            expected = plans.draw_real_plan(stream_key(3, "plan", step), 10, tau, probability)
            assert_same(one._asdict(), expected._asdict())

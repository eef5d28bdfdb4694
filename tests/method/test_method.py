"""Plans, stages and shifters: the paper's rules, each restated and checked by itself."""

import collections
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realiz3d_jax.config import build
from realiz3d_jax.errors import UserError
from realiz3d_jax.method import interface, plans, shifters
from realiz3d_jax.method.domains import Domain

DEPTH = 10


def drawn_plans(count: int = 4000, **options) -> list[plans.BlockPlan]:
    draw = jax.jit(
        jax.vmap(lambda key: plans.draw_real_plan(key, DEPTH, options.get("tau", 0.4), options.get("p", 0.1)))
    )
    drawn = draw(jax.random.split(jax.random.key(0), count))
    return [plans.BlockPlan(*(np.array(value[index]) for value in drawn)) for index in range(count)]


def test_layer_aware_training_freezes_0_to_tau_blocks_uniformly():
    counts = collections.Counter(int(plan.frozen) for plan in drawn_plans())
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert all(abs(count / 4000 - 0.2) < 0.03 for count in counts.values())  # five sigma


def test_reassignment_runs_the_first_blocks_in_synthetic_mode_with_its_probability():
    lengths = []
    for plan in drawn_plans(p=0.5):
        synthetic = plan.domain == Domain.SYNTHETIC
        lengths.append(int(synthetic.sum()))
        assert synthetic[: lengths[-1]].all(), "the reassigned blocks are the first ones"
    counts = collections.Counter(lengths)
    assert sorted(counts) == [0, 1, 2, 3, 4]
    # 1..4 only if reassigned (1/2) and drawn (1/5 each); 0 otherwise.
    assert all(abs(counts[length] / 4000 - 0.1) < 0.025 for length in (1, 2, 3, 4))


def test_reassignment_is_drawn_independently_of_the_frozen_range():
    drawn = drawn_plans(p=1.0)
    frozen = np.array([int(plan.frozen) for plan in drawn])
    reassigned = np.array([int((plan.domain == Domain.SYNTHETIC).sum()) for plan in drawn])
    assert abs(np.corrcoef(frozen, reassigned)[0, 1]) < 0.08  # five sigma of 4000 draws


def test_reassignment_happens_in_one_tenth_of_the_iterations_by_default():
    share = np.mean([(plan.domain == Domain.SYNTHETIC).any() for plan in drawn_plans()])
    assert share == pytest.approx(0.1 * 4 / 5, abs=0.02)


@pytest.mark.parametrize("name", interface.names())
def test_a_method_knows_domains_if_what_it_plans_is_another_for_each(name: str):
    method = interface.load(name, {})
    planned = [method.inference_plan(np.array([900, 100]), DEPTH, domain, 0.3, 950).tolist() for domain in Domain]
    assert method.knows_domains == (planned[0] != planned[1])


@pytest.mark.parametrize(
    ("fraction", "depth", "expected"),
    [(0.4, 28, 11), (0.3, 28, 8), (0.3, 10, 3), (0.4, 10, 4), (0.0, 8, 0), (1.0, 8, 8)],
)
def test_fractions_of_the_blocks_are_rounded_down(fraction: float, depth: int, expected: int):
    assert plans.count(fraction, depth) == expected


def test_inference_shifts_the_first_blocks_always_and_all_blocks_early():
    timesteps = np.array([999, 950, 949, 500, 0])
    plan = plans.inference_plan(timesteps, DEPTH, Domain.REAL, block_max=0.3, timestep_max=950)
    assert plan.dtype == np.int32
    assert (plan[:2] == Domain.SYNTHETIC).all()
    assert (plan[2:, :3] == Domain.SYNTHETIC).all()
    assert (plan[2:, 3:] == Domain.REAL).all()


def test_inference_without_shifting_or_in_synthetic_mode_is_one_domain_throughout():
    timesteps = np.arange(999, -1, -20)
    assert (plans.inference_plan(timesteps, DEPTH, Domain.REAL) == Domain.REAL).all()
    assert (plans.inference_plan(timesteps, DEPTH, Domain.SYNTHETIC, 0.3, 950) == Domain.SYNTHETIC).all()


def test_a_shift_is_left_times_right_times_the_domains_embedding():
    params = shifters.init(3, 8, 2, jax.random.key(0))
    params["left"] = jax.random.normal(jax.random.key(1), (3, 8, 2))
    shifts = shifters.apply(params)
    for domain in Domain:
        for layer in range(3):
            expected = params["left"][layer] @ params["right"][layer] @ params["embedding"][layer, domain]
            np.testing.assert_allclose(shifts[domain, layer], expected, rtol=1e-5, atol=1e-6)
    chosen = shifters.select(shifts, jnp.array([1, 0, 1]))
    np.testing.assert_array_equal(chosen[:, 0], np.stack([shifts[1, 0], shifts[0, 1], shifts[1, 2]]))


def test_fresh_shifters_add_exactly_nothing_and_tell_the_domains_apart_as_soon_as_they_learn():
    fresh = shifters.init(4, 256, 8, jax.random.key(3))
    assert not np.any(shifters.apply(fresh))
    assert not np.any(fresh["left"])
    assert float(jnp.std(fresh["right"])) == pytest.approx(256**-0.5, rel=0.05)
    assert float(jnp.std(fresh["embedding"])) == pytest.approx(1.0, rel=0.1)
    drawn = [np.asarray(fresh[name]).reshape(-1, 256) for name in ("embedding", "right")]
    correlations = np.corrcoef(np.concatenate(drawn))
    assert np.abs(correlations - np.eye(len(correlations))).max() < 5 / 16, "each is drawn by itself: five sigma"


def test_real_and_synthetic_iterations_alternate_by_an_exact_rule():
    stage = interface.load("realiz3d", {"real_fraction": 0.3, "real_warmup_steps": 5}).stages()["stage2"]
    names = [stage.iteration(step).name for step in range(105)]
    assert names[:5] == ["real"] * 5
    counts = np.cumsum([name == "real" for name in names[5:]])
    np.testing.assert_array_equal(counts, 3 * np.arange(1, 101) // 10)


def test_the_stages_of_realiz3d_are_the_papers():
    stages = interface.load("realiz3d", {}).stages()
    first, second = stages["stage1"], stages["stage2"]
    assert first.trainable == ("shifters",)
    assert not any(kind.joint or kind.control for kind in first.iterations)
    assert {kind.domain for kind in first.iterations} == set(Domain)
    assert set(second.trainable) == {"backbone", "control"}
    synthetic, real = second.iterations
    assert synthetic.joint
    assert synthetic.control
    assert synthetic.domain is Domain.SYNTHETIC
    assert synthetic.draw_plan is None
    assert not real.joint
    assert not real.control
    assert real.domain is Domain.REAL
    assert real.freeze_input


def test_every_stage_reads_its_own_streams_in_their_domains():
    read = {
        (name, stage, kind.name): (kind.stream, kind.domain, kind.joint, kind.control, kind.freeze_input)
        for name in ("realiz3d", "syn_only", "pretraining")
        for stage, made in interface.load(name, {}).stages().items()
        for kind in made.iterations
    }
    assert read == {
        ("realiz3d", "stage1", "synthetic"): ("synthetic_images", Domain.SYNTHETIC, False, False, False),
        ("realiz3d", "stage1", "real"): ("real_images", Domain.REAL, False, False, False),
        ("realiz3d", "stage2", "synthetic"): ("synthetic_grids", Domain.SYNTHETIC, True, True, False),
        ("realiz3d", "stage2", "real"): ("real_images", Domain.REAL, False, False, True),
        ("syn_only", "finetune", "synthetic"): ("synthetic_grids", Domain.SYNTHETIC, True, True, False),
        ("pretraining", "pretrain", "photo"): ("photos", Domain.REAL, False, False, False),
    }
    first = interface.load("realiz3d", {"real_fraction": 0.3}).stages()["stage1"]
    assert [first.iteration(step).name for step in range(100)].count("real") == 30


def test_a_method_or_an_option_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"config.method.name: found 'realised', expected one of .*realiz3d"):
        interface.load("realised", {})
    with pytest.raises(UserError, match=r"config.method.ranks: .* has no such option; it has .*rank"):
        interface.load("realiz3d", {"ranks": 8})
    with pytest.raises(UserError, match=r"config.method.freeze_shared: found True without layer_aware"):
        interface.load("realiz3d", {"freeze_shared": True, "layer_aware": False})


def test_a_stage_in_which_nothing_trains_is_refused():
    stage = interface.Stage(("backbone",), trainable=(), iterations=())
    model = types.SimpleNamespace(method=types.SimpleNamespace(stages=lambda: {"idle": stage}))
    with pytest.raises(UserError, match=r"config.stage: no partition trains in the stage 'idle'"):
        build.find_stage(model, "idle")

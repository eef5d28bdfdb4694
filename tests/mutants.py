"""Silent faults, each of which some test must notice: python tests/mutants.py [WORDS]

One fault after the other is put into a copy of the tree and the tests that are named beside it are run: at least one has to
fail of it, and none without it. Exits 1 if a fault survives, or if the text that it changes is not there exactly once any
more. WORDS choose the faults whose entry holds them.

An entry: what goes wrong, the file below ``realiz3d_jax``, the text as it is, as it is with the fault, and pytest's arguments.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("realiz3d_jax", "tests", "configs", "benchmarks", "pyproject.toml")

TABLE = r"""
fresh noise is drawn from the initial noise's key
method/generate.py
lambda key: jax.random.fold_in(key, 1)
lambda key: key
test_generate.py

all views start from the same noise
method/generate.py
(views, side, side, model.config.in_channels))
(1, side, side, model.config.in_channels)).repeat(views, 0)
test_generate.py

the guidance scale of the settings is ignored
method/generate.py
jnp.float32(self.sampling.guidance_scale)
jnp.float32(1.0)
test_generate.py

eta of the settings is ignored
method/generate.py
samplers.DDIM(self.eta)
samplers.DDIM()
test_generate.py

the spacing of the settings is ignored
method/generate.py
self.sampling.steps, self.sampling.spacing)
self.sampling.steps, "leading")
test_generate.py

B_max of the settings is ignored
method/generate.py
domain, self.sampling.block_max, self.sampling
domain, 0.0, self.sampling
test_generate.py

the warm-up is one step too long
method/interface.py
warmup = min(step, self.second_warmup)
warmup = min(step, self.second_warmup + 1)
test_method.py

the branches of the guidance are swapped in the model
method/model.py
guidance.both(jax.numpy.broadcast_to(empty, full.shape), full)
guidance.both(full, jax.numpy.broadcast_to(empty, full.shape))
test_generate.py

the unconditional branch does not see the control
method/model.py
guidance.both(control, control)
guidance.both(0 * control, control)
test_generate.py

all steps of sampling run with the first step's plan
method/model.py
domain=plan[index]
domain=plan[0]
test_generate.py

samples of pixels are not bounded
method/model.py
bound=self.codec.bound
bound=None
test_generate.py

the sigma that a model predicts is taken for its noise
method/model.py
output[..., : latents.shape[-1]]
output[..., -latents.shape[-1] :]
test_step.py -k a_prediction_is

the first block runs in the last one's domain
method/model.py
shifters.select(shifts, domain)
shifters.select(shifts, domain[::-1])
test_step.py -k a_prediction_is

the timestep t_max itself is not shifted
method/plans.py
np.asarray(timesteps) >= timestep_max
np.asarray(timesteps) > timestep_max
test_method.py

one block too many is always in synthetic mode
method/plans.py
np.arange(depth) < count(block_max, depth)
np.arange(depth) <= count(block_max, depth)
test_method.py

the largest frozen range is never drawn
method/plans.py
randint(freeze_key, (), 0, most + 1)
randint(freeze_key, (), 0, most)
test_method.py

the reassigned blocks are the frozen ones
method/plans.py
jax.random.randint(range_key, (), 0, most + 1), 0
frozen, 0
test_method.py

the last blocks are reassigned
method/plans.py
jnp.arange(depth) < reassigned
jnp.arange(depth)[::-1] < reassigned
test_method.py

an iteration without a plan of its own runs in the other domain
method/plans.py
jnp.full((depth,), domain, jnp.int32)
jnp.full((depth,), 1 - domain, jnp.int32)
test_step.py -k named_streams

real images of Stage 1 train the synthetic shifter
method/realiz3d.py
Iteration("real", "real_images", Domain.REAL)
Iteration("real", "real_images", Domain.SYNTHETIC)
test_method.py

Stage 1 reads synthetic images as real ones
method/realiz3d.py
Iteration("real", "real_images", Domain.REAL)
Iteration("real", "synthetic_images", Domain.REAL)
test_method.py

Stage 2 has no warm-up on real images
method/realiz3d.py
second_warmup=self.real_warmup_steps
second_warmup=0
test_method.py

a reassignment probability that is set is ignored
method/realiz3d.py
self.tau, self.reassignment_probability)
self.tau, 0.1)
test_step.py -k plan_of_a_real

a shift is that of the other domain
method/shifters.py
shifts[domain, jnp.arange(
shifts[1 - domain, jnp.arange(
test_method.py

two domains have one embedding
method/shifters.py
jax.random.normal(embedding_key, (depth, len(Domain), width))
jax.random.normal(embedding_key, (depth, 1, width)).repeat(len(Domain), 1)
test_method.py

the cap of the timestep weights is ignored by the process
diffusion/ddpm.py
/ alphas_cumprod, 1.0, cap)
/ alphas_cumprod, 1.0, None)
test_ddpm.py

a low-noise timestep weighs less than 1
diffusion/ddpm.py
/ alphas_cumprod, 1.0, cap)
/ alphas_cumprod, 0.0, cap)
test_ddpm.py

the timestep weights are those of the inverse ratio
diffusion/ddpm.py
jnp.clip((1.0 - alphas_cumprod) / alphas_cumprod
jnp.clip(alphas_cumprod / (1.0 - alphas_cumprod)
test_ddpm.py

the noisiest timestep is never drawn
diffusion/ddpm.py
randint(key, shape, 0, self.num_timesteps)
randint(key, shape, 0, self.num_timesteps - 1)
test_ddpm.py

the branches of the guidance are swapped in the denoiser
diffusion/guidance.py
unconditional, conditional = jnp.split
conditional, unconditional = jnp.split
test_guidance.py test_generate.py

the guidance scale counts from the caption
diffusion/guidance.py
return unconditional + scale * (conditional - unconditional)
return conditional + scale * (conditional - unconditional)
test_guidance.py test_generate.py

views and groups are mixed up in the loss
diffusion/loss.py
"b (g v) h w c -> b g"
"b (v g) h w c -> b g"
test_loss.py

the noise levels of a rectified flow are not shifted in training
diffusion/rectified_flow.py
return self._shifted(jax.nn.sigmoid(jax.random.normal(key, shape)))
return (jax.nn.sigmoid(jax.random.normal(key, shape)))
test_backbones.py -k training_draws

the bound of pixels is three times looser
diffusion/samplers.py
jnp.clip(x0, -bound, bound)
jnp.clip(x0, -3 * bound, 3 * bound)
test_samplers.py

the noise is not computed again after clipping
diffusion/samplers.py
epsilon = (x - signal * x0) / sigma
epsilon = epsilon + 0 * sigma
test_samplers.py

fresh noise is the same in every step
diffusion/samplers.py
jax.random.fold_in(key, index), like.shape
key, like.shape
test_samplers.py

the last step of DPM-Solver++ is of second order
diffusion/samplers.py
inner = slice(1, -1)
inner = slice(1, None)
test_samplers.py

DDIM's fresh noise is too small
diffusion/samplers.py
np.sqrt(1.0 - ratio**2)
(1.0 - ratio**2)
test_samplers.py

the momentum of DPM-Solver++ is that of data that are not clipped
diffusion/samplers.py
return (x, x0), None
return (x, process.split(carry[0], prediction, signal, sigma)[0]), None
test_samplers.py

each step is of the kind that comes next
training/loop.py
run.stage.iteration(step)
run.stage.iteration(step + 1)
test_train_command.py -k put_into_tensorboard

previews are of the last step's parameters
training/loop.py
previews(state.sampling_params())
previews(state.params)
test_train_command.py -k put_into_tensorboard

one more step in a row may be not finite
training/loop.py
>= config.abort_after
> config.abort_after
test_train_command.py -k too_many_steps

a grid counts as one image
training/monitoring.py
self._config.data.batch_grids * self._views / seconds
self._config.data.batch_grids / seconds
test_train_command.py -k leaves_its_config

gradient norms are averaged over all kinds
training/monitoring.py
metrics["gradient_norm"] for metrics in finite]
metrics["gradient_norm"] for _, _, metrics, _ in steps]
test_train_command.py -k averages_are

losses by timestep are sums
training/monitoring.py
float(total[bucket] / count[bucket])
float(total[bucket])
test_train_command.py -k averages_are

the row of skipped steps that is told is the shortest
training/monitoring.py
max(int(metrics["skipped_in_a_row"])
min(int(metrics["skipped_in_a_row"])
test_train_command.py -k averages_are

clip_norm is taken for 1
training/optimizer.py
optax.clip_by_global_norm(config.clip_norm)
optax.clip_by_global_norm(1.0)
test_optimizer.py

gradients are clipped leaf by leaf
training/optimizer.py
optax.clip_by_global_norm(config.clip_norm)
optax.clip(config.clip_norm)
test_optimizer.py

b2 of the settings is ignored
training/optimizer.py
_scale_by_adam_where_active(config.b1, config.b2,
_scale_by_adam_where_active(config.b1, 0.999,
test_optimizer.py

epsilon of the settings is ignored
training/optimizer.py
config.b2, config.epsilon, parts)
config.b2, 1e-8, parts)
test_optimizer.py

weight decay is not scaled by the learning rate
training/optimizer.py
optax.scale_by_learning_rate(learning_rate),
optax.scale_by_learning_rate(1.0),
test_optimizer.py

the learning rate is one step ahead
training/optimizer.py
optax.scale_by_learning_rate(learning_rate),
optax.scale_by_learning_rate(lambda step: learning_rate(step + 1)),
test_optimizer.py

the cosine ends too late
training/optimizer.py
cosine_decay_schedule(peak, max(steps - warmup, 1))
cosine_decay_schedule(peak, max(steps, 1))
test_optimizer.py

the last block is frozen as the first
training/optimizer.py
jnp.arange(leaf.shape[0]) >= frozen
jnp.arange(leaf.shape[0])[::-1] >= frozen
test_optimizer.py

the control is scaled down instead of up
training/optimizer.py
return update * factor if
return update / factor if
test_optimizer.py

a control that is not given decays
training/optimizer.py
iteration.control and not iteration.freeze_input
not iteration.freeze_input
test_optimizer.py

previews are drawn without control
training/previews.py
self._generator(params, captions, range(len(items)), domain, control)
self._generator(params, captions, range(len(items)), domain, None)
test_train_command.py -k held_out_captions

the images of a caption are stored with the views of others
training/self_generation.py
"image": images[row, view]}
"image": images[row, -view]}
test_self_generation.py -k view_words

real images are made in the synthetic domain
training/self_generation.py
prompts, seeds, Domain.REAL)
prompts, seeds, Domain.SYNTHETIC)
test_self_generation.py -k view_words

the schedule does not know the run's length
training/setup.py
make_optimizer(config.optimizer, config.steps,
make_optimizer(config.optimizer, 2 * config.steps,
test_step.py -k cosine

the caption dropout of the settings is ignored
training/setup.py
caption_dropout=config.data.caption_dropout
caption_dropout=0.1
test_step.py -k named_streams

all streams are one
training/state.py
zlib.crc32(name.encode())
0
test_step.py -k named_streams

sampling uses the parameters of the last step
training/state.py
return {**self.params, **self.ema}
return {**self.ema, **self.params}
test_step.py -k average

the average starts at zero
training/state.py
jax.tree.map(jnp.copy, trainable)
jax.tree.map(jnp.zeros_like, trainable)
test_step.py -k average

the cap of the timestep weights is ignored by the step
training/step.py
weight(inputs["timestep"], config.timestep_weight_cap)
weight(inputs["timestep"], 1.0)
test_step.py -k named_streams

training noise is the same in every step
training/step.py
stream_key(config.seed, "noise", step)
stream_key(config.seed, "noise", 0)
test_step.py -k named_streams

training noise does not depend on the run's seed
training/step.py
stream_key(config.seed, "noise", step)
stream_key(0, "noise", step)
test_step.py -k named_streams

noise and timesteps are drawn from one stream
training/step.py
stream_key(config.seed, "timestep", step)
stream_key(config.seed, "noise", step)
test_step.py -k named_streams

the four single images of a grid have one timestep
training/step.py
"timestep", step), shape)
"timestep", step), shape)[:, :1] + jnp.zeros(shape, jnp.int32)
test_step.py -k named_streams

the captions of a grid are dropped together
training/step.py
config.caption_dropout, shape)
config.caption_dropout, shape)[:, :1] & jnp.ones(shape, bool)
test_step.py -k named_streams

the model learns to predict the data
training/step.py
process.target(latents, noise)
process.target(noise, latents)
test_step.py -k named_streams

training runs in the other domain
training/step.py
domain=plan.domain,
domain=1 - plan.domain,
test_step.py -k named_streams

each loss has the mean weight of its batch
training/step.py
jnp.mean(weight * losses)
jnp.mean(weight) * jnp.mean(losses)
test_step.py -k named_streams

latents are drawn alike in every step
training/step.py
stream_key(config.seed, "latents", step)
stream_key(config.seed, "latents", 0)
test_step.py -k named_streams

ema_decay is ignored
training/step.py
jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
(1.0 + state.step) / (10.0 + state.step)
test_step.py -k average

the moving average is not shorter early on
training/step.py
jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
config.ema_decay
test_step.py -k average

a gradient that is not finite is not noticed if the loss is
training/step.py
jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
jnp.isfinite(loss)
test_step.py -k gradient_is_not_finite

the optimizer's state follows a step that is skipped
training/step.py
opt_state=kept[1]
opt_state=opt_state
test_step.py -k step_that_is_not_finite

the average of skipped steps goes on
training/step.py
ema=kept[2]
ema=ema
test_step.py -k step_that_is_not_finite

the row of skipped steps never ends
training/step.py
(state.skipped_in_a_row + skipped) * skipped
(state.skipped_in_a_row + skipped)
test_step.py -k step_that_is_not_finite

the norm of the gradient counts what is frozen
training/step.py
frozen_blocks=plan.frozen if iteration.draw_plan else None
frozen_blocks=None
test_step.py -k masking

the loss that is told is not the one that is minimised
training/step.py
"loss": loss,
"loss": jnp.mean(losses),
test_step.py -k named_streams

noisy timesteps are told as clean ones
training/step.py
jnp.minimum(timestep * TIMESTEP_BUCKETS // num_timesteps
jnp.minimum((num_timesteps - 1 - timestep) * TIMESTEP_BUCKETS // num_timesteps
test_step.py -k named_streams

a view takes part in judging itself
metrics/consistency.py
blend(where, views, others_only=True)
blend(where, views, others_only=False)
test_metrics_consistency.py

the overlap is told as a part of the image
metrics/consistency.py
overlap.sum() / max(where.mask.sum(), 1)
overlap.mean()
test_metrics_consistency.py

the overlap's similarity is that of whole images
metrics/consistency.py
            np.pad(overlap, sides),
            None,
test_metrics_consistency.py

the Fréchet distance lacks a factor of two
metrics/distribution.py
- 2.0 * cross)
- cross)
test_metrics_distribution.py

the covariance is that of images, not of features
metrics/distribution.py
return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
return (vectors * np.maximum(values, 0.0)) @ vectors.T
test_metrics_distribution.py

the kernel distance is biased
metrics/distribution.py
(values.sum() - np.trace(values)) / (count * (count - 1))
values.mean()
test_metrics_distribution.py

the kernel is not scaled by the number of features
metrics/distribution.py
(x @ y.T / channels + 1.0)
(x @ y.T + 1.0)
test_metrics_distribution.py

both sets lose the same subsets
metrics/distribution.py
b[random.choice(len(b), size, replace=False)])
b[:size])
test_metrics_distribution.py

the score of looks is that of being synthetic
metrics/domain_score.py
return jax.nn.sigmoid(logits), features
return jax.nn.sigmoid(-logits), features
test_metrics_domain_score.py

words are learned from images of other colours
metrics/domain_score.py
words.mean(where=~recoloured)
words.mean(where=recoloured)
test_metrics_domain_score.py

the classifier sees one augmentation for ever
metrics/domain_score.py
noise = jax.random.fold_in(key, step)
noise = jax.random.fold_in(key, 0)
test_metrics_domain_score.py

windows of similarity have another width
metrics/image.py
-(offsets**2) / (2 * 1.5**2)
-(offsets**2) / (2 * 1.5)
test_metrics_image.py

masked similarity looks at the wrong windows
metrics/image.py
mask[..., border:-border, border:-border]
mask[..., : -2 * border, : -2 * border]
test_metrics_image.py

holes of the true mask are not filled
metrics/silhouette.py
foreground(images), fill_holes(mask)
foreground(images), np.asarray(mask)
test_metrics_silhouette.py

the union is that of one side
metrics/silhouette.py
(found | true).sum(axis=(1, 2))
true.sum(axis=(1, 2))
test_metrics_silhouette.py

captions of encoded data have one token too many
data/encoded.py
np.arange(tokens) < len(states)
np.arange(tokens) <= len(states)
test_pipeline.py

epochs are not shuffled
data/pipeline.py
range(count).seed(seed).shuffle().repeat()
range(count).seed(seed).repeat()
test_pipeline.py

the four real images of a grid are those of one caption
data/pipeline.py
images = _shuffled_numbers(len(source), seed).map(
images = grain.MapDataset.range(len(source)).repeat().map(
test_pipeline.py

all streams have one order
data/pipeline.py
zlib.crc32(f"{seed} {name}".encode())
zlib.crc32(f"{seed}".encode())
test_pipeline.py

single synthetic images are all front views
data/pipeline.py
record["synthetic"][int(number) % views]
record["synthetic"][0]
test_pipeline.py

the control is that of other views than the images
data/pipeline.py
control_maps(*(record[name][views] for name
control_maps(*(record[name] for name
test_pipeline.py

the images are other views than those that are chosen
data/pipeline.py
"image": record["synthetic"][views], "control"
"image": record["synthetic"], "control"
test_pipeline.py

control maps are signed
data/pipeline.py
.astype(np.float32) / 65535.0
.astype(np.float32) / 32767.5 - 1.0
test_pipeline.py

the mask of the control is ignored
data/pipeline.py
return maps * mask[..., None].astype(np.float32)
return maps
test_pipeline.py

positions come before normals
data/pipeline.py
np.concatenate([normal, position], axis=-1)
np.concatenate([position, normal], axis=-1)
test_pipeline.py

hosts take blocks of the order
data/pipeline.py
dataset.slice(slice(host, None, hosts))
dataset.slice(slice(host * 8, None, hosts))
test_pipeline.py

real images are prompted with their view
data/pipeline.py
{**source[int(number)], "record": number})
{**source[int(number)], "caption": prompt(source[int(number)]["caption"], 0), "record": number})
test_pipeline.py

renders are prompted as photos
data/pipeline.py
prompt(record["caption"], named_view, render)
prompt(record["caption"], named_view)
test_pipeline.py

stored positions are mirrored
data/records.py
positions + 0.5, 0.5))
0.5 - positions, 0.5))
test_records.py test_pipeline.py

pixels are cut off instead of rounded
models/codec.py
np.float32(127.5)).round().clip
np.float32(127.5)).clip
test_control.py

left and right viewpoints are swapped in the control
models/control.py
AZIMUTHS = (0, 90, 180, 270)
AZIMUTHS = (0, 270, 180, 90)
test_control.py

channels and pixels of the control are mixed up
models/control.py
"b v (r p) (c q) e -> b v (r c) (e p q)"
"b v (r p) (c q) e -> b v (r c) (p q e)"
test_control.py

the preference for frontal views is ignored
geometry/baking.py
weight = cosine**options.cosine_power * feather
weight = cosine * feather
test_baking.py -k power_of

weights do not rise beyond edges
geometry/baking.py
weight = cosine**options.cosine_power * feather
weight = cosine**options.cosine_power * np.ones_like(feather)
test_baking.py -k rises_from

one pixel beside edges less is left out
geometry/baking.py
(margin > options.edge_erosion)
(margin >= options.edge_erosion)
test_baking.py -k never_bleeds

gains make the views differ twice as much
geometry/baking.py
return np.exp(logarithms)
return np.exp(-logarithms)
test_baking.py -k gains_that

shadow rays of a bake go the wrong way
geometry/baking.py
places.position[texel], side, axes[2])
places.position[texel], side, -axes[2])
test_baking.py -k hidden_in_all

the overlap counts what one view sees
geometry/baking.py
area[count > 1]
area[count > 0]
test_baking.py -k coverage_of

cameras go round clockwise
geometry/cameras.py
level, top = np.array([np.sin(angle), -np.cos(angle), 0.0])
level, top = np.array([-np.sin(angle), -np.cos(angle), 0.0])
test_cameras.py

rows count upwards
geometry/cameras.py
row = (0.5 - offset @ up / width) * size
row = (0.5 + offset @ up / width) * size
test_cameras.py

rays leave pixels at their corners
geometry/cameras.py
(np.arange(lattice) + 0.5) / lattice
np.arange(lattice) / lattice
test_cameras.py

a raised camera looks up
geometry/cameras.py
np.cos(tilt) * level + np.sin(tilt) * top])
np.cos(tilt) * level - np.sin(tilt) * top])
test_cameras.py

glTF's depth is mirrored
geometry/mesh.py
[vectors[..., 0], -vectors[..., 2], vectors[..., 1]]
[vectors[..., 0], vectors[..., 2], vectors[..., 1]]
test_mesh.py

views of a blend all weigh the same
geometry/projection.py
weights = where.cosine.copy()
weights = (where.cosine > 0).astype(np.float32)
test_projection.py

what is hidden is seen
geometry/projection.py
point = point[~scene.occluded(
point = point[True | ~scene.occluded(
test_projection.py

taps of another surface count
geometry/projection.py
(target.mask[indices] & (height < camera.width / size))
target.mask[indices]
test_projection.py

the nearest tap weighs least
geometry/projection.py
np.abs(1 - step - fraction[:, axis])
np.abs(step - fraction[:, axis])
test_projection.py

a view's own pixels all weigh 1
geometry/projection.py
np.maximum(source.normal @ source.backward, 1e-3)
1.0
test_projection.py

the cosine is that to the pixel's own camera
geometry/projection.py
cosine[point] = source.normal[point] @ target.backward
cosine[point] = source.normal[point] @ source.backward
test_projection.py

normals are those of the other side
geometry/render.py
return np.where(inside, -smooth, smooth), geometric
return np.where(inside, smooth, -smooth), geometric
test_render.py

points shadow themselves
geometry/render.py
np.asarray(normals, np.float64) + directions
directions - np.asarray(normals, np.float64)
test_render.py test_projection.py

a seam is crossed from the wrong end
geometry/seams.py
np.where(turned, at_end, 1 - share - at_end)
np.where(turned, 1 - share - at_end, at_end)
test_seams.py

gaps are filled with sums
geometry/surface_fill.py
total[known] / count[known]
total[known]
test_surface_fill.py

fills begin with the lattice's colours
geometry/surface_fill.py
share * joined + (1 - share) * old[close]
(1 - share) * joined + share * old[close]
test_surface_fill.py

texels stand for their corners
geometry/texels.py
corners = np.round((uv * size - 0.5) * 4096) / 4096
corners = np.round((uv * size) * 4096) / 4096
test_texels.py

the gutter stands for the far end of the border
geometry/texels.py
weights[each, sides[edge]] = 1 - along
weights[each, sides[edge]] = along
test_texels.py

the last of overlapping faces gives the colour
geometry/texels.py
(face[index] > owner)
(face[index] < owner)
test_texels.py

textures are filtered as they are displayed
geometry/textured_views.py
_LINEAR = srgb_to_linear(np.arange(256) / 255.0).astype(np.float32)
_LINEAR = (np.arange(256) / 255.0).astype(np.float32)
test_textured_views.py

views are blended as they are displayed
geometry/view_sampling.py
_LINEAR = srgb_to_linear(np.arange(256) / 255.0).astype(np.float32)
_LINEAR = (np.arange(256) / 255.0).astype(np.float32)
test_baking.py -k all_views_share

views are sampled bilinearly
geometry/view_sampling.py
weight = cubic[:, 1, down] * cubic[:, 0, right]
weight = linear[:, 1, down] * linear[:, 0, right]
test_baking.py -k parabolas

transparent pixels of a view are used
geometry/view_sampling.py
view[..., 3] < 128
view[..., 3] < 0
test_bake_command.py
"""


def main(words: str) -> int:
    faults = [block.split("\n") for block in TABLE.strip("\n").split("\n\n") if words in block]
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for part in PARTS:
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, copy / part)
        sound = {tests: run(copy, tests) == 0 for tests in dict.fromkeys(fault[-1] for fault in faults)}
        alive = [fault for fault in faults if not noticed(copy, sound[fault[-1]], *fault)]
    print(f"{len(faults)} faults, {len(alive)} not noticed")
    return 1 if alive or not faults else 0


def noticed(copy: pathlib.Path, sound: bool, what: str, file: str, old: str, new: str, tests: str) -> bool:
    """Whether a test fails of the fault; tells of it. ``sound``: none fails without."""
    path = copy / "realiz3d_jax" / file
    text = path.read_text()
    verdict = "GONE" if text.count(old) != 1 else "" if sound else "UNSOUND"
    if not verdict:
        path.write_text(text.replace(old, new))
        status = run(copy, tests)
        path.write_text(text)
        verdict = {0: "SURVIVED", 1: "killed"}.get(status, f"STATUS {status}")
    print(f"{verdict:<9} {file}: {what}", flush=True)
    return verdict == "killed"


def run(copy: pathlib.Path, tests: str) -> int:
    """pytest's exit status: 0 if all pass, 1 if one fails, others if they cannot be run."""
    words = [f"tests/{word}" if word.endswith(".py") else word for word in tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *words]
    # No bytecode: of two faults of one length within a second Python would read the first one twice.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))

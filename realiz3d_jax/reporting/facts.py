"""HTML lists of the facts of a run: model, sampling, seeds, evaluator, software."""

import html
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from realiz3d_jax.metrics.stored import StoredMetrics
from realiz3d_jax.reporting.inputs import Samples, TrainingRun


def of_report(metrics: StoredMetrics, folders: Sequence[Samples], runs: Sequence[TrainingRun], held_out: bool) -> str:
    """Lists the facts of a report; ``held_out`` states that the objects come from the benchmark's split."""
    objects = sorted({len(folder.items) for folder in folders})
    facts = {
        "Task": ", ".join(_distinct(str(folder.common("task")).replace("_", " to ", 1) for folder in folders)),
        "Objects": f"{' or '.join(map(str, objects))} held-out objects, four views each of "
        f"{metrics.size} × {metrics.size} pixels"
        if held_out
        else f"{' or '.join(map(str, objects))} objects, four views each of {metrics.size} × {metrics.size} pixels",
        "Model": "\n".join(_distinct(_model(folder, runs) for folder in folders)),
        "Sampling": "; ".join(_distinct(map(_sampling, folders))),
        "Seeds": "; ".join(
            _distinct(
                [f"samples {_span([item.description['seed'] for item in folder.items.values()])}" for folder in folders]
                + [f"training {run.config.seed}" for run in runs]
                + [f"classifier {metrics.classifier.get('seed', 'unknown')}"]
            )
        ),
        "Evaluator": _evaluator(metrics),
        "Software": "; ".join(
            _distinct(
                ", ".join(f"{name} {version}" for name, version in (folder.common("versions") or {}).items())
                for folder in folders
            )
        ),
    }
    return _terms(facts)


def of_object(folders: Sequence[Samples], uid: str, runs: Sequence[TrainingRun]) -> str:
    """Lists how one object's samples were made."""
    alone = [folder.only(uid) for folder in folders]
    items = [folder.items[uid].description for folder in alone]
    return _terms(
        {
            "Mesh": ", ".join(_distinct(item["mesh"]["path"] for item in items if item["mesh"])),
            "Model": "\n".join(_distinct(_model(folder, runs) for folder in alone)),
            "Sampling": "; ".join(_distinct(map(_sampling, alone))),
            "Seed": ", ".join(_distinct(str(item["seed"]) for item in items)),
        }
    )


def _terms(facts: Mapping[str, str]) -> str:
    """Returns a ``<div>`` for each term with a non-empty fact."""
    return "".join(
        f"<div><dt>{html.escape(term)}</dt><dd>{html.escape(fact)}</dd></div>" for term, fact in facts.items() if fact
    )


def _model(folder: Samples, runs: Sequence[TrainingRun]) -> str:
    source, checksum = folder.common("model", "source"), folder.common("model", "sha256")
    if source is None:
        return f"several ({folder.row})"
    name = f"{source} (SHA-256 {str(checksum)[:12]}…)" if checksum else source
    run = next((run for run in runs if run.path.resolve() == pathlib.Path(source).resolve()), None)
    return f"{name}, {_size(run)}" if run else name


def _size(run: TrainingRun) -> str:
    model = run.config.model
    parts = ", ".join(f"{name} {thousands(count)}" for name, count in run.parameters.items())
    return (
        f"{thousands(sum(run.parameters.values()))} parameters ({parts}); {model.depth} blocks of width {model.width}, "
        f"{model.heads} heads, patch {model.patch_size}"
    )


def _sampling(folder: Samples) -> str:
    settings = folder.common("sampling")
    if settings is None:
        return f"various ({folder.row})"
    names = {"ddim": "DDIM", "dpm++": "DPM-Solver++ 2M"}
    return (
        f"{names.get(settings['sampler'], settings['sampler'])}, {settings['steps']} steps, guidance "
        f"{settings['guidance_scale']:g}, B_max {settings['block_max']:g}, t_max {settings['timestep_max']}"
    )


def _evaluator(metrics: StoredMetrics) -> str:
    facts = metrics.classifier
    text = facts.get("file", "a classifier")
    if "held_out_accuracy" in facts:
        text += f", right in {facts['held_out_accuracy']:.1%} of {facts['held_out_images']} images of unseen objects"
    return text


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _span(numbers: Sequence[int]) -> str:
    """Formats consecutive numbers as "0–39", any others as a list."""
    ordered = sorted(numbers)
    if ordered == list(range(ordered[0], ordered[0] + len(ordered))) and len(ordered) > 1:
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(map(str, ordered))


def thousands(count: int) -> str:
    """Formats a count with three digits: 1,750,000 becomes "1.75 M"."""
    if count >= 1_000_000:
        return f"{count / 1e6:.3g} M"
    return f"{count / 1e3:.3g} k" if count >= 1_000 else str(count)

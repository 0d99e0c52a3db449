"""What a folder holds, as sections of a page."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from h2mv_tf import config, predictions
from h2mv_tf.errors import UserError
from h2mv_tf.report import balance, figures, files, scores, training, uncertainty
from h2mv_tf.report.parts import Section
from h2mv_tf.run_folder import RunFolder

COMMIT = 12  # characters of a commit that one reads
FOLDS = "fold-*"
# Attributes of predictions that a reader may want to know.
TOLD = (
    *("title", "source", "history", "references", "Conventions", "frequency"),
    *("run", "fold", "store"),
)
TRAINED = ("loss_curves", "roles")  # figures that a training draws


class Missing(NamedTuple):
    """Something that may not be there yet, and the command that makes it."""

    what: str
    command: str
    made: bool  # whether it is there after all


class Page(NamedTuple):
    """All of a report.

    Attributes:
        title: Its title.
        facts: What made the run, by name.
        sections: What it has.
        missing: What it could have.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    missing: Sequence[Missing]


def read(folder: Path) -> Page:
    """Reads what a run folder, or a cross-validation's, holds so far.

    Raises:
        UserError: It is neither, or something in it cannot be read.
    """
    runs = [RunFolder(file.parent) for file in folder.glob(f"{FOLDS}/config.yaml")]
    runs.sort(key=lambda run: run.path.name)
    run = RunFolder(folder)
    if not runs and not run.config_file.is_file():
        raise UserError(
            f"'{folder}' is no run folder and no cross-validation: it has neither "
            "config.yaml nor fold-01/config.yaml. Train with: python trainers/train.py "
            "--run-dir DIR"
        )
    return _cross_validation(folder, runs) if runs else _run(run)


def _run(run: RunFolder) -> Page:
    settings = config.load(run.config_file)
    path, metrics = run.path, files.mapping(run.metrics_file)
    simulated = files.simulated(path, files.PREDICTIONS)
    samples = files.simulated(path, files.SAMPLES)
    residuals = [
        *balance.tested(metrics),
        *balance.noted(metrics),
        *balance.evaluated(simulated),
    ]
    sections = [
        balance.section(residuals),
        training.objective(run, metrics),
        training.cells(run),
        *_evaluation(simulated),
        uncertainty.section(files.probabilistic(samples, simulated), run.figures),
        Section(
            "Figures",
            figures=figures.embed(
                run.figures, without=(*TRAINED, *uncertainty.FIGURES)
            ),
        ),
        _configuration(run, "The resolved configuration, as config.yaml has it."),
        _provenance(simulated),
    ]
    store = settings.data.store
    resume = f"python trainers/train.py --resume --run-dir {_quoted(path)}"
    missing = [
        Missing("Results on the test cells", resume, _finished(metrics)),
        Missing("Predictions", _verb("predict", path), simulated.exists()),
        _no_evaluation("Evaluation", simulated, store),
        *_unevaluated(samples, store),
        Missing("Figures of results", _verb("plot", path), _drawn(run.figures)),
    ]
    facts = (*_facts(settings, metrics), ("Fold", f"{settings.split.fold} of 10"))
    return _page(f"Run {_name(path)}", facts, sections, missing)


def _cross_validation(path: Path, runs: Sequence[RunFolder]) -> Page:
    settings = config.load(runs[0].config_file)
    results = {run.path.name: files.mapping(run.metrics_file) for run in runs}
    ensemble = files.simulated(path, files.ENSEMBLE)
    samples = files.simulated(path, files.SAMPLES)
    differences = path / "equifinality" / "equifinality.nc"
    sections = [
        balance.section([*balance.worst(runs, results), *balance.evaluated(ensemble)]),
        Section("Folds", tables=[training.folds(runs, results)]),
        *_evaluation(ensemble),
        uncertainty.section(files.probabilistic(samples, ensemble), path / "figures"),
        _equifinality(differences),
        Section(
            "Figures",
            figures=figures.embed(path / "figures", without=uncertainty.FIGURES),
        ),
        _configuration(
            runs[0],
            f"The resolved configuration of {runs[0].path.name}, as its config.yaml "
            "has it; split.fold differs between the folds.",
        ),
        _provenance(ensemble),
    ]
    unfinished = [name for name, found in results.items() if not _finished(found)]
    resume = (
        "python trainers/cross_validate.py --config "
        f"{_quoted(runs[0].config_file)} --run-dir {_quoted(path)}"
    )
    missing = [
        Missing(f"Results of {', '.join(unfinished)}", resume, not unfinished),
        Missing("Ensemble", resume, ensemble.exists()),
        _no_evaluation("Evaluation of the ensemble", ensemble, settings.data.store),
        *_unevaluated(samples, settings.data.store),
        Missing("Equifinality", _verb("equifinality", path), differences.exists()),
        Missing("Figures", _verb("plot", path), _drawn(path / "figures")),
    ]
    metrics = results[runs[0].path.name]
    facts = (*_facts(settings, metrics), ("Folds", f"{len(runs)}"))
    return _page(f"Cross-validation {_name(path)}", facts, sections, missing)


def _page(
    title: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    missing: Sequence[Missing],
) -> Page:
    return Page(
        title,
        facts,
        [section for section in sections if not section.empty],
        [part for part in missing if not part.made],
    )


def _finished(metrics: Mapping) -> bool:
    """Whether a run waits for nothing: it was trained to the end, or imported."""
    return "test" in metrics or "imported" in metrics


def _facts(settings: config.Config, metrics: Mapping) -> list[tuple[str, str]]:
    facts = []
    if settings.provenance:
        made = settings.provenance
        created = datetime.fromisoformat(made.created)
        commit, *dirty = (made.commit or "unknown").split("-")
        facts = [
            (
                "Imported" if "imported" in metrics else "Trained",
                f"{created:%Y-%m-%d %H:%M %Z}",
            ),
            ("Version", f"h2mv_tf {made.version}"),
            ("Commit", commit[:COMMIT] + " with changes" * bool(dirty)),
        ]
    if "imported" in metrics:
        facts.append(("Weights", metrics["imported"]["from"]))
    return [*facts, ("Store", f"{settings.data.store}")]


def _no_evaluation(what: str, simulated: Path, store: Path) -> Missing:
    command = _verb("evaluate", simulated)
    if store != config.UNKNOWN:
        command += f" --data {_quoted(store)}"
    return Missing(what, command, files.scores(simulated).exists())


def _unevaluated(samples: Path, store: Path) -> list[Missing]:
    """What samples wait for; nothing where there are none."""
    if not samples.exists():
        return []
    return [_no_evaluation("Evaluation of the samples", samples, store)]


def _drawn(folder: Path) -> bool:
    """Whether there are other figures than a training draws."""
    return any(file.stem not in TRAINED for file in folder.glob("[!.]*.png"))


def _evaluation(simulated: Path) -> list[Section]:
    with files.dataset(files.scores(simulated)) as found:
        return [
            Section("Skill", text=scores.legend(found), tables=scores.skill(found)),
            Section("Synthetic truth", tables=scores.truth(found)),
            Section("Emergent quantities", tables=scores.emergent(found)),
        ]


def _equifinality(file: Path) -> Section:
    with files.dataset(file) as found:
        return Section("Equifinality", tables=scores.equifinality(found))


def _configuration(run: RunFolder, text: str) -> Section:
    verbatim = run.config_file.read_text(encoding="utf-8")
    return Section("Configuration", text=text, verbatim=verbatim)


def _provenance(simulated: Path) -> Section:
    """What the predictions say about themselves."""
    if not simulated.exists():
        return Section("Predictions")
    dataset = predictions.load(simulated)
    facts = [("path", f"{simulated}")]
    if "time" in dataset.dims:
        facts.append(("period", predictions.period(dataset)))
    facts += [(n, f"{dataset.attrs[n]}") for n in TOLD if n in dataset.attrs]
    return Section("Predictions", facts=facts)


def _name(path: Path) -> str:
    return path.resolve().name


def _verb(verb: str, path: Path) -> str:
    return f"python -m h2mv_tf {verb} {_quoted(path)}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))

"""Twin experiments: what can be recovered from which constraints.

    folder/all              a run with all constraints, its samples and their scores
    folder/without-tws ...  others with the same settings, each without a constraint
    folder/twin.nc          what each recovers of the hidden truth, of `gathered`

The world of a twin is synthetic, so that its truth is known. What is there is not made
again, so that the same call continues an interrupted one.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import xarray as xr

from h2mv_tf import cross_validation, plots, predictions, results
from h2mv_tf.config import Config, changed
from h2mv_tf.data.metadata import readable
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation.probabilistic import FEWEST
from h2mv_tf.evaluation.results import SCORES
from h2mv_tf.figures import FORMATS
from h2mv_tf.figures.folder import PROBABILISTIC
from h2mv_tf.files import write_whole
from h2mv_tf.inference import Sampling
from h2mv_tf.plots import style
from h2mv_tf.plots.twin import ALL, WIDTH, WITHOUT
from h2mv_tf.predictions import PRIOR, SAMPLES
from h2mv_tf.results import Bars, silent
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.variables import CONSTRAINTS, find, names

logger = logging.getLogger(__name__)

RESULT, TABLE, FIGURES = "twin.nc", "twin.csv", "figures"
METRICS = ("nse", "r", "crps", "coverage_90", WIDTH)
EFFICIENCIES = ("nse", "r")  # of the mean of the samples
LEVEL = 0.9
FORCED = ("rainfall",)  # is weather, in every sample alike
SAMPLED = tuple(
    name
    for name in dict.fromkeys(
        (
            *names("coefficient", "parameter", "constant", "state", "flux"),
            *CONSTRAINTS,
        )
    )
    if name not in FORCED
)


def experiments(
    constraints: Sequence[str], left_out: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """The constraints of each experiment, by its name.

    Args:
        constraints: Names of the registry: those that there are.
        left_out: Which are left out, one at a time, in any vocabulary of the registry;
            each by default.

    Raises:
        UserError: There are fewer than two constraints, or one that is to be left out
            is none of them.
    """
    if len(constraints) < 2:
        raise UserError(
            f"A twin leaves out one constraint of several. Expected two or more, found "
            f"{', '.join(constraints) or 'none'}. Add observations to the store, or "
            "name more in objective.constraints."
        )
    found = {ALL: tuple(constraints)}
    for name in constraints if left_out is None else left_out:
        variable = find(name, constraints)
        if variable is None:
            raise UserError(
                f"Cannot leave out '{name}' (--leave-out). Expected any of the "
                f"constraints: {', '.join(constraints)}."
            )
        others = tuple(other for other in constraints if other != variable.name)
        found[WITHOUT + variable.name] = others
    return found


def run_of(folder: Path, name: str) -> RunFolder:
    """The run folder of an experiment.

    Args:
        folder: Of the twin.
        name: Of the experiment.
    """
    return RunFolder(folder / name.replace(" ", "-"))


def settings_of(settings: Config, constraints: Sequence[str]) -> Config:
    """The configuration of an experiment: that of the twin with some constraints.

    Args:
        settings: Of the twin.
        constraints: Of the experiment.
    """
    fields: dict[str, object] = {"objective.constraints": tuple(constraints)}
    if settings.objective.errors is not None:
        fields["objective.errors"] = tuple(
            name for name in settings.objective.errors if name in constraints
        )
    return changed(settings, fields)


def planned(
    settings: Config,
    folder: Path,
    *,
    left_out: Sequence[str] | None = None,
    samples: int,
) -> dict[str, Config]:
    """The configuration of each experiment by its name, before anything is trained.

    Args:
        settings: Of the twin.
        folder: Of the twin; what is there already has to be of the same settings.
        left_out: As of `experiments`.
        samples: Of each experiment.

    Raises:
        UserError: The store has no hidden truth, there is no posterior, there are too
            few constraints or samples, or the folder is of other settings.
    """
    if settings.uncertainty.posterior == "none":
        raise UserError(
            "A twin compares the widths of posteriors, and uncertainty.posterior is "
            "none. Set uncertainty.posterior=variational, and objective.likelihood to "
            "normal, laplace or student_t."
        )
    if samples < FEWEST:
        raise UserError(
            f"{samples} samples are too few: of fewer than {FEWEST} the coverage of a "
            f"90 % interval says nothing. Give --samples {FEWEST} or more."
        )
    store = Store.open(settings.data.store, settings.data.groups)
    if store.truth() is None:
        raise UserError(
            f"Store '{store.path}' has no hidden truth (group 'truth'), which judges "
            "a twin. Make a world that has one with: python -m h2mv_tf synthesize"
        )
    constraints = settings.objective.constraints or store.constraints
    for name in constraints:
        store.calendar(name)  # refuses what the store lacks
    of_all = {
        name: settings_of(settings, of) for name, of in experiments(constraints).items()
    }
    for name, of_experiment in of_all.items():
        run = run_of(folder, name)
        if run.config_file.is_file():
            run.refuse_other(of_experiment)
        _refuse_other_count(run.path / SAMPLES, samples)
        _refuse_other_count(run.path / PRIOR, samples)
    return {name: of_all[name] for name in experiments(constraints, left_out)}


def run(
    settings: Config,
    folder: Path,
    *,
    left_out: Sequence[str] | None = None,
    samples: int = 30,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    bars: Bars = silent,
) -> xr.Dataset:
    """Trains, samples and scores each experiment, or what is left of it.

    Args:
        settings: Of the twin, with a posterior; on a store with a hidden truth.
        folder: Of all experiments, to make or to continue.
        left_out: As of `experiments`.
        samples: Draws from the posterior of each, and from the prior.
        callbacks: As of `training.fit`.
        bars: Shows progress.

    Returns:
        As of `gathered`; it is written, and drawn.

    Raises:
        UserError: As of `planned`.
    """
    plan = planned(settings, folder, left_out=left_out, samples=samples)
    prior = run_of(folder, ALL).path / PRIOR
    for n, (name, of_experiment) in enumerate(plan.items(), start=1):
        logger.info("Experiment %d of %d: %s", n, len(plan), name)
        one = run_of(folder, name)
        cross_validation.train(of_experiment, one, callbacks=callbacks)
        sampling = Sampling(samples, keep=True)
        common = {"variables": SAMPLED, "monthly": True, "bars": bars}
        if name == ALL:
            of_prior = sampling._replace(prior=True)
            results.predicted(one, file=PRIOR, sampling=of_prior, **common)
        path = results.predicted(one, file=SAMPLES, sampling=sampling, **common)
        if not results.scores_of(path).exists():
            results.evaluated(path, prior=prior, untrained=False, bars=bars)
    found = gathered(folder)
    write(found, folder)
    store = Store.open(settings.data.store, settings.data.groups)
    illustrated(found, folder, land=store.land)
    return found


def gathered(folder: Path) -> xr.Dataset:
    """What the experiments of a twin recover, as far as they have been scored.

    Args:
        folder: Of the twin.

    Returns:
        `score` (experiment, variable, metric) against the hidden truth, over all
        cells: `nse` and `r` of the mean of the samples, the median over the cells of
        monthly series, or those of the map of time means where the truth does not
        change in time; `crps` in units of the variable; `coverage_90`, the share of the
        truth within the 90 % interval; `relative_width`, the median over the cells of
        the width of the posterior per that of the prior. `widening` (experiment,
        width_variable, *space), the width of the posterior per that with all
        constraints.

    Raises:
        UserError: The experiment with all constraints has not been scored.
    """
    places = {
        name: results.scores_of(run_of(folder, name).path / SAMPLES)
        for name in (ALL, *(WITHOUT + constraint for constraint in CONSTRAINTS))
    }
    places = {name: place for name, place in places.items() if place.is_dir()}
    if ALL not in places:
        raise UserError(
            f"'{folder}' has no scores of an experiment with all constraints, "
            f"'{run_of(folder, ALL).path}'. Make them with: python -m h2mv_tf twin "
            f"--data WORLD --to {folder}"
        )
    scores, widths = zip(*map(_read, places.values()), strict=True)
    labels = xr.DataArray(list(places), dims="experiment", name="experiment")
    score = xr.concat(scores, labels, join="outer")
    width = xr.concat(widths, labels, join="outer")
    of_all = width.sel(experiment=ALL, drop=True)
    widening = width / of_all.where(of_all > 0)
    score.attrs = {"long_name": "score against the hidden truth of all cells"}
    widening.attrs = {
        "long_name": "width of the posterior per that with all constraints",
        "units": "1",
    }
    return xr.Dataset({"score": score, "widening": widening})


def write(twin: xr.Dataset, folder: Path) -> None:
    """Writes twin.nc and, without its maps, twin.csv, over those that are there.

    Args:
        twin: Of `gathered`.
        folder: Of the twin.
    """
    partial = folder / f".{RESULT}"
    twin.to_netcdf(partial, engine="netcdf4")
    partial.replace(folder / RESULT)
    table = twin.score.to_series().unstack("metric")
    # As they come, not by the alphabet.
    order = [(e, v) for e in twin.experiment.values for v in twin["variable"].values]
    write_whole(folder / TABLE, table.loc[order, list(METRICS)].to_csv())


def illustrated(
    twin: xr.Dataset, folder: Path, *, land: xr.DataArray | None = None
) -> list[Path]:
    """Draws the figures of a twin.

    Args:
        twin: Of `gathered`.
        folder: Of the twin.
        land: As of `plots.field_maps`.

    Returns:
        The files, in the order in which they are drawn.
    """
    drawings = {"skill": plots.twin.skill, "widths": plots.twin.widths}
    figures = {name: draw(twin) for name, draw in drawings.items()}
    for name in twin.experiment.values:
        wider = twin.widening.sel(experiment=name, drop=True)
        if name != ALL and np.isfinite(wider).any():
            file = f"widening_{name.removeprefix(WITHOUT)}"
            figures[file] = plots.twin.widening_maps(wider, land=land)
    to = folder / FIGURES
    to.mkdir(exist_ok=True)
    return [
        style.save(figure, to / f"{name}.{suffix}")
        for name, figure in figures.items()
        for suffix in FORMATS
    ]


def _refuse_other_count(path: Path, samples: int) -> None:
    if not path.exists():
        return
    found = predictions.load(path).sizes.get(predictions.REALIZATION)
    if found != samples:
        raise UserError(
            f"'{path}' has {found} samples, and --samples is {samples}. Give --samples "
            f"{found}, or choose another --to."
        )


def _read(evaluation: Path) -> tuple[xr.DataArray, xr.DataArray]:
    """The scores (variable, metric) and the posterior widths of an experiment."""
    with (
        readable(f"The scores in '{evaluation}'"),
        xr.open_dataset(evaluation / SCORES) as opened,
        xr.open_dataset(evaluation / PROBABILISTIC) as of_samples,
    ):
        everywhere = {"region": opened.region[0], "cells": "all"}
        series = opened.truth_summary.sel(
            **everywhere, scale="monthly", statistic="median"
        )
        maps = opened.truth_pattern.sel(**everywhere)
        # Of a truth that is constant in time no series has an efficiency.
        followed = series.where(series.sel(metric="nse").notnull(), maps)
        width = of_samples.relative_width
        relative = width.median([d for d in width.dims if d != "width_variable"])
        rows = {
            **{name: followed.sel(metric=name) for name in EFFICIENCIES},
            "crps": of_samples.truth_crps.sel(cells="all"),
            "coverage_90": of_samples.truth_coverage.sel(cells="all", level=LEVEL),
            WIDTH: relative.rename(width_variable="truth_variable"),
        }
        score = _stacked(rows, maps.truth_variable.values)
        return score, of_samples.posterior_width.load()


def _stacked(rows: Mapping[str, xr.DataArray], known: Sequence[str]) -> xr.DataArray:
    """Scores (variable, metric), each of (truth_variable,)."""
    values = [row.reset_coords(drop=True) for row in rows.values()]
    values = [row.reindex(truth_variable=known) for row in values]
    metric = xr.DataArray(list(rows), dims="metric", name="metric")
    stacked = xr.concat(values, metric, coords="minimal", compat="override")
    stacked = stacked.rename(truth_variable="variable").astype("float64")
    return stacked.transpose("variable", "metric").rename("score").load()

"""What a sweep comes to: a table, the best configuration, figures, TensorBoard."""

import logging

import matplotlib.figure
import pandas as pd

from h2mv_tf import config, plots
from h2mv_tf.config import Config
from h2mv_tf.files import write_whole
from h2mv_tf.plots import style
from h2mv_tf.tuning import board, oracles
from h2mv_tf.tuning.folder import Settings, SweepFolder
from h2mv_tf.tuning.importance import importance
from h2mv_tf.tuning.space import Field
from h2mv_tf.tuning.table import best, table

logger = logging.getLogger(__name__)


def kept(
    folder: SweepFolder, settings: Settings, oracle: oracles.Remembering
) -> pd.DataFrame:
    """Writes trials.csv and best.yaml, as they are now.

    Args:
        folder: Of the sweep.
        settings: Of the sweep.
        oracle: Of the sweep.

    Returns:
        The table of trials.
    """
    drawn = {
        trial_id: dict(trial.hyperparameters.values)
        for trial_id, trial in [*oracle.trials.items()]
    }
    trials = table(folder, settings, drawn, tuple(oracle.end_order))
    whole = {field.name: "Int64" for field in settings.space.fields if field.whole}
    write_whole(folder.trials_file, trials.astype(whole).to_csv(index=False))
    objective = settings.space.judged_by
    found = best(trials, maximised=objective.maximised)
    if found is not None:
        trial_id = next(i for i in drawn if int(i) == found["trial"])
        write_whole(
            folder.best_file,
            f"# {objective} {found['score']:.6g}: trial {found['trial']} of the sweep "
            f"{folder.path},\n# which trained {found['trained_epochs']:g} epochs.\n"
            + _configuration(folder, settings, trial_id).to_yaml(),
        )
    return trials


def _configuration(folder: SweepFolder, settings: Settings, trial_id: str) -> Config:
    """The configuration of a trial, on its devices, but with all epochs."""
    of_trial = config.load(folder.trial(trial_id).config_file(settings.folds[0]))
    begun = settings.configuration
    whole = {"split.fold": begun.split.fold}
    if settings.brackets:
        whole["training.epochs"] = begun.training.epochs
    return config.changed(of_trial, whole)


def illustrated(folder: SweepFolder, settings: Settings, trials: pd.DataFrame) -> None:
    """Draws the figures of a sweep, and writes importance.csv and TensorBoard's logs.

    Args:
        folder: Of the sweep.
        settings: Of the sweep.
        trials: Its table.
    """
    fields, objective = settings.space.fields, settings.space.judged_by
    board.write(folder.logs, trials, fields, str(objective))
    scales = {field.name: _scale(field) for field in fields}
    shown = {"objective": str(objective), "maximise": objective.maximised}
    figures: dict[str, matplotlib.figure.Figure] = {
        "fields": plots.scores_of_fields(trials, scales, **shown),
        "parallel_coordinates": plots.parallel_coordinates(trials, scales, **shown),
        "best_so_far": plots.best_so_far(trials, **shown),
    }
    found = importance(trials, fields)
    if found is None:
        logger.info("Too few trials to tell which field matters.")
    else:
        write_whole(folder.importance_file, found.table.to_csv(index=False))
        figures["importance"] = plots.importance_of_fields(*found)
    folder.figures.mkdir(exist_ok=True)
    for name, figure in figures.items():
        style.save(figure, folder.figures / f"{name}.png")


def best_trials(
    trials: pd.DataFrame, settings: Settings, most: int
) -> tuple[list[str], list[list[str]]]:
    """The best trials as columns of a table on the screen, and its rows.

    Args:
        trials: The table.
        settings: Of the sweep.
        most: Trials, at most.
    """
    objective = settings.space.judged_by
    done = trials.dropna(subset="score")
    done = done.sort_values("score", ascending=not objective.maximised).head(most)
    scores = [f"{score:.4g}" for score in done["score"]]
    epochs = map(_text, done["trained_epochs"])
    rows = [[str(objective), *scores], ["epochs", *epochs]]
    for field in settings.space.fields:
        rows.append([field.name, *map(_text, done[field.name])])
    return ["trial", *map(str, done["trial"])], rows


def _scale(field: Field) -> str | list:
    return list(field.values) if field.type == "choice" else field.sampling


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    if isinstance(value, float):
        return "-" if value != value else f"{value:.3g}"
    return f"{value}"

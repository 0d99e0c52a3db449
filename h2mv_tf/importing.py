"""Import: from weights of the published PyTorch code to a run folder.

    import_reference("fold1.ckpt", config, RunFolder(Path("runs/published")))

The folder is that of a training, without what only a training knows: it has no
history, no metrics of the test cells, and no checkpoint to go on from.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf import published
from h2mv_tf.config import UNKNOWN, Config, Model
from h2mv_tf.data import splits
from h2mv_tf.data.check import Check
from h2mv_tf.data.groups import OBSERVED
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import (
    Moments,
    Statistics,
    Survey,
    stored_statistics,
    survey,
)
from h2mv_tf.description import describe
from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, words
from h2mv_tf.export import export
from h2mv_tf.files import refuse_existing
from h2mv_tf.model import H2MV
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.trained import Trained
from h2mv_tf.untrained import normalization
from h2mv_tf.variables import FORCING

logger = logging.getLogger(__name__)


class Scaling(NamedTuple):
    """Moments of the inputs, and where they are from."""

    statistics: Statistics
    source: str


class Seen(NamedTuple):
    """What the store of the training has."""

    survey: Survey
    roles: xr.DataArray


def import_reference(
    path: str | Path,
    config: Config,
    run: RunFolder,
    *,
    moments: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes a run folder of weights of the published PyTorch code.

    Args:
        path: The checkpoint, as of `published.read`.
        config: Precision and, where it names one, the store of the training with its
            split; the sizes of the networks are those of the weights.
        run: Run folder to make.
        moments: The normalization.json of a run; by default what the checkpoint
            holds, or else what `data.normalization` takes from the store.
        progress: Called with the number of blocks read and of all blocks.

    Raises:
        UserError: The weights are not those of the published model, the normalisation
            is not known, or the store is of another model. Nothing is written before
            all is checked.
    """
    refuse_existing(run.path)
    checkpoint = published.read(path)
    try:
        precision = config.training.precision
        model = H2MV.from_reference(checkpoint.weights, dtype=precision)
    except ValueError as error:
        raise UserError(f"Checkpoint '{path}': {error}") from error
    store = seen = None
    if "store" in config.data.model_fields_set and config.data.store != UNKNOWN:
        store = Store.open(config.data.store, config.data.groups)
        _refuse_other(model, store.static_names, f"Store '{store.path}'")
    scaling = _given(checkpoint, model, store, moments)
    if scaling is None and store is None:
        raise UserError(
            f"Checkpoint '{path}' does not hold the means and deviations of its "
            "inputs. Name the store that it was trained on with --data, or the "
            "normalization.json of a run with --normalization."
        )
    if store is not None:
        seen, scaling = _read(store, config, scaling, progress)
    _refuse_no_deviation(scaling)
    model.set_normalization(normalization(scaling.statistics))
    sizes = {name: getattr(model, name) for name in Model.model_fields}
    data = config.data if store else config.data.model_copy(update={"store": UNKNOWN})
    config = config.model_copy(update={"model": Model(**sizes), "data": data})
    origin = {
        "from": Path(path).name,
        "sha256": checkpoint.digest,
        "normalization": scaling.source,
    }

    with run.made() as made, made.logged():
        logger.info("Imported %s, normalisation %s.", path, scaling.source)
        words = (f"{name} {size}" for name, size in sizes.items())
        logger.info("%d static inputs, %s.", model.static_size, ", ".join(words))
        made.save_config(config)
        made.save_json(made.normalization_file, scaling.statistics.to_dict())
        made.save_json(made.metrics_file, {"imported": origin})
        if seen is not None:
            describe(made, seen.survey, seen.roles, config.split.fold)
        model.save(made.model_file)
    export(Trained.of(run), run.saved_model)


def _given(
    checkpoint: published.Checkpoint,
    model: H2MV,
    store: Store | None,
    moments: Path | None,
) -> Scaling | None:
    """What is known of the inputs before anything of the store is read."""
    if moments is not None:
        statistics = _load(moments)
        names = tuple(statistics.static)
        _refuse_other(model, names, f"'{moments}'")
        for n, other in enumerate(store.static_names if store else names):
            if names[n] != other:
                raise UserError(
                    f"Static input {n + 1} is '{names[n]}' in '{moments}', but "
                    f"'{other}' in store '{store.path}'. Expected the same names in "
                    "the same order."
                )
        return Scaling(statistics, f"of {moments}")
    if checkpoint.normalization is None:
        return None
    known = checkpoint.normalization
    names = tuple(f"static_{n}" for n in range(len(known.static_mean)))
    _refuse_other(model, names, "The normalisation of the checkpoint")
    if store is not None:
        names = store.static_names
    statistics = Statistics(
        forcing=_named(FORCING, known.forcing_mean, known.forcing_std),
        static=_named(names, known.static_mean, known.static_std),
        constraints={},
    )
    return Scaling(statistics, "of the checkpoint")


def _named(names: Sequence[str], means, deviations) -> dict[str, Moments]:
    pairs = zip(means, deviations, strict=True)
    return {
        name: Moments(float(mean), float(std))
        for name, (mean, std) in zip(names, pairs, strict=True)
    }


def _load(file: Path) -> Statistics:
    """Moments of inputs and observations, of the normalization.json of a run."""
    try:
        content = parsed_json(file.read_bytes())
        found = Statistics.from_dict({"constraints": {}, **content})
        parts = {
            "forcing": {name: found.forcing[name] for name in FORCING},
            "static": found.static,
            "constraints": found.constraints,
        }
        return Statistics(
            **{
                part: _named(moments, *zip(*moments.values(), strict=True))
                if moments
                else {}
                for part, moments in parts.items()
            }
        )
    except OSError as error:
        raise UserError(f"Cannot read '{file}': {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"'{file}' is no normalization.json of a run: {words(error)}. Expected "
            "mean and std of each input, in forcing and static."
        ) from error


def _read(
    store: Store,
    config: Config,
    scaling: Scaling | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[Seen, Scaling]:
    """What the store of the training tells; observations only where they are needed."""
    constraints: Sequence[str] = ()
    if scaling is None:
        constraints = config.objective.constraints or store.constraints
        for name in constraints:
            store.calendar(name)  # refuses what the store lacks
        if config.data.normalization == "store":
            statistics = stored_statistics(store, constraints)
            scaling = Scaling(statistics, f"of the attributes of {store.path}")
            constraints = ()
    found = survey(store, constraints, progress=progress)
    unread = () if constraints else ("store", *OBSERVED)
    for finding in Check.of(found).serious:
        if finding.variable not in unread:
            raise UserError(f"Store '{store.path}': {finding}")
    roles = splits.roles(
        store.land, block_size=config.split.block_size, seed=config.split.seed
    )
    cells = splits.split(roles, config.split.fold).train
    if scaling is None:
        statistics = found.statistics(cells)
        scaling = Scaling(statistics, f"of the training cells of {store.path}")
    return Seen(found, roles), scaling


def _refuse_other(model: H2MV, names: Sequence[str], what: str) -> None:
    """Raises a UserError where there are more or fewer static inputs than weights."""
    if len(names) != model.static_size:
        raise UserError(
            f"{what} has {len(names)} static inputs, but the weights are of "
            f"{model.static_size}. Expected what the weights were trained with."
        )


def _refuse_no_deviation(scaling: Scaling) -> None:
    """Raises a UserError where an input cannot be scaled."""
    statistics = scaling.statistics
    for name, (mean, std) in {**statistics.forcing, **statistics.static}.items():
        if not (np.isfinite([mean, std]).all() and std > 0):
            raise UserError(
                f"The normalisation {scaling.source} has mean {mean:g} and standard "
                f"deviation {std:g} of '{name}'. Expected numbers, and a deviation "
                "above 0."
            )

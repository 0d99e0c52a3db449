"""All figures that a run, or a cross-validation, has something for.

    draw(Path("runs/first"))

Each is written as PNG and PDF into the folder's `figures/`. The log tells what cannot
be drawn, and how to get there.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from h2mv_tf import plots
from h2mv_tf.data.splits import TEST
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.figures import cell as cells_
from h2mv_tf.figures.folder import Folder, Missing
from h2mv_tf.figures.material import Material
from h2mv_tf.plots import style
from h2mv_tf.plots.storage import SHARES
from h2mv_tf.variables import VARIABLES

logger = logging.getLogger(__name__)

FORMATS = ("png", "pdf")
MODEL = "h2mv"  # among the models of an evaluation
# Figures of samples, and the score that each shows, of observations or the truth.
CALIBRATION = {
    "coverage": (plots.coverage, "coverage"),
    "reliability": (plots.reliability, "reliability"),
    "pit_histograms": (plots.pit_histograms, "pit"),
    "spread_skill": (plots.spread_skill, "spread"),
}
SAMPLE_MAPS = {
    "width_maps": (plots.width_maps, "posterior_width"),
    "truth_coverage_maps": (plots.truth_coverage_maps, "truth_coverage_map"),
}


def draw(
    folder: Path,
    *,
    store: Store | Path | None = None,
    cell: str | None = None,
    cells: str = "test",
    to: Path | None = None,
    formats: Sequence[str] = FORMATS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Draws everything that a folder has something for.

    Args:
        folder: Of a run or a cross-validation, or one with a history only.
        store: The store that was predicted, or where it is; by default where the
            predictions say.
        cell: LAT,LON or the name of a site, whose story is told; by default the test
            cell with the liveliest year.
        cells: `test` or `all`, of comparisons with observations.
        to: Folder to write to; `figures` in the folder by default.
        formats: Of the files, as matplotlib knows them.
        progress: Told how many of how many figures are done.

    Returns:
        The files, in the order in which they are drawn.

    Raises:
        UserError: There is no such folder, nothing to draw, no such cell, or the store
            has other cells.
    """
    found = Folder(Path(folder), store)
    found.require()
    material = Material(found, cells)
    if store is not None:
        with contextlib.suppress(Missing):  # without predictions it may be any
            _ = found.store
    if cell is not None:
        _refuse_unknown(material, cell)
    to = found.path / "figures" if to is None else Path(to)
    to.mkdir(parents=True, exist_ok=True)
    drawings = _drawings(material, cell)
    files: list[Path] = []
    left_out: dict[str, list[str]] = {}
    for number, (name, drawing) in enumerate(drawings.items()):
        if progress:
            progress(number, len(drawings))
        try:
            figure = drawing()
        except Missing as reason:
            left_out.setdefault(str(reason), []).append(name)
            continue
        files += [style.save(figure, to / f"{name}.{suffix}") for suffix in formats]
        figure.clear()  # it and its axes know each other, and would stay in memory
    reasons = [f"{', '.join(names)}: {why}" for why, names in left_out.items()]
    if not files:
        raise UserError(f"Cannot draw '{found.path}': {' '.join(reasons)}")
    for reason in reasons:
        logger.info("Left out %s", reason)
    return files


def _drawings(material: Material, cell: str | None) -> dict[str, Callable[[], Figure]]:
    """Every figure by the name of its file."""
    return {
        "loss_curves": lambda: _losses(material),
        "roles": lambda: _roles(material),
        "means": lambda: plots.field_maps(
            plots.mean_fields(material.means), land=material.land
        ),
        **_score_drawings(material),
        "skill": lambda: plots.skill_scores(material.folder.scores),
        "seasonal_cycles": lambda: plots.seasonal_cycles(material.series),
        "interannual": lambda: plots.interannual(material.series),
        "scatter": lambda: plots.density_scatter(material.points),
        "tws_composition": lambda: _composition(material),
        "story": lambda: _story(material, cell),
        **_uncertainty_drawings(material),
        **_equifinality_drawings(material),
    }


def _losses(material: Material) -> Figure:
    histories = material.folder.histories
    if not histories:
        raise Missing("there is no history.csv of a training.")
    if len(histories) > 1:
        return plots.fold_losses(histories)
    return plots.loss_curves(next(iter(histories.values())))


def _roles(material: Material) -> Figure:
    fold = material.folder.predictions.attrs.get("fold")
    if fold is None:
        return plots.folds_map(material.roles, TEST)
    return plots.roles_map(material.roles, int(fold), TEST)


def _score_drawings(material: Material) -> dict[str, Callable[[], Figure]]:
    """A figure of scores for each constraint that was evaluated."""
    try:
        scores = material.folder.scores
    except Missing as missing:
        reason = str(missing)

        def fail() -> Figure:
            raise Missing(reason)

        return {"scores": fail}

    def draw_scores(name: str) -> Figure:
        known = scores.score.sel(model=MODEL, variable=name)
        for scale in dict.fromkeys((VARIABLES[name].cadence, "monthly", "daily")):
            found = known.sel(scale=scale)
            if np.isfinite(found).any():
                return plots.score_maps(found, name, land=_land(material))
        raise Missing("it has not been observed often enough for scores.")

    names = [str(name) for name in scores["variable"].values]
    return {f"scores_{name}": lambda name=name: draw_scores(name) for name in names}


def _composition(material: Material) -> Figure:
    storage, shares = material.storage, None
    try:
        summary = material.folder.scores["emergent_summary"].sel(cells="all")
        shares = summary.sel(quantity=list(SHARES)).to_dataset("quantity")
        shares = shares.sel(region=storage.region)
    except (Missing, KeyError):  # no evaluation, or of other regions
        shares = None
    return plots.tws_composition(storage, shares)


def _story(material: Material, words: str | None) -> Figure:
    if words is None:
        place = cells_.liveliest(material)
    else:
        place = cells_.asked_for(material, words)
    known = cells_.known_of(material, place)
    return plots.cell_story(known, years=cells_.last_years(known), heading=place.title)


def _uncertainty_drawings(material: Material) -> dict[str, Callable[[], Figure]]:
    """What the evaluation of samples has something for; nothing without samples."""
    if not material.folder.has_samples:
        return {}

    def scores(shown: str) -> xr.Dataset:
        known = material.folder.probabilistic
        names = [name for name in (shown, f"truth_{shown}") if name in known]
        if not any(np.isfinite(known[name]).any() for name in names):
            raise Missing("the evaluation of the samples has nothing to show of it.")
        return known

    return {
        name: lambda draw=draw, shown=shown: draw(scores(shown))
        for name, (draw, shown) in CALIBRATION.items()
    } | {
        name: lambda draw=draw, shown=shown: draw(scores(shown), land=_land(material))
        for name, (draw, shown) in SAMPLE_MAPS.items()
    }


def _equifinality_drawings(material: Material) -> dict[str, Callable[[], Figure]]:
    if not material.folder.folds:
        return {}
    return {
        "equifinality": lambda: plots.decomposition(material.folder.equifinality),
        "equifinality_maps": lambda: plots.spread_maps(
            material.folder.equifinality, land=_land(material)
        ),
    }


def _land(material: Material) -> xr.DataArray | None:
    """The land mask, as far as there are predictions that tell it."""
    try:
        return material.land
    except Missing:
        return None


def _refuse_unknown(material: Material, words: str) -> None:
    """Raises a UserError before anything is drawn."""
    try:
        cells_.asked_for(material, words)
    except Missing as reason:
        raise UserError(
            f"Cannot find cell '{words}' of '{material.folder.path}': {reason}"
        ) from reason

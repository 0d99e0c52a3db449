"""Samples against observations and the hidden truth: are their spreads right?

An observation is held against samples of itself: the simulations, each with a draw of
the observations' noise, as far as can be seen (`predictive`). The hidden truth is held
against the simulations alone. All pairs of cells and steps count alike, whatever the
area of their cell. `calibration` has the scores.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dask
import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import predictions as predicted
from h2mv_tf.data.splits import SEA, TEST
from h2mv_tf.data.store import Store
from h2mv_tf.documents import parsed_yaml
from h2mv_tf.errors import UserError
from h2mv_tf.evaluation import (
    calibration,
    matching,
    probabilistic_assembly,
    scales,
    tasks,
)
from h2mv_tf.evaluation.blocks import Sources
from h2mv_tf.evaluation.calibration import Tally
from h2mv_tf.evaluation.cutting import Block, cut
from h2mv_tf.evaluation.predictive import Observing, observing
from h2mv_tf.evaluation.probabilistic_assembly import TRUTH, VARIABLE, Part
from h2mv_tf.predictions import MEMBER, REALIZATION, SAMPLES_OF
from h2mv_tf.variables import ERRORS, VARIABLES, names

# Realizations. Of fewer a value beyond all of them may count as within the 90 %
# interval, as the outermost of N + 1 ranks reaches into it.
FEWEST = 19
SEED = 20_250_527  # of noise and of what breaks ties, with variable and cell
HELD = 20_000_000  # values of a variable that a block holds, in single precision
TOGETHER = 2_000_000  # values that are worked on at a time, in double precision


def evaluate(
    samples: xr.Dataset,
    store: Store,
    *,
    prior: xr.Dataset | None = None,
    saturation: float | None = 100.0,
    cells: int | None = None,
    progress: tasks.Progress | None = None,
) -> xr.Dataset:
    """Scores the spread of samples against observations and the hidden truth.

    Works block by block through dask. Noise and what breaks ties have a seed for each
    variable and cell, so that blocks do not matter.

    Args:
        samples: Of `predictions.load`, with `realization`: (realization, time, lat,
            lon) or (realization, time, cell), native units.
        store: The store with the observations; the same cells.
        prior: A simulation of the prior of the same cells, to compare widths with.
        saturation: Snow water equivalent beyond which observations and samples say
            only "deep" [mm]; None compares all depths.
        cells: Of a block, at most, where chunks let it.
        progress: Called with the number of tasks that are done, and of all.

    Returns:
        Scores of observations (variable, ...) and truth (truth_variable, ...), maps of
        coverage and widths, and the constants, as docs/evaluation.md lists them;
        `attrs["notes"]` tells what is missing, one note a line.

    Raises:
        UserError: As of `refuse_unfit`.
    """
    refuse_unfit(samples, store, prior)
    with _here():
        means = predicted.summarised(samples)
        sources = matching.match(means, store, None, saturation).sources
        work, notes = _work(samples, prior, store, sources)
        constants = probabilistic_assembly.constants(samples, sources.constants)
    size = samples.sizes[REALIZATION] * samples.sizes["time"]
    cells = cells or max(HELD // size, 1)
    blocks = cut(store.land, matching.tiles(sources), cells=cells)
    advance = tasks.counter(len(blocks), progress)
    parts: Sequence[Part] = tasks.run(
        [functools.partial(work.part, block) for block in blocks], advance
    )
    result = xr.merge(
        [
            probabilistic_assembly.calibrated(parts),
            probabilistic_assembly.maps(
                store.land, blocks, parts, prior=prior is not None
            ),
            constants,
        ],
        compat="no_conflicts",
        join="outer",
    )
    if not work.test.any():
        notes.append("No cell is known to test: scores are of all cells.")
    return result.assign_attrs(
        notes="\n".join(notes),
        realizations=samples.sizes[REALIZATION],
        seed=SEED,
    )


def refuse_unfit(
    samples: xr.Dataset, store: Store, prior: xr.Dataset | None = None
) -> None:
    """Raises a UserError where `evaluate` would, without a look at the values.

    Args:
        samples: As for `evaluate`.
        store: As for `evaluate`.
        prior: As for `evaluate`.

    Raises:
        UserError: There are fewer than `FEWEST` realizations, the prior is none, the
            cells differ, or the noise cannot be read.
    """
    for what, dataset in {"predictions": samples, "prior": prior}.items():
        count = 0 if dataset is None else dataset.sizes.get(REALIZATION, 0)
        if dataset is not None and count < FEWEST:
            option = " --prior" if what == "prior" else ""
            raise UserError(
                f"The {what} {'has' if what == 'prior' else 'have'} {count} "
                f"realizations, expected {FEWEST} or more. "
                "Make them with: python -m h2mv_tf predict RUN --samples 100 "
                f"--realizations{option}"
            )
    if prior is not None:
        found = prior.attrs.get(SAMPLES_OF, "unknown")
        if found != "prior":
            raise UserError(
                "--prior expects a simulation of the prior, found samples of: "
                f"{found}. Make one with: python -m h2mv_tf predict RUN --samples 100 "
                "--realizations --prior"
            )
        matching.refuse_other_cells(prior, store.land, f"store '{store.path}'")
    with _here():
        for name in store.constraints:
            observing(samples, name, None)


def _here() -> dask.config.set:
    """Reads a few numbers, for each of which a scheduler would start processes."""
    return dask.config.set(scheduler="synchronous")


class _Read(NamedTuple):
    """Samples of a variable in a block.

    Attributes:
        means: Of months (realization, cell, time), a single step where there is no
            time.
        compared: On the steps of the observations (realization, cell, step), or None.
        observed: (cell, time) of these steps, or None.
    """

    means: np.ndarray
    compared: np.ndarray | None = None
    observed: xr.DataArray | None = None


@dataclass(frozen=True)
class _Work:
    """What is done block by block.

    Attributes:
        sources: Observations and truth.
        samples: With realizations.
        prior: Of the prior, or None.
        observing: By constraint that is judged.
        errors: Standard errors of observations, by constraint.
        test: Whether each land cell tests (cell,).
    """

    sources: Sources
    samples: xr.Dataset
    prior: xr.Dataset | None
    observing: Mapping[str, Observing]
    errors: Mapping[str, xr.DataArray]
    test: np.ndarray

    def part(self, block: Block) -> Part:
        """Everything that is worked out for the cells of a block.

        Args:
            block: The block.
        """
        part = Part({}, {}, {}, {})
        for name in sampled(self.samples):
            observed = None
            if name in self.observing:
                observed = self.sources.read(self.sources.observed[name], block)
            read = self._read(self.samples[name], block, observed)
            if read.compared is not None:
                part.tallies[VARIABLE, name] = self._observations(name, block, read)
            if name in self.sources.truth or name in self.sources.parameters:
                found = self._truth(name, block, read)
                part.tallies[TRUTH, name], part.covered[name] = found
            part.widths[name] = _width(read.means)
            del read  # before the next is read
            if self.prior is not None and name in sampled(self.prior):
                drawn = self._read(self.prior[name], block)
                part.prior_widths[name] = _width(drawn.means)
        return part

    def _read(
        self, data: xr.DataArray, block: Block, observed: xr.DataArray | None = None
    ) -> _Read:
        """Samples of a block, some realizations at a time."""
        means, compared, steps = [], [], None
        for series in self._series(data, block):
            if "time" not in series.dims:
                means.append(series.values[..., None])
                continue
            months = scales.whole_months(series.time)
            monthly = scales.monthly_means(series, months)
            means.append(monthly.values.astype("float32"))
            if observed is None:
                continue
            simulated = series if scales.is_daily(observed.time) else monthly
            pair = _pair(str(data.name), simulated, observed)
            compared.append(pair.prediction.values.astype("float32"))
            steps = pair.observation.isel({REALIZATION: 0}, drop=True)
        return _Read(
            np.concatenate(means), np.concatenate(compared) if compared else None, steps
        )

    def _series(self, data: xr.DataArray, block: Block) -> Iterator[xr.DataArray]:
        """(realization, cell, time) or (realization, cell), in double precision."""
        region = dict(zip(self.sources.space, block.region, strict=True))
        data = data.isel(region).transpose(REALIZATION, ..., *self.sources.space)
        chunk = data.variable.chunksizes.get(REALIZATION, (1,))[0]
        each = data[0].size  # values of a realization
        stride = max(TOGETHER // each // chunk, 1) * chunk
        for first in range(0, data.sizes[REALIZATION], stride):
            few = data.isel({REALIZATION: slice(first, first + stride)})
            # By this task alone, as in `Sources.read`.
            values = few.variable.compute(scheduler="synchronous").values
            dims = values.ndim - len(self.sources.space)
            values = values.reshape(*values.shape[:dims], -1)[..., block.place]
            values = np.moveaxis(values, -1, 1).astype("float64")
            time = {"time": data.time.values} if "time" in data.dims else {}
            yield xr.DataArray(
                values, time, (REALIZATION, "cell", "time")[: values.ndim]
            )

    def _observations(self, name: str, block: Block, read: _Read) -> Tally:
        """Holds samples against observations, a few cells at a time."""
        observing, steps = self.observing[name], _numbers(read.observed.time)
        known = None
        if name in self.errors:
            errors = self.sources.read(self.errors[name], block)
            every = self.sources.read(self.sources.observed[name], block)
            known = _matched_errors(errors.where(every.notnull()), read.observed)

        def pairs(cell: int, generator: np.random.Generator):
            return observing.predictive(
                read.compared[:, cell].astype("float64"),
                read.observed.values[cell],
                steps,
                generator,
                None if known is None else known[cell],
            )

        return self._judged(name, block, read.compared.shape, pairs)[0]

    def _truth(self, name: str, block: Block, read: _Read) -> tuple[Tally, np.ndarray]:
        """Holds samples against the truth; the share of covered months, too."""
        if name in self.sources.truth:
            series = self.sources.read(self.sources.truth[name], block)
            months = scales.whole_months(series.time)
            truth = scales.monthly_means(series, months)
            ours = scales.whole_months(self.samples.time)
            truth = truth.reindex(time=ours).values
        else:
            truth = self.sources.read(self.sources.parameters[name], block)
            truth = truth.values[:, None]

        def pairs(cell: int, generator: np.random.Generator):
            # In single precision, as the samples are: what is the same stays so.
            value = truth[cell].astype("float32").astype("float64")
            return read.means[:, cell].astype("float64"), value

        return self._judged(name, block, read.means.shape, pairs)

    def _judged(self, name, block, shape, pairs) -> tuple[Tally, np.ndarray]:
        """Scores of all pairs of a block, and the share that is covered (level, cell).

        Args:
            name: Of the variable.
            block: The block.
            shape: Of its samples (realization, cell, step).
            pairs: Gives samples (realization, step) and values (step,) of a cell.
        """
        at_once = max(TOGETHER // (shape[0] * max(shape[2], 1)), 1)
        number = list(VARIABLES).index(name)
        total, shares = None, np.full((len(calibration.LEVELS), shape[1]), np.nan)
        for first in range(0, len(block.cells), at_once):
            samples, values, uniform, place = [], [], [], []
            for cell in range(first, min(first + at_once, len(block.cells))):
                generator = np.random.default_rng([SEED, number, block.cells[cell]])
                simulated, value = pairs(cell, generator)
                there = np.isfinite(value) & np.isfinite(simulated).all(axis=0)
                samples.append(simulated[:, there])
                values.append(value[there])
                uniform.append(generator.random(len(there))[there])
                place.append(np.full(there.sum(), cell))
            of_cell = np.concatenate(place)
            test = self.test[block.cells[of_cell]]
            judged = calibration.judged(
                np.concatenate(samples, axis=1),
                np.concatenate(values),
                np.concatenate(uniform),
            )
            found = calibration.tally(judged, np.stack([test, test | True]))
            total = found if total is None else total.plus(found)
            inside = calibration.covered(judged.pit)
            for cell in np.unique(of_cell):
                shares[:, cell] = inside[:, of_cell == cell].mean(axis=1)
        return total, shares


def sampled(dataset: xr.Dataset) -> list[str]:
    """The variables of cells that have realizations, and are more than a balance."""
    kinds = names(*matching.SCORED_KINDS, "parameter")
    return [
        name
        for name in kinds
        if name in dataset
        and REALIZATION in dataset[name].dims
        and name not in matching.NOT_HIDDEN
    ]


def _work(samples, prior, store, sources: Sources) -> tuple[_Work, list[str]]:
    """What has to be done, and what is not, in words."""
    notes = []
    if samples.attrs.get(SAMPLES_OF) == "prior":
        notes.append("The samples are of the prior: they have seen no observation.")
    how = {}
    for name, data in sources.observed.items():
        by_day = VARIABLES[name].cadence == "daily" and scales.is_daily(data.time)
        if by_day and not scales.is_daily(samples.time):
            notes.append(
                f"{name} is left out: its noise is of days, and the predictions are "
                "monthly."
            )
            continue
        if name in sampled(samples):
            how[name] = observing(samples, name, sources.saturation)
    notes += _without_noise(samples, how)
    told = parsed_yaml(samples.attrs.get("configuration", "")) or {}
    wanted = told.get("objective", {}).get("errors")
    errors = {
        name: store.observed(ERRORS[name])
        for name in how
        if name in store.errors and (wanted is None or name in wanted)
    }
    role = np.zeros(store.land.shape) + SEA
    if "role" in samples.coords:
        role = samples.role.transpose(*store.land.dims).values
    test = role.ravel()[np.flatnonzero(store.land.values)] == TEST
    return _Work(sources, samples, prior, how, errors, test), notes


def _without_noise(samples: xr.Dataset, how: Mapping[str, Observing]) -> list[str]:
    """Of which constraints and members no noise was learned, in words."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    of_sample = [str(member) for member in samples[MEMBER].values]
    for name, each in how.items():
        members = zip(of_sample, each.noise, strict=True)
        without = tuple(dict.fromkeys(m for m, noise in members if noise is None))
        if without:
            lacking.setdefault(without, []).append(name)
    return [
        f"{', '.join(constraints)}: held against the samples alone, without noise of "
        "observations, as none was learned (objective.likelihood: mse)"
        + ("." if set(members) == set(of_sample) else f" by {', '.join(members)}.")
        for members, constraints in lacking.items()
    ]


def _pair(name: str, simulated: xr.DataArray, observed: xr.DataArray) -> scales.Pair:
    """Samples and observations on the steps on which they are compared.

    Args:
        name: Of the constraint.
        simulated: (realization, cell, time).
        observed: (cell, time).

    Returns:
        Both (realization, cell, time).
    """
    everywhere = {REALIZATION: simulated.sizes[REALIZATION]}
    pairs = scales.base_pairs(simulated, observed.expand_dims(everywhere).copy())
    by_day = VARIABLES[name].cadence == "daily" and "daily" in pairs
    return pairs["daily" if by_day else "monthly"]


def _matched_errors(errors: xr.DataArray, observed: xr.DataArray) -> np.ndarray:
    """Standard errors on the steps of observations; of days of a month their mean."""
    if scales.is_daily(errors.time) and not scales.is_daily(observed.time):
        months = pd.DatetimeIndex(observed.time.values)
        errors = scales.monthly_means(errors, months, skipna=True)
    return errors.reindex(time=observed.time).values


def _numbers(time: xr.DataArray) -> np.ndarray:
    """The number of each day or month, so that a gap has its length."""
    unit = "D" if scales.is_daily(time) else "M"
    return time.values.astype(f"datetime64[{unit}]").astype("int64")


def _width(means: np.ndarray) -> np.ndarray:
    """The mean over months of the deviation over realizations (cell,)."""
    return means.std(axis=0, ddof=1, dtype="float64").mean(axis=-1)

"""The library: a trained model in a notebook, xarray in and xarray out.

    model = h2mv_tf.load("saved_models/demo")
    results = model.simulate(weather)

Weather is an `xarray.Dataset` with daily net radiation, precipitation and air
temperature, under any name and in any units that `python -m h2mv_tf ingest` takes.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import psutil
import xarray as xr

from h2mv_tf import distribution, predictions, restart
from h2mv_tf.card import Card, rendered
from h2mv_tf.cell import State, empty_state
from h2mv_tf.data.check import refuse_static
from h2mv_tf.data.dataset import DatasetStore, Static
from h2mv_tf.data.store import Store
from h2mv_tf.data.writing import CONVENTIONS
from h2mv_tf.domain import Domain
from h2mv_tf.errors import UserError
from h2mv_tf.inference import hands
from h2mv_tf.inference.flow import provenance
from h2mv_tf.inference.job import MOST_CELLS, Job, asked_for, grouped
from h2mv_tf.inference.outcome import beyond, static_beyond
from h2mv_tf.inference.simulator import Simulator
from h2mv_tf.inference.work import Work
from h2mv_tf.predictions import Profile
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.signatures import DRIFT
from h2mv_tf.trained import GRAPH, Trained
from h2mv_tf.variables import DOMAIN, FORCING, STATES, VARIABLES, names

logger = logging.getLogger(__name__)

# Cells times days from where on it is faster to compile the model first.
WORTH_COMPILING = 200_000
ONE_DAY = pd.Timedelta(days=1)
PAGE = "model.html.j2"


def load(path: str | Path) -> "LoadedModel":
    """The trained model at a path; see `h2mv_tf.load`."""
    distribution.make_devices()
    return LoadedModel(Trained.open(path))


class LoadedModel:
    """A trained model of the land water cycle, that simulates xarray data sets.

    Weather, in all methods, is an `xarray.Dataset` of daily means:

    - net radiation [W m-2], precipitation [mm d-1] and air temperature [K], found by
      name (`net_radiation`, `rn`, `rss` + `rlds`..., `pr`, `tas`, `t2m`...) or by CF
      standard name, and converted from the units of their attribute `units`;
    - on (time, lat, lon), (time, cell), (time,) for one site, or any other dims and
      order; results have the same. Cells without any weather are sea.

    The static inputs of a place (`static_names`) are variables of the weather without
    time, or are given as `static`: a mapping of names to numbers or arrays, or another
    data set.

    Attributes:
        trained: Weights, statistics and provenance; `trained.model()` is the Keras
            model.

    Example:
        >>> model = h2mv_tf.load("saved_models/demo")
        >>> results = model.simulate(weather, static={"elevation": 450.0, ...})
        >>> results.runoff.groupby("time.year").sum()
    """

    def __init__(self, trained: Trained):
        self.trained = trained

    @property
    def path(self) -> Path:
        """The run folder, or the folder of the SavedModel."""
        return Path(str(self.trained.attributes["run"]))

    @property
    def static_names(self) -> tuple[str, ...]:
        """Names of the static inputs that each place needs."""
        return self.trained.static_names

    @property
    def domain(self) -> Domain | None:
        """The ranges of the inputs in the training; None where they are not known."""
        return self.trained.domain

    @cached_property
    def card(self) -> Card:
        """What the model takes and gives, where it comes from, and how good it is.

        Raises:
            UserError: It has none, as older runs.
        """
        is_graph = (self.path / GRAPH).is_file()
        return Card.read(self.path if is_graph else RunFolder(self.path).saved_model)

    def simulate(
        self,
        weather: xr.Dataset,
        *,
        static: Static | None = None,
        initial_state: xr.Dataset | str | Path | None = None,
        cycles: int | None = None,
        variables: Sequence[str] | None = None,
        profile: Profile = "native",
        compiled: bool | None = None,
    ) -> xr.Dataset:
        """Simulates the water cycle of each place and day.

        Args:
            weather: Daily weather, without gaps.
            static: Static inputs that the weather does not have.
            initial_state: State at the end of the day before the first one, or the
                restart file that has it. Otherwise stores are filled by a spin-up over
                the weather itself.
            cycles: Passes of the spin-up over the weather; one by default.
            variables: What to return, as `["runoff", "swe"]`, also by the names of
                CMIP; all by default. The water balance is always there.
            profile: `native` has the names and units of this package, `cf` those of
                CMIP: `mrro` in kg m-2 s-1.
            compiled: Compile the model for this number of days first, which takes some
                seconds; by default where there is much to simulate.

        Returns:
            On the dims and coordinates of the weather: fluxes and coefficients [mm d-1,
            1] as means of the day, stores [mm] at its end. Without time: the
            soil water capacity [mm], how well the water balance closes, and
            `out_of_domain`, the share of days with an input that the training has not
            seen the like of.

        Raises:
            UserError: The weather lacks something, or cannot be what it says; the state
                is of another model, place or day.

        Example:
            >>> results = model.simulate(weather, variables=["runoff", "swe"])
            >>> results.swe.plot()
        """
        results, _ = self.advance(
            weather,
            initial_state,
            static=static,
            cycles=cycles,
            variables=variables,
            profile=profile,
            compiled=compiled,
        )
        return results

    def advance(
        self,
        weather: xr.Dataset,
        state: xr.Dataset | str | Path | None = None,
        *,
        static: Static | None = None,
        cycles: int | None = None,
        variables: Sequence[str] | None = None,
        profile: Profile = "native",
        compiled: bool | None = None,
    ) -> tuple[xr.Dataset, xr.Dataset]:
        """Goes on from a state, day by day or year by year: a chain of forecasts.

        Args:
            weather: Daily weather; the first day is the one after the state's.
            state: Where to start, or the restart file that has it; without one,
                after a spin-up as of `simulate`.
            static: As of `simulate`.
            cycles: As of `simulate`.
            variables: As of `simulate`.
            profile: As of `simulate`.
            compiled: As of `simulate`.

        Returns:
            The results, as of `simulate`, and the state at the end of the last day.
            `state.to_netcdf("state.nc")` makes a restart file, for `advance` or for
            `python -m h2mv_tf predict --initial-state state.nc`.

        Raises:
            UserError: As of `simulate`.

        Example:
            >>> _, state = model.advance(weather.sel(time="2001"))
            >>> forecast, state = model.advance(weather.sel(time="2002-01"), state)
        """
        if profile not in get_args(Profile):
            raise UserError(
                f"There is no profile '{profile}'. Expected native, or cf for the "
                "names and units of CMIP."
            )
        if state is not None and cycles is not None:
            raise UserError(
                "Give an initial state or cycles of a spin-up, not both: a spin-up is "
                "what leads to a state where there is none."
            )
        store = self._store(weather, static)
        asked = asked_for([variables] if isinstance(variables, str) else variables)
        passes = _passes(cycles) if state is None else 0
        job = self._job(store, asked, passes, compiled, profile)
        if state is not None:
            state = restart.load(state) if isinstance(state, str | Path) else state
            restart.refuse_other(state, self.trained.digest, store.land, store.time[0])
        return self._simulated(store, job, state)

    def spin_up(
        self,
        weather: xr.Dataset,
        *,
        cycles: int = 1,
        static: Static | None = None,
        compiled: bool | None = None,
    ) -> xr.Dataset:
        """Fills the stores by passes over the weather, and tells if they have settled.

        Args:
            weather: Daily weather, best of whole years.
            cycles: Passes over it, from empty stores.
            static: As of `simulate`.
            compiled: As of `simulate`.

        Returns:
            The state before the first day, for `initial_state`; with `drift_swe`,
            `drift_soil_moisture` and `drift_groundwater` [mm], what the last pass has
            changed a store by.

        Raises:
            UserError: As of `simulate`.

        Example:
            >>> state = model.spin_up(weather, cycles=10)
            >>> abs(state.drift_groundwater).max()
            >>> results = model.simulate(weather, initial_state=state)
        """
        passes, store = _passes(cycles), self._store(weather, static)
        job = self._job(store, asked_for(()), 0, compiled)
        start = store.time[0] - ONE_DAY
        empty = empty_state(
            len(store.inputs), self.trained.settings["lstm_units"], self._dtype
        )
        before = state = self._state(empty, store, start, job)
        for _ in range(passes):
            before = state
            _, end = self._simulated(store, job, before, told=False)
            state = end.assign_coords(time=before.time)
        drifts = {
            DRIFT + name: (state[name] - before[name]).assign_attrs(
                long_name=f"{VARIABLES[name].long_name}, change in the last pass",
                units=VARIABLES[name].units,
            )
            for name in STATES
        }
        return state.assign(drifts).assign_attrs(cycles=passes)

    def _store(self, weather: xr.Dataset, static: Static | None) -> DatasetStore:
        """The weather, looked at."""
        store = DatasetStore.of(
            weather,
            self.static_names,
            static=static,
            units=self.domain.units if self.domain else None,
        )
        refuse_static(store, store.inputs)
        return store

    def _job(
        self,
        store: DatasetStore,
        asked: tuple[str, ...],
        spin_up: int,
        compiled: bool | None,
        profile: Profile = "native",
    ) -> Job:
        cells = len(store.inputs)
        if compiled is None:
            compiled = cells * len(store.time) >= WORTH_COMPILING
        return Job(
            names=asked,
            profile=profile,
            monthly=False,
            spin_up=spin_up,
            cells=min(cells, MOST_CELLS),
            compiled=compiled,
        )

    def _simulated(
        self,
        store: DatasetStore,
        job: Job,
        initial: xr.Dataset | None,
        *,
        told: bool = True,
    ) -> tuple[xr.Dataset, xr.Dataset]:
        """The results, and the state at the end of the last day."""
        template = predictions.template(
            store.land, store.time, job.names, profile=job.profile
        )
        _refuse_large(template)
        results, saved = _Arrays(template), _Arrays(self._state_template(store))
        groups = grouped(store.blocks, job.cells)
        devices = distribution.own_devices("auto" if job.compiled else 1)
        works = [
            Work(
                Simulator.of(self.trained, job, device),
                job,
                store,
                store.inputs,
                results,
                saved,
                initial,
            )
            for device in devices[: len(groups)]
        ]
        for _ in hands.on_devices(works, groups):
            pass
        state = restart.states(saved.filled(), store.land)
        found = self._described(results.filled(), store, job)
        if told:
            self._tell(found, store)
        return found, self._state(state, store, store.time[-1], job)

    @property
    def _dtype(self) -> str:
        return self.trained.weights[0].dtype.name

    def _state_template(self, store: Store) -> xr.Dataset:
        return restart.template(
            store.land,
            store.time[-1],
            units=self.trained.settings["lstm_units"],
            dtype=self._dtype,
        )

    def _state(
        self, state: State, store: Store, day: pd.Timestamp, job: Job
    ) -> xr.Dataset:
        origin = self._origin(store, job)
        digest = self.trained.digest
        return restart.of(state, store.land, day, digest, **origin).load()

    def _origin(self, store: Store, job: Job) -> dict[str, str]:
        """Where results or a state come from."""
        origin = provenance(self.trained, store, job)
        return {name: origin[name] for name in ("source", "history", "references")}

    def _described(
        self, results: xr.Dataset, store: DatasetStore, job: Job
    ) -> xr.Dataset:
        """The results on the dims of the weather, with what tells of them."""
        share = results[DOMAIN[0]]
        for name in names("constant"):
            if name in job.names:
                stored = predictions.stored_name(name, job.profile)
                value = np.float32(self.trained.constants[name])
                results[stored] = results[stored].copy(data=value)
        restored = {
            str(name): store.layout.restored(data) for name, data in results.items()
        }
        found = xr.Dataset(restored)
        if predictions.is_grid(store.land):
            area = predictions.cell_area(store.land)
            found.coords[predictions.AREA] = store.layout.restored(area)
        return found.assign_attrs(
            {
                "Conventions": CONVENTIONS,
                "title": "Simulation of H2MV, a hybrid model of the land water cycle",
                **self._origin(store, job),
                "model": str(self.path),
                **beyond(share, self.domain),
            }
        )

    def _tell(self, results: xr.Dataset, store: DatasetStore) -> None:
        """Warns of weather and places that the training has not seen the like of."""
        count = results.attrs["cells_out_of_domain"]
        if self.domain is None or not count:
            return
        words = []
        for name in FORCING:
            (low, high), seen = store.ranges[name], self.domain.forcing[name]
            if low < seen.low or high > seen.high:
                words.append(
                    f"{VARIABLES[name].label} is {low:g} to {high:g}, the training has "
                    f"{seen.low:g} to {seen.high:g}"
                )
        if static := static_beyond(store.inputs, self.static_names, self.domain):
            words.append(static)
        logger.warning(
            "%d of %d cells lie beyond what the model was trained on, on %.3g %% of "
            "all days: %s.",
            count,
            results.attrs["cells"],
            100 * results.attrs["share_out_of_domain"],
            "; ".join(words),
        )

    def __repr__(self) -> str:
        seen = "unknown training"
        if self.domain is not None:
            seen = f"trained on {self.domain.cells} cells"
            seen += f", {' to '.join(self.domain.period)}"
        return (
            f"<h2mv_tf model '{self.path}': {seen}; static inputs: "
            f"{', '.join(self.static_names)}>"
        )

    def _repr_html_(self) -> str | None:
        try:
            card = self.card
        except UserError:
            return None
        return rendered(PAGE, card=card, path=self.path.as_posix())


class _Arrays:
    """Arrays in memory, filled as `writing.Arrays` fills those of a store.

    Args:
        template: Dims, types and attributes; its values take no memory.
    """

    def __init__(self, template: xr.Dataset):
        self._template = template
        self._values = {
            str(name): np.full(data.shape, np.nan, data.dtype)
            for name, data in template.data_vars.items()
        }

    def begin(self, group: str, values: np.ndarray, region=(), name="data", dims=None):
        target = self._values[name][tuple(region)]
        if dims is not None:
            target = target.transpose(dims)
        target[...] = values
        return lambda: None

    def filled(self) -> xr.Dataset:
        """The data set."""
        return self._template.assign(
            {
                name: self._template[name].copy(data=values)
                for name, values in self._values.items()
            }
        )


def _passes(cycles: int | None) -> int:
    """How often a spin-up goes over the weather."""
    passes = 1 if cycles is None else cycles
    if passes < 1 or passes != int(passes):
        raise UserError(
            f"A spin-up of {cycles} cycles cannot be made. Expected 1 or more; from a "
            "state of your own, give it as initial_state."
        )
    return int(passes)


def _refuse_large(results: xr.Dataset) -> None:
    """Refuses what memory has no room for."""
    free = psutil.virtual_memory().available
    if results.nbytes > free:
        raise UserError(
            f"The results would take {results.nbytes / 1e9:.3g} GB of memory, of which "
            f"{free / 1e9:.3g} GB are free. Ask for fewer variables, as in "
            "variables=['runoff'], simulate a part after the other, or write them to a "
            "store with `python -m h2mv_tf predict`."
        )

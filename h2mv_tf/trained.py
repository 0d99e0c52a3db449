"""A trained model, with what is known of its training."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import xarray as xr

from h2mv_tf import __version__, architecture, archive, config
from h2mv_tf.card import Card
from h2mv_tf.data.metadata import refuse_unsafe
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import Statistics
from h2mv_tf.documents import parsed_json
from h2mv_tf.domain import Domain, Range
from h2mv_tf.errors import UserError, quoted, shown, words
from h2mv_tf.model import H2MV
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.untrained import untrained_model

MEASURED = ("measure", "untrained", "test")  # of metrics.json
WEIGHTS = "weights"  # attribute of a SavedModel
GRAPH = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with what is known of its training.

    Attributes:
        settings: Of the model's constructor.
        weights: Of the model.
        static_names: Its static inputs, in order.
        constants: What it has learned of the whole globe, by name.
        attributes: Provenance, as predictions hold it.
        roles: Role of every cell of the training; None where it is not known.
        domain: What it has seen in its training; None where it is not known.
        metrics: Of the test cells, trained and untrained, where they are known.
    """

    settings: Mapping
    weights: Sequence[np.ndarray]
    static_names: tuple[str, ...]
    constants: Mapping[str, float]
    attributes: Mapping[str, object]
    roles: xr.DataArray | None = None
    domain: Domain | None = None
    metrics: Mapping[str, object] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> "Trained":
        """The trained model at a path.

        Args:
            path: A run folder, a SavedModel of `python -m h2mv_tf export`, or a folder
                with versions of it, of which the last is taken.

        Raises:
            UserError: There is no model, or one that this version cannot read.
        """
        path = Path(path)
        archive.refuse(path)
        if (path / GRAPH).is_file():
            return cls.of_saved_model(path)
        if numbers := versions(path):
            return cls.of_saved_model(path / str(max(numbers)))
        run = RunFolder(path)
        if not run.config_file.is_file():
            raise UserError(
                f"'{path}' is not a run folder, nor a SavedModel: it has neither "
                f"config.yaml nor {GRAPH}. Train one with: python trainers/train.py "
                "--run-dir DIR"
            )
        return cls.of(run)

    @classmethod
    def of_saved_model(cls, path: Path) -> "Trained":
        """The trained model that a SavedModel holds.

        Raises:
            UserError: It is none of this package, or damaged.
        """
        card = Card.read(path)
        settings = config.validated(card.configuration)
        try:
            model = H2MV.from_config(architecture.checked(card.settings))
            model.set_weights(_weights(path, model))
            statistics = Statistics.from_dict(card.normalization)
            _refuse_other_inputs(statistics, model)
        except Exception as error:  # of damaged files the libraries raise a dozen
            raise UserError(
                f"The weights of SavedModel '{path}' cannot be read: {words(error)}. "
                "Copy it again, or export it anew."
            ) from error
        return cls._of(
            model,
            statistics,
            settings,
            domain=_domain_of(card),
            metrics=card.metrics,
            run=str(path),
        )

    @classmethod
    def of(cls, run: RunFolder) -> "Trained":
        """The trained model of a run folder.

        Raises:
            UserError: It is no run folder, has no model yet, or is of a version whose
                files this one cannot read.
        """
        run.require()
        if not run.model_file.is_file():
            raise UserError(
                f"Run folder '{run.path}' has no trained model yet. Continue it with: "
                f"python trainers/train.py --resume --run-dir {run.path}"
            )
        settings = config.load(run.config_file)
        try:
            architecture.refuse_other(run.model_file)
            model = keras.models.load_model(run.model_file, safe_mode=True)
            statistics = Statistics.from_dict(run.load_json(run.normalization_file))
            _refuse_other_inputs(statistics, model)
            roles = domain = None
            if run.split_store.exists():  # of imported weights they may be unknown
                refuse_unsafe(run.split_store, whole=("role",))
                split = xr.open_zarr(run.split_store, consolidated=False)
                roles = split["role"].load()
            if run.domain_file.exists():  # older runs have none
                domain = Domain.from_dict(run.load_json(run.domain_file))
            metrics = dict(run.load_json(run.metrics_file))
        except Exception as error:  # of damaged files the libraries raise a dozen
            version = settings.provenance.version if settings.provenance else "unknown"
            raise UserError(
                f"The model of run folder '{run.path}', of version "
                f"{quoted(version, 20)}, cannot be read by version {__version__}: "
                f"{words(error)}. Train it anew, or use the version that it is of."
            ) from error
        return cls._of(
            model,
            statistics,
            settings,
            roles,
            domain,
            {part: metrics[part] for part in MEASURED if part in metrics},
            run=str(run.path),
        )

    @classmethod
    def before_training(cls, attributes: Mapping[str, str]) -> "Trained":
        """The model as it was before it was trained.

        Args:
            attributes: Of its predictions, which know how it was made.

        Raises:
            UserError: They do not know it.
        """
        if not {"configuration", "normalization"} <= set(attributes):
            raise UserError(
                "The predictions do not know how their model was made, so that there "
                "is no untrained one. Make them anew with `python -m h2mv_tf predict`."
            )
        settings = config.parse(str(attributes["configuration"]))
        try:
            content = parsed_json(str(attributes["normalization"]))
            statistics = Statistics.from_dict(content)
        except ValueError as error:
            raise UserError(
                f"The normalisation of the predictions cannot be read: {words(error)}. "
                "Make them anew with `python -m h2mv_tf predict`."
            ) from error
        return cls.untrained(settings, statistics)

    @classmethod
    def untrained(
        cls,
        settings: config.Config,
        statistics: Statistics,
        roles: xr.DataArray | None = None,
    ) -> "Trained":
        """A model that has learned nothing.

        Args:
            settings: Sizes of the networks, precision and seed.
            statistics: Of the training cells.
            roles: Role of every cell; None where it is not known.
        """
        model = untrained_model(settings, statistics)
        return cls._of(model, statistics, settings, roles)

    @classmethod
    def _of(
        cls,
        model: H2MV,
        statistics: Statistics,
        settings: config.Config,
        roles: xr.DataArray | None = None,
        domain: Domain | None = None,
        metrics: Mapping[str, object] | None = None,
        **attributes,
    ) -> "Trained":
        constants = model.cell.constants()
        return cls(
            settings=model.get_config(),
            weights=model.get_weights(),
            static_names=tuple(statistics.static),
            constants={name: float(value) for name, value in constants.items()},
            attributes={
                **attributes,
                "fold": settings.split.fold,
                "configuration": settings.to_yaml(),
                "normalization": json.dumps(statistics.to_dict()),
            },
            roles=roles,
            domain=domain,
            metrics=metrics or {},
        )

    def model(self) -> H2MV:
        """The model."""
        model = H2MV.from_config(dict(self.settings))
        model.set_weights(self.weights)
        return model

    @property
    def name(self) -> str:
        """What it is called among others: the name of its run folder."""
        return Path(str(self.attributes.get("run", "untrained"))).name

    @property
    def architecture(self) -> Mapping[str, object]:
        """What its weights' shapes follow from."""
        return {k: v for k, v in self.settings.items() if k not in ("name", "dropout")}

    @property
    def noise(self) -> dict[str, dict[str, object]]:
        """What it has learned of the observations' errors, by constraint.

        `likelihood`; `deviation` in native units, the scale of the distribution at
        cells that no training has seen, and `learned`, that at the training cells;
        `persistence`; and `degrees_of_freedom`, where the distribution has them.
        """
        objective = config.parse(str(self.attributes["configuration"])).objective
        moments = self.statistics.constraints
        of_student = objective.likelihood == "student_t"
        model = self.model()
        learned = model.noise()
        return {
            name: {
                "likelihood": objective.likelihood,
                "deviation": float(noise.deviation) * moments[name].std,
                "learned": float(learned[name].deviation) * moments[name].std,
                "persistence": float(noise.persistence) * objective.autocorrelation,
                "degrees_of_freedom": (
                    objective.degrees_of_freedom if of_student else None
                ),
            }
            for name, noise in model.noise(of_others=True).items()
        }

    @property
    def statistics(self) -> Statistics:
        """Moments of its inputs and of what it was trained against."""
        return Statistics.from_dict(json.loads(self.attributes["normalization"]))

    @property
    def digest(self) -> str:
        """Tells this model from others."""
        digest = hashlib.sha256()
        for weight in self.weights:
            digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()

    def open_store(self, path: Path | None = None) -> Store:
        """A store to simulate, with the groups' names of the training.

        Args:
            path: That of the training by default.

        Raises:
            UserError: It cannot be opened.
        """
        data = config.parse(self.attributes["configuration"]).data
        path = path or data.store
        if path == config.UNKNOWN:
            raise UserError(
                "It is not known which store the model was trained on. Name the one to "
                "simulate with --data."
            )
        return Store.open(path, data.groups)

    def require(self, store: Store) -> None:
        """Raises a UserError where the store's static inputs are not the model's."""
        if store.static_names == self.static_names:
            return
        found, wanted = store.static_names, self.static_names
        pairs = list(itertools.zip_longest(wanted, found, fillvalue="none"))
        place = next(n for n, (one, other) in enumerate(pairs) if one != other)
        raise UserError(
            f"The static inputs of store '{store.path}' are not those that the model "
            f"was trained with: it has {len(found)}, expected {len(wanted)}; number "
            f"{place + 1} has to be '{pairs[place][0]}', found '{pairs[place][1]}'. "
            f"Expected in this order: {', '.join(wanted)}."
        )

    def role_of(self, store: Store) -> xr.DataArray:
        """Which role the cells of a store had in the training.

        Args:
            store: Maybe another one than that of the training.

        Returns:
            As of `splits.roles`; 0 where a cell was no part of it, and at sea.
        """
        roles = xr.zeros_like(store.land, dtype="int8")
        if self.roles is not None:
            known = _by_place(self.roles)
            there = _by_place(store.land).index
            values = known.reindex(there, fill_value=0).values.reshape(roles.shape)
            roles = roles.copy(data=values.astype("int8"))
        return roles.where(store.land, 0).assign_attrs(
            self.roles.attrs if self.roles is not None else {}
        )


def opened(path: str | Path) -> Trained | list[Trained]:
    """The trained model at a path, or the members of an ensemble.

    Args:
        path: As of `Trained.open`, or a folder of run folders: those of a
            cross-validation, or of trainings that differ in their seeds.

    Raises:
        UserError: There is no model, or a run is not trained yet.
    """
    path = Path(path)
    runs = sorted(file.parent for file in path.glob("*/config.yaml"))
    if RunFolder(path).config_file.is_file() or not runs:
        return Trained.open(path)
    return [Trained.of(RunFolder(run)) for run in runs]


def versions(folder: Path) -> list[int]:
    """Numbers of the versions of a SavedModel that a folder has."""
    found = folder.glob(f"*/{GRAPH}")
    return [int(file.parent.name) for file in found if file.parent.name.isdecimal()]


def _weights(path: Path, model: H2MV) -> list[np.ndarray]:
    """The weights of a SavedModel, read without its graph.

    Raises:
        ValueError: They are of another model.
    """
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    shapes, found = reader.get_variable_to_shape_map(), []
    for n, weight in enumerate(model.weights):
        key = f"{WEIGHTS}/{n}/.ATTRIBUTES/VARIABLE_VALUE"
        if shapes.get(key) != list(weight.shape):
            raise ValueError(
                f"weight {n} has the shape {shown(shapes.get(key))}, expected "
                f"{list(weight.shape)}"
            )
        found.append(reader.get_tensor(key))
    return found


def _refuse_other_inputs(statistics: Statistics, model: H2MV) -> None:
    """Raises a ValueError where there are more or fewer moments than inputs."""
    if len(statistics.static) != model.static_size:
        raise ValueError("model and statistics differ in their static inputs")


def _domain_of(card: Card) -> Domain | None:
    """What a model has seen in its training, where its card knows it."""
    if card.training.period is None:
        return None
    return Domain(
        forcing={v.name: Range(v.low, v.high) for v in card.forcing},
        static={v.name: Range(v.low, v.high) for v in card.static},
        units={v.name: v.units for v in card.static if v.units},
        period=card.training.period,
        cells=card.training.cells,
    )


def _by_place(data: xr.DataArray) -> pd.Series:
    """Values of all cells, by latitude and longitude [1e-4 degrees]."""
    latitude, longitude = xr.broadcast(data.lat, data.lon)
    places = [
        np.round(np.ravel(x.transpose(*data.dims)) * 1e4).astype("int64")
        for x in (latitude, longitude)
    ]
    series = pd.Series(np.ravel(data.values), pd.MultiIndex.from_arrays(places))
    return series[~series.index.duplicated()] if data.name == "role" else series

"""A trained model, with what is known of its training."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import xarray as xr

from h2mv_tf import __version__, config
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import Statistics
from h2mv_tf.domain import Domain
from h2mv_tf.errors import UserError
from h2mv_tf.model import H2MV
from h2mv_tf.run_folder import RunFolder
from h2mv_tf.untrained import untrained_model


@dataclass(frozen=True)
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
    """

    settings: Mapping
    weights: Sequence[np.ndarray]
    static_names: tuple[str, ...]
    constants: Mapping[str, float]
    attributes: Mapping[str, object]
    roles: xr.DataArray | None = None
    domain: Domain | None = None

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
            model = keras.models.load_model(run.model_file)
            statistics = Statistics.from_dict(run.load_json(run.normalization_file))
            if len(statistics.static) != model.static_size:
                raise ValueError("model and statistics differ in their static inputs")
            roles = xr.open_zarr(run.split_store, consolidated=False)["role"].load()
            domain = None
            if run.domain_file.exists():  # runs before version 0.2 have none
                domain = Domain.from_dict(run.load_json(run.domain_file))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            version = settings.provenance.version if settings.provenance else "unknown"
            words = (" ".join(str(error).split()) or type(error).__name__)[:200]
            raise UserError(
                f"The model of run folder '{run.path}', of version {version}, cannot "
                f"be read by version {__version__}: {words}. Train it anew, or use the "
                "version that it is of."
            ) from error
        return cls._of(
            model, statistics, settings, roles, domain, run=str(run.path)
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
        settings = config.parse(attributes["configuration"])
        statistics = Statistics.from_dict(json.loads(attributes["normalization"]))
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
        )

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
        return Store.open(path or data.store, data.groups)

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


def _by_place(data: xr.DataArray) -> pd.Series:
    """Values of all cells, by latitude and longitude [1e-4 degrees]."""
    latitude, longitude = xr.broadcast(data.lat, data.lon)
    places = [
        np.round(np.ravel(x.transpose(*data.dims)) * 1e4).astype("int64")
        for x in (latitude, longitude)
    ]
    series = pd.Series(np.ravel(data.values), pd.MultiIndex.from_arrays(places))
    return series[~series.index.duplicated()] if data.name == "role" else series

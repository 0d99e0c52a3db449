"""How cells lie in a data set: on a grid, at sites, along any dims, or a single one.

layout = Layout.of(dataset, dataset["tas"], "time")
series = layout.arranged(dataset["tas"])  # (time, lat, lon) or (time, cell)
layout.restored(series)  # on the dims and coordinates of the data set again
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from h2mv_tf.data.ingest.sources import axis_of, names_of_sites
from h2mv_tf.errors import UserError

NEAR = 1e-4  # degrees, within which two places are one


@dataclass(frozen=True)
class Layout:
    """The cells of a data set.

    Attributes:
        template: A series of the data set, with its dims and coordinates.
        time: Its dimension of time.
        space: Its other dims; on a grid those of latitude and longitude, in this order.
        places: The coordinates lat and lon of a store, (lat,) and (lon,) on a grid, or
            else (cell,); NaN where they are not known.
    """

    template: xr.DataArray
    time: str
    space: tuple[str, ...]
    places: xr.Dataset

    @classmethod
    def of(cls, dataset: xr.Dataset, template: xr.DataArray, time: str) -> "Layout":
        """The layout of a data set.

        Args:
            dataset: Where the coordinates are.
            template: A series of it.
            time: Dimension of time.
        """
        space = tuple(dim for dim in template.dims if dim != time)
        axes = {name: axis_of(dataset, name) for name in ("lat", "lon")}
        dims = [axis.dims for axis in axes.values() if axis is not None]
        if len(space) == 2 and sorted(dims) == sorted((dim,) for dim in space):
            order = tuple(axis.dims[0] for axis in axes.values())
            coordinates = {name: (name, axis.values) for name, axis in axes.items()}
            return cls(template, time, order, xr.Dataset(coords=coordinates))
        layout = cls(template, time, space, xr.Dataset())
        coordinates = {
            name: ("cell", layout.of_cells(name, np.nan if axis is None else axis))
            for name, axis in axes.items()
        }
        if len(space) == 1:
            coordinates |= names_of_sites(dataset, space[0])
        return cls(template, time, space, xr.Dataset(coords=coordinates))

    @property
    def dims(self) -> tuple[str, ...]:
        """The dims of space of a store."""
        return ("lat", "lon") if "lat" in self.places.dims else ("cell",)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dims that the data set has."""
        return tuple(self.template.sizes[dim] for dim in self.space)

    def arranged(self, series: xr.DataArray) -> xr.DataArray:
        """A series on the dims of a store, without coordinates.

        Args:
            series: On all dims of the template, in any order.
        """
        bare = xr.DataArray(series.variable, name=series.name).transpose(
            self.time, *self.space
        )
        bare = bare.rename({self.time: "time"} if self.time != "time" else {})
        if not self.space:  # one site
            return bare.expand_dims("cell", axis=-1)
        if len(self.space) > len(self.dims):  # as of the members of an ensemble
            return bare.stack(cell=self.space, create_index=False)
        renamed = zip(self.space, self.dims, strict=True)
        return bare.rename({old: new for old, new in renamed if old != new})

    def restored(self, data: xr.DataArray) -> xr.DataArray:
        """An array on the dims and coordinates of the data set.

        Args:
            data: On the dims of a store, or without those of time or space.
        """
        leading = (self.time,) if "time" in data.dims else ()
        on_cells = set(self.dims) <= set(data.dims)
        dims = (*leading, *(self.space if on_cells else ()))
        sizes = [self.template.sizes[dim] for dim in dims]
        bare = xr.DataArray(
            data.values.reshape(sizes), dims=dims, name=data.name, attrs=data.attrs
        )
        order = (dim for dim in self.template.dims if dim in dims)
        coordinates = {
            name: coordinate
            for name, coordinate in self.template.coords.items()
            if set(coordinate.dims) <= set(dims)
        }
        return bare.transpose(*order).assign_coords(coordinates)

    def of_cells(self, name: str, values: object) -> np.ndarray:
        """A number of each cell (cells,), in the order of a store.

        Args:
            name: Of what it is, for messages.
            values: One number; an array of the data set's shape; or an array of
                xarray, which is brought to the data set's coordinates.

        Raises:
            UserError: They are no numbers, or on other dims.
        """
        try:
            array = np.asarray(values, "float64")
        except (TypeError, ValueError):
            raise UserError(
                f"static input '{name}' is '{np.asarray(values).ravel()[0]!s:.60}'. "
                "Expected a number, or an array of numbers."
            ) from None
        if isinstance(values, xr.DataArray):
            return self._on_cells(name, values.copy(data=array))
        order = tuple(dim for dim in self.template.dims if dim != self.time)
        shape = tuple(self.template.sizes[dim] for dim in order)
        if array.ndim and array.shape != shape:
            raise UserError(
                f"static input '{name}' has the shape {array.shape}. Expected one "
                f"number, or {shape}, as the cells have."
            )
        on_dims = xr.DataArray(np.broadcast_to(array, shape), dims=order)
        return on_dims.transpose(*self.space).values.ravel()

    def _on_cells(self, name: str, data: xr.DataArray) -> np.ndarray:
        single = [dim for dim in data.dims if dim not in self.space]
        data = data.squeeze([dim for dim in single if data.sizes[dim] == 1], drop=True)
        for dim in set(data.dims) & set(data.indexes) & set(self.template.indexes):
            wanted = self.template.indexes[dim]
            if not data.indexes[dim].equals(wanted):
                near = {}
                if np.issubdtype(wanted.dtype, np.number):
                    data, near = data.sortby(dim), {"method": "nearest"}
                    near["tolerance"] = NEAR
                data = data.reindex({dim: wanted}, **near)
        wrong = {
            dim: size
            for dim, size in data.sizes.items()
            if self.template.sizes.get(dim) != size or dim == self.time
        }
        if wrong:
            raise UserError(
                f"static input '{name}' has dims {_words(data.dims)} of sizes "
                f"{data.shape}. Expected {_words(self.space)} of sizes {self.shape}, "
                "as the weather has, or some of them."
            )
        whole = xr.Variable(self.space, np.zeros(self.shape)) + data.variable
        return whole.transpose(*self.space).values.ravel()


def _words(dims: object) -> str:
    return f"({', '.join(map(str, dims))})"

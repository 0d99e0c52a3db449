"""Space: the box that is cut out, and the coarser grid that it is brought to."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
import xarray_regrid  # noqa: F401  gives an array its `.regrid`

from h2mv_tf.errors import UserError

LEAST_SHARE = 0.5  # of a coarse cell that has to have values
WHOLE = 1e-3  # by which a ratio of resolutions may differ from an integer
IRREGULAR = 0.02  # by which the steps of a grid may differ from each other

Box = tuple[float, float, float, float]  # west, south, east, north


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """While values are computed: coarse cells without any are 0 / 0, as they should."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value encountered in divide")
        yield


class Cells(NamedTuple):
    """The cells that are wanted.

    Attributes:
        box: Only those with a centre within; None: all.
        resolution: Of the grid that they are averaged to [degrees]; None: as is.
    """

    box: Box | None = None
    resolution: float | None = None

    def cut(self, data: xr.DataArray) -> xr.DataArray:
        """The cells of the box.

        Args:
            data: (..., lat, lon) or (..., cell).

        Raises:
            UserError: There is none.
        """
        if self.box is None:
            return data
        west, south, east, north = self.box
        lat, lon = data["lat"].values, data["lon"].values
        inside = (lon >= west) & (lon <= east)
        if west > east:  # across the date line
            inside = (lon >= west) | (lon <= east)
        parallel = (lat >= south) & (lat <= north)
        if "cell" in data.dims:
            inside = parallel = inside & parallel
        if not (inside.any() and parallel.any()):
            raise UserError(
                f"there is no cell of '{data.name}' in the box {west:g},{south:g},"
                f"{east:g},{north:g} (west, south, east, north). Found lat "
                f"{lat.min():g} to {lat.max():g}, lon {lon.min():g} to {lon.max():g}."
            )
        if "cell" in data.dims:
            return data.isel(cell=inside)
        return data.isel(lat=parallel, lon=inside)

    def regridded(self, data: xr.DataArray) -> xr.DataArray:
        """The area-weighted means of coarser cells.

        Where less than half of a cell has values, it is missing.

        Args:
            data: (..., lat, lon).

        Raises:
            UserError: The data are at sites, or of a resolution that does not divide
                the one that is wanted.
        """
        if self.resolution is None:
            return data
        if "cell" in data.dims:
            raise UserError("--regrid needs a grid; found a list of sites.")
        target = {dim: self._centres(data, dim) for dim in ("lat", "lon")}
        # The library takes the only cell of an axis for all there is.
        padded = {
            dim: centres
            if len(centres) > 1
            else centres + np.array([0, self.resolution])
            for dim, centres in target.items()
        }
        means = data.regrid.conservative(
            xr.Dataset(coords=padded),
            latitude_coord="lat",
            nan_threshold=1 - LEAST_SHARE,
        )
        means = means.isel({dim: slice(len(of)) for dim, of in target.items()})
        means = means.sortby("lat", ascending=False)
        for dim in target:
            means[dim].attrs = data[dim].attrs
        return means.transpose(*data.dims)

    def _centres(self, data: xr.DataArray, dim: str) -> np.ndarray:
        """The coarser cells within the data, counted from south pole and date line."""
        size, origin = self._size(data, dim), {"lat": -90, "lon": -180}[dim]
        low, high = data[dim].values.min() - size / 2, data[dim].values.max() + size / 2
        if high - low > -2 * origin - size:  # from pole to pole, or around the globe
            low, high = origin, -origin
        first = np.ceil((low - origin - WHOLE * size) / self.resolution)
        last = np.floor((high - origin + WHOLE * size) / self.resolution)
        if last <= first:
            raise UserError(
                f"'{data.name}' has no whole cell of {self.resolution:g} degrees: its "
                f"{dim} is from {low:g} to {high:g}."
            )
        return origin + (np.arange(first, last) + 0.5) * self.resolution

    def _size(self, data: xr.DataArray, dim: str) -> float:
        """Size of the cells along a dim [degrees]."""
        values = data[dim].values.astype("float64")
        steps = np.abs(np.diff(values))
        if not len(steps) or np.ptp(steps) > IRREGULAR * steps.mean():
            raise UserError(
                f"--regrid needs a regular grid; {dim} of '{data.name}' is "
                f"{', '.join(f'{value:g}' for value in values[:4])}, ..."
            )
        size = float(steps.mean())
        ratio = self.resolution / size
        if ratio < 1 - WHOLE or abs(ratio - round(ratio)) > WHOLE * round(ratio):
            raise UserError(
                f"--regrid {self.resolution:g} is no whole multiple of the resolution "
                f"of '{data.name}', {size:g} degrees of {dim}."
            )
        return size

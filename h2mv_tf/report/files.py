"""Files of a folder, each of which may be there or not."""

from pathlib import Path

import xarray as xr

from h2mv_tf.documents import parsed_json
from h2mv_tf.errors import UserError, shown, words

PREDICTIONS, ENSEMBLE, SAMPLES = "predictions", "ensemble", "samples"  # no suffix
SUFFIXES = (".zarr", ".nc")


def simulated(folder: Path, name: str) -> Path:
    """Predictions in whichever format they are; the path of a Zarr store if in none."""
    known = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((file for file in known if file.exists()), known[0])


def scores(predictions: Path) -> Path:
    """The scores of predictions."""
    return evaluation(predictions) / "scores.nc"


def probabilistic(*predictions: Path) -> Path:
    """The scores of samples: of the first predictions that have any."""
    known = [evaluation(file) / "probabilistic.nc" for file in predictions]
    return next((file for file in known if file.exists()), known[0])


def evaluation(predictions: Path) -> Path:
    """The folder of the evaluation of predictions."""
    return predictions.with_suffix(".evaluation")


def dataset(file: Path) -> xr.Dataset:
    """A NetCDF file, to be closed; an empty data set where there is none.

    Raises:
        UserError: It cannot be read.
    """
    if not file.exists():
        return xr.Dataset()
    try:
        return xr.open_dataset(file)
    except Exception as error:  # the readers raise what they like
        raise UserError(
            f"'{file}' is not NetCDF. Remove it, and make it again with the command "
            "that made it."
        ) from error


def mapping(file: Path) -> dict:
    """What is in a JSON file; nothing where there is none.

    Raises:
        UserError: It cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        found = parsed_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"'{file}' is not JSON: {words(error)}.") from error
    if not isinstance(found, dict):
        raise UserError(f"'{file}' holds {shown(found)}. Expected names and values.")
    return found

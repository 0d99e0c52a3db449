"""Export: the SavedModel, which runs without this package."""

from pathlib import Path

import keras
import tensorflow as tf

from h2mv_tf.model import H2MV
from h2mv_tf.variables import FORCING


def export(model: H2MV, path: str | Path) -> None:
    """Writes a SavedModel that takes raw series and gives every output.

    Its default signature takes `forcing` (cells, days, 3), net radiation in
    W m-2, precipitation in mm d-1 and air temperature in K, and `static` (cells,
    static inputs), for any number of cells and days; it spins up on the given
    series and returns all variables of the registry by name.

    Args:
        model: The trained model.
        path: Folder to write.
    """
    dtype = model.compute_dtype
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        lambda forcing, static: model({"forcing": forcing, "static": static}),
        input_signature=[
            tf.TensorSpec((None, None, len(FORCING)), dtype, name="forcing"),
            tf.TensorSpec((None, model.static_size), dtype, name="static"),
        ],
    )
    archive.write_out(str(path), verbose=False)

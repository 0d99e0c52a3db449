"""H2MV in TensorFlow: a hybrid model of the land water cycle.

    import h2mv_tf
    model = h2mv_tf.load("saved_models/demo")
    results = model.simulate(weather)  # xarray in, xarray out

Baghirov et al. (2025), Geosci. Model Dev. 18, 2921-2943,
doi 10.5194/gmd-18-2921-2025.
"""

import importlib
from pathlib import Path

from h2mv_tf.errors import UserError

__all__ = ["UserError", "load"]
__version__ = "0.1.0"


def load(path: str | Path) -> "LoadedModel":  # noqa: F821  which needs TensorFlow
    """The trained model at a path, ready to simulate xarray data sets.

    Args:
        path: A run folder, as `runs/first`; a SavedModel, as `saved_models/demo/1`; or
            a folder with versions of it, as `saved_models/demo`.

    Returns:
        A `LoadedModel`, with the methods `simulate`, `advance` and `spin_up`.

    Raises:
        UserError: There is no model, or one that this version cannot read.

    Example:
        >>> model = h2mv_tf.load("saved_models/demo")
        >>> model.simulate(weather).runoff.plot()
    """
    importlib.import_module("h2mv_tf.startup").import_tensorflow()
    return importlib.import_module("h2mv_tf.library").load(path)

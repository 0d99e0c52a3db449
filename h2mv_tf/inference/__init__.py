"""Inference: a trained model and a store become predictions, block by block.

    predict(Trained.of(RunFolder(Path("runs/first"))), store, "out.zarr")

Blocks of cells with all their days are read, spun up, simulated and written; each
device of the machine works on blocks of its own, so that memory does not depend on
the number of cells. The water balance of every cell and day is checked on the way,
and inputs beyond what the training has seen are counted.
"""

from h2mv_tf.inference.flow import predict, untrained
from h2mv_tf.inference.job import asked_for
from h2mv_tf.inference.outcome import Outcome
from h2mv_tf.inference.samples import Sampling

__all__ = ["Outcome", "Sampling", "asked_for", "predict", "untrained"]

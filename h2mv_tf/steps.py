"""Steps: one update of the weights, and one evaluation.

Everything between a batch and the numbers it gives, compiled where that is asked
for, on whichever devices the strategy has.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from h2mv_tf.data.pipeline import Stream
from h2mv_tf.model import H2MV
from h2mv_tf.objective import Objective, Term, mean_terms

RESIDUAL = "water_balance_residual"


class Evaluation(NamedTuple):
    """How a model does on some cells."""

    loss: float  # sum of the terms
    terms: dict[str, float]  # mean over cells of each constraint
    windows: dict[str, int]  # those with an observation
    residual: float  # largest water balance residual [mm d-1]


class Trainer:
    """Steps of training and evaluation of a model.

    Args:
        model: The model.
        objective: What it is held against.
        optimizer: Keras optimizer; None to evaluate only.
        jit_compile: Compile the steps with XLA.
    """

    def __init__(
        self,
        model: H2MV,
        objective: Objective,
        optimizer: keras.optimizers.Optimizer | None = None,
        *,
        jit_compile: bool = True,
    ):
        self.model, self.objective, self.optimizer = model, objective, optimizer
        compiled = {"jit_compile": jit_compile, "autograph": False}
        self._gradients = tf.function(self._gradients, **compiled)
        self._errors = tf.function(self._errors, **compiled)

    @tf.function(autograph=False)
    def step(self, batch: Mapping) -> dict[str, Term]:
        """One update of the weights, on all devices of the strategy.

        Args:
            batch: Of `Stream`.

        Returns:
            The terms of the objective, before the update.
        """
        strategy = tf.distribute.get_strategy()
        terms = strategy.run(self._update, (batch,))
        return {
            name: Term(*(strategy.reduce("SUM", part, axis=None) for part in term))
            for name, term in terms.items()
        }

    def evaluate(self, stream: Stream) -> Evaluation:
        """The objective on all windows of a stream.

        Args:
            stream: Without a seed, so that every window comes.
        """
        totals, residual = Totals(self.objective.names), 0.0
        for batch in stream.batches():
            terms, largest = self._errors(batch)
            totals.add(terms)
            residual = max(residual, float(largest))
        means = totals.means()
        return Evaluation(sum(means.values()), means, totals.cells, residual)

    def _update(self, batch):
        cells = self.objective.counts(batch["targets"], batch["month"])
        # A mean needs the cells of all devices, and XLA cannot compile their sum:
        # counts first, then one compiled piece.
        replicas = tf.distribute.get_replica_context()
        cells = {name: replicas.all_reduce("SUM", n) for name, n in cells.items()}
        terms, gradients = self._gradients(batch, cells)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return terms

    def _gradients(self, batch, cells):
        with tf.GradientTape() as tape:
            predictions = self.model(_inputs(batch), outputs=self.objective.names)
            terms = self.objective.terms(predictions, batch["targets"], batch["month"])
            of_all = {k: Term(term.total, cells[k]) for k, term in terms.items()}
            loss = tf.add_n(list(mean_terms(of_all).values()))
        return terms, tape.gradient(loss, self.model.trainable_variables)

    def _errors(self, batch):
        outputs = (*self.objective.names, RESIDUAL)
        predictions = self.model(_inputs(batch), outputs=outputs)
        terms = self.objective.terms(predictions, batch["targets"], batch["month"])
        residual = tf.reduce_max(tf.abs(predictions[RESIDUAL]), axis=1)
        return terms, tf.reduce_max(residual * batch["weight"])


class Totals:
    """Terms added up over batches.

    Args:
        names: Of the constraints.
    """

    def __init__(self, names: Sequence[str]):
        self.sums = dict.fromkeys(names, 0.0)
        self.cells = dict.fromkeys(names, 0)

    def add(self, terms: Mapping[str, Term]) -> None:
        """Adds the terms of a batch."""
        for name, term in terms.items():
            self.sums[name] += float(term.total)
            self.cells[name] += int(term.cells)

    def means(self) -> dict[str, float]:
        """The mean over cells of each term; 0 where no cell has an observation."""
        return {k: v / max(self.cells[k], 1) for k, v in self.sums.items()}


def _inputs(batch: Mapping) -> dict[str, tf.Tensor]:
    """What the model reads of a batch."""
    return {
        name: batch[name]
        for name in ("forcing", "static", "spin_up_forcing")
        if name in batch
    }

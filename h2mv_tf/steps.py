"""Steps: one update of the weights, and one evaluation.

Everything between a batch and the numbers it gives, compiled where that is asked
for, on whichever devices the strategy has.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from h2mv_tf import distribution
from h2mv_tf.data.pipeline import Stream
from h2mv_tf.model import H2MV, folded
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
        optimizer: Keras optimizer, which does not clip; None to evaluate only.
        strategy: What model and optimizer were made under; TensorFlow's default
            strategy by default.
        clip_value: Bound of each gradient; none by default.
        memory: Bytes that the days may keep for the way back on each device.
        jit_compile: Compile the steps with XLA.
        seed: Of what dropout leaves out.
    """

    def __init__(
        self,
        model: H2MV,
        objective: Objective,
        optimizer: keras.optimizers.Optimizer | None = None,
        *,
        strategy: tf.distribute.Strategy | None = None,
        clip_value: float = math.inf,
        memory: float | None = None,
        jit_compile: bool = True,
        seed: int = 0,
    ):
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.strategy = strategy or tf.distribute.get_strategy()
        self.clip_value, self.memory, self.seed = clip_value, memory, seed
        compiled = {"jit_compile": jit_compile, "autograph": False}
        self._gradients = tf.function(self._gradients, **compiled)
        self._errors = tf.function(self._errors, **compiled)
        self._update = self._everywhere(self._update)
        self._compare = self._everywhere(self._compare)

    def step(self, batch: Mapping) -> dict[str, Term]:
        """One update of the weights, on all devices of the strategy.

        Args:
            batch: Of `Stream`.

        Returns:
            The terms of the objective over all devices, before the update.
        """
        return self._update(distribution.dealt(batch, self.strategy))

    def evaluate(self, stream: Stream) -> Evaluation:
        """The objective on all windows of a stream.

        Args:
            stream: Without a seed, so that every window comes.
        """
        totals, residual = Totals(self.objective.names), 0.0
        for batch in stream.batches():
            batch = distribution.dealt(batch, self.strategy)
            terms, largest = self._compare(batch)
            totals.add(terms)
            residual = max(residual, float(tf.reduce_max(largest)))
        means = totals.means()
        return Evaluation(sum(means.values()), means, totals.cells, residual)

    def _everywhere(self, part: Callable) -> Callable:
        """Runs a part of a step on all devices; each of them returns the same."""

        @tf.function(autograph=False)
        def run(batch):
            result = self.strategy.run(part, (batch,))
            return tf.nest.map_structure(
                lambda value: self.strategy.experimental_local_results(value)[0],
                result,
            )

        return run

    def _update(self, batch):
        replicas = tf.distribute.get_replica_context()
        # A mean needs the cells of all devices, and XLA cannot compile their sum:
        # counts first, then one compiled piece.
        cells = self.objective.counts(batch["targets"], batch["month"])
        cells = replicas.all_reduce("SUM", cells)
        terms, gradients = self._gradients(batch, cells, self._seed_of_step(replicas))
        terms, gradients = replicas.all_reduce("SUM", (terms, gradients))
        # Keras would clip first and add up then; what it adds up again is shared out.
        gradients = [
            tf.clip_by_value(gradient, -self.clip_value, self.clip_value)
            / replicas.num_replicas_in_sync
            for gradient in gradients
        ]
        self.optimizer.apply(gradients, self.model.trainable_variables)
        return terms

    def _seed_of_step(self, replicas: tf.distribute.ReplicaContext):
        """The seed of dropout for this step and device; None where it drops nothing.

        A checkpoint keeps the optimizer's count of steps: a training that is resumed
        drops what it would have dropped.
        """
        if not self.model.dropout:
            return None
        seed = tf.stack([self.seed, tf.cast(self.optimizer.iterations, "int64")])
        return folded(seed, replicas.replica_id_in_sync_group)

    def _gradients(self, batch, cells, seed):
        with tf.GradientTape() as tape:
            predictions = self.model(
                _inputs(batch),
                outputs=self.objective.names,
                training=True,
                memory=self.memory,
                seed=seed,
            )
            terms = self.objective.terms(predictions, batch["targets"], batch["month"])
            of_all = {k: Term(term.total, cells[k]) for k, term in terms.items()}
            loss = tf.add_n(list(mean_terms(of_all).values()))
        return terms, tape.gradient(loss, self.model.trainable_variables)

    def _compare(self, batch):
        replicas = tf.distribute.get_replica_context()
        terms, largest = self._errors(batch)
        return replicas.all_reduce("SUM", terms), replicas.all_gather(largest, axis=0)

    def _errors(self, batch):
        outputs = (*self.objective.names, RESIDUAL)
        predictions = self.model(_inputs(batch), outputs=outputs)
        terms = self.objective.terms(predictions, batch["targets"], batch["month"])
        residual = tf.reduce_max(tf.abs(predictions[RESIDUAL]), axis=1)
        return terms, tf.reduce_max(residual * batch["weight"], keepdims=True)


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

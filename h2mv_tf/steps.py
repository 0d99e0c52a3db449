"""Steps: one update of the weights, and one evaluation.

Everything between a batch and the numbers it gives, compiled where that is asked
for, on whichever devices the strategy has.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from h2mv_tf import distribution
from h2mv_tf.data.pipeline import Stream
from h2mv_tf.model import H2MV, folded
from h2mv_tf.objective import Objective, Term, mean_terms

if TYPE_CHECKING:  # it imports tensorflow-probability, which takes a second
    from h2mv_tf.penalties import Penalties

RESIDUAL = "water_balance_residual"
# Factors between the errors at training cells and at others, in steps of 5 %.
INFLATIONS = np.geomspace(0.5, 10, 62)
DRAWS = 8  # from a posterior, of which validation cells are predicted together


class Evaluation(NamedTuple):
    """How a model does on some cells."""

    loss: float  # sum of the constraints' terms
    terms: dict[str, float]  # the mean of each
    counts: dict[str, int]  # of what each is a mean over
    residual: float  # largest water balance residual [mm d-1]


class Differentiated(NamedTuple):
    """What a batch gives to learn from, over all devices."""

    terms: dict[str, Term]  # of the objective
    gradients: list[tf.Tensor]  # of the trainable weights, not yet clipped
    finite: tf.Tensor  # whether all of them are


class NotFiniteError(ArithmeticError):
    """A batch whose objective or gradients are not finite.

    Attributes:
        batch: Of `Stream`.
        terms: Of the objective.
        gradients: Of the trainable weights; none in an evaluation.
        number: Of the batch in its stream; None in a step, which does not know it.
    """

    def __init__(
        self,
        batch: Mapping,
        terms: Mapping[str, Term],
        gradients: Sequence[tf.Tensor] = (),
        number: int | None = None,
    ):
        super().__init__("a term of the objective or a gradient is not finite")
        self.batch, self.terms, self.gradients = batch, terms, gradients
        self.number = number


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
        seed: Of what dropout leaves out, and of what is drawn from a posterior.
        penalties: What is added to the objective.
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
        penalties: "Penalties | None" = None,
    ):
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.penalties = penalties
        self.weights = objective.weights()
        if penalties is not None:
            self.weights |= penalties.weights()
        self.strategy = strategy or tf.distribute.get_strategy()
        self.clip_value, self.memory, self.seed = clip_value, memory, seed
        compiled = {"jit_compile": jit_compile, "autograph": False}
        self._gradients = tf.function(self._gradients, **compiled)
        self._errors = tf.function(self._errors, **compiled)
        self._inflated = tf.function(self._inflated, **compiled)
        self._differentiate = self._everywhere(self._differentiate)
        self._update = self._everywhere(self._update)
        self._compare = self._everywhere(self._compare)
        self._inflate = self._everywhere(self._inflate)

    def step(self, batch: Mapping, warmth: float = 1.0) -> dict[str, Term]:
        """One update of the weights, on all devices of the strategy.

        Args:
            batch: Of `Stream`.
            warmth: How far constraints count by their observations instead of alike,
                and the penalties at all.

        Returns:
            The terms of the objective over all devices, before the update.

        Raises:
            NotFiniteError: A term or a gradient is not finite; nothing was updated.
        """
        terms, gradients, finite = self.differentiate(batch, warmth)
        if not finite:
            raise NotFiniteError(batch, terms, gradients)
        self._update(gradients)
        return terms

    def differentiate(self, batch: Mapping, warmth: float = 1.0) -> Differentiated:
        """What a step is made of, without the update.

        Args:
            batch: As of `step`.
            warmth: As of `step`.
        """
        warmth = tf.constant(warmth, self.model.compute_dtype)
        batch = distribution.dealt(batch, self.strategy)
        return Differentiated(*self._differentiate(batch, warmth))

    def evaluate(
        self, stream: Stream, after_batch: Callable[[], None] = lambda: None
    ) -> Evaluation:
        """The objective on all windows of a stream.

        Args:
            stream: Without a seed, so that every window comes.
            after_batch: Called after each batch.

        Raises:
            NotFiniteError: A term is not finite.
        """
        totals, residual = Totals(self.objective.names), 0.0
        for number, batch in enumerate(stream.batches()):
            terms, largest = self.compare(batch, number)
            if not _finite([term.total for term in terms.values()]):
                raise NotFiniteError(batch, terms, number=number)
            totals.add(terms)
            residual = max(residual, largest)
            after_batch()
        return Evaluation(totals.loss, totals.means(), totals.counts, residual)

    def compare(self, batch: Mapping, number: int) -> tuple[dict[str, Term], float]:
        """The terms of a batch that is evaluated, and its largest residual [mm d-1].

        Args:
            batch: As of `step`.
            number: Of the batch in its stream.
        """
        batch = distribution.dealt(batch, self.strategy)
        terms, largest = self._compare(batch, _evaluated(number))
        return terms, float(tf.reduce_max(largest))

    def parts(self, batch: Mapping, number: int | None = None) -> list["Part"]:
        """A batch as each device of this process has it.

        Args:
            batch: As of `step`.
            number: As of `compare`; None in a step.
        """
        devices = distribution.local_devices(self.strategy)
        size = len(batch["weight"]) // devices
        step = self.optimizer.iterations if number is None else _evaluated(number)
        found = []
        for n in range(devices):
            rows = slice(n * size, (n + 1) * size)
            part = tf.nest.map_structure(lambda values, rows=rows: values[rows], batch)
            seed = self._seed(distribution.worker().index * devices + n, step)
            found.append(Part(rows.start, part, seed, dropping=number is None))
        return found

    def gradients(self, part: "Part", counts: Mapping, warmth: float) -> list:
        """What a device finds for the weights, before the devices add it up.

        Args:
            part: Of `parts`.
            counts: Of each term, over all devices.
            warmth: As of `step`.
        """
        share = 1 / self.strategy.num_replicas_in_sync
        warmth = tf.constant(warmth, self.model.compute_dtype)
        return self._gradients(part.batch, counts, part.seed, warmth, share)[1]

    def weather_gradient(self, part: "Part", counts: Mapping, warmth: float):
        """The gradient of a device's loss to the weather (windows, days, 3).

        Args:
            part: As of `gradients`.
            counts: As of `gradients`.
            warmth: As of `gradients`.
        """

        @tf.function(autograph=False)
        def gradient():
            forcing = tf.identity(part.batch["forcing"])
            with tf.GradientTape() as tape:
                tape.watch(forcing)
                _, loss = self._loss(
                    {**part.batch, "forcing": forcing},
                    counts,
                    part.seed,
                    tf.constant(warmth, self.model.compute_dtype),
                    1 / self.strategy.num_replicas_in_sync,
                )
            return tape.gradient(loss, forcing, unconnected_gradients="zero")

        return gradient()

    def terms(self, batch: Mapping, predictions: Mapping, drawn, seed):
        """The terms of a device.

        Args:
            batch: Of a `Part`.
            predictions: Of the model.
            drawn: Of `drawn`.
            seed: Of the `Part`.
        """
        share = 1 / self.strategy.num_replicas_in_sync
        return self._terms(batch, predictions, drawn, share, seed)

    def drawn(self, part: "Part"):
        """The draws of the parameters that a device works with; None: it has none.

        Args:
            part: Of `parts`.
        """
        dropping = part.seed if part.dropping else None
        return self._drawn(part.batch, part.seed, dropping)

    def calibrate(self, stream: Stream) -> None:
        """Sets how much larger errors are at cells that no training has seen.

        Of the factors `INFLATIONS` on the learned deviation of a constraint it is the
        one by which each observation is most probable, predicted by all draws: what
        the posterior tells already is not counted again.

        Args:
            stream: Validation windows, without a seed.
        """
        totals = np.zeros((len(INFLATIONS), len(self.objective.names)))
        for number, batch in enumerate(stream.batches()):
            batch = distribution.dealt(batch, self.strategy)
            totals += self._inflate(batch, _evaluated(number)).numpy()
        # Where validation cells have no observation, all factors do alike.
        observed = np.ptp(totals, axis=0) > 0
        chosen = np.where(observed, INFLATIONS[totals.argmin(axis=0)], 1.0)
        self.model.observation_noise.inflation.assign(chosen)

    def _everywhere(self, part: Callable) -> Callable:
        """Runs a part of a step on all devices; each of them returns the same."""

        @tf.function(autograph=False)
        def run(*arguments):
            result = self.strategy.run(part, arguments)
            return tf.nest.map_structure(
                lambda value: self.strategy.experimental_local_results(value)[0],
                result,
            )

        return run

    def _differentiate(self, batch, warmth):
        replicas = tf.distribute.get_replica_context()
        # A mean needs the cells of all devices, and XLA cannot compile their sum:
        # counts first, then one compiled piece.
        counts = self.objective.counts(batch["targets"], batch["month"])
        if self.penalties is not None:
            counts |= self.penalties.counts(batch["weight"], _share(replicas))
        counts = replicas.all_reduce("SUM", counts)
        device = replicas.replica_id_in_sync_group
        seed = self._seed(device, self.optimizer.iterations)
        terms, gradients = self._gradients(
            batch, counts, seed, warmth, _share(replicas)
        )
        terms, gradients = replicas.all_reduce("SUM", (terms, gradients))
        # Before they are clipped, which would make an infinite one look like any other.
        totals = [term.total for term in terms.values()]
        return terms, gradients, _finite([*totals, *gradients])

    def _update(self, gradients):
        replicas = tf.distribute.get_replica_context()
        # Keras would clip first and add up then; what it adds up again is shared out.
        gradients = [
            tf.clip_by_value(gradient, -self.clip_value, self.clip_value)
            / replicas.num_replicas_in_sync
            for gradient in gradients
        ]
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def _seed(self, device, step):
        """The seed of a step on a device; None where nothing is random.

        A checkpoint keeps the optimizer's count of steps: a training that is resumed
        drops and draws what it would have.
        """
        if not (self.model.dropout or self.model.variational):
            return None
        seed = tf.stack([self.seed, tf.cast(step, "int64")])
        return folded(seed, device)

    def _gradients(self, batch, counts, seed, warmth, share: float):
        with tf.GradientTape() as tape:
            terms, loss = self._loss(batch, counts, seed, warmth, share)
        weights = self.model.trainable_variables
        gradients = tape.gradient(loss, weights)
        # What the objective leaves out, as persistence without autocorrelation, rests.
        return terms, [
            tf.zeros(weight.shape, weight.dtype) if gradient is None else gradient
            for weight, gradient in zip(weights, gradients, strict=True)
        ]

    def _loss(self, batch, counts, seed, warmth, share: float):
        """The terms of a device, and their weighted sum."""
        drawn = self._drawn(batch, seed, dropping=seed)
        predictions = self.model(
            inputs_of(batch),
            outputs=self.objective.names,
            training=True,
            memory=self.memory,
            seed=seed,
            drawn=drawn,
        )
        terms = self._terms(batch, predictions, drawn, share, seed)
        means = mean_terms(
            {k: Term(term.total, counts[k]) for k, term in terms.items()}
        )
        loss = tf.zeros((), self.model.compute_dtype)
        shares = self.objective.shares(self.model.noise())
        for name, mean in means.items():
            weight = warmth * self.weights[name]
            if name in shares:
                weight = 1 - warmth + weight * shares[name]
            loss += weight * mean
        return terms, loss

    def _drawn(self, batch, seed, dropping=None, draws: int = 1):
        """Draws of the parameters, where they have distributions."""
        if not self.model.variational:
            return None
        cells = batch["static"].shape[0] // draws
        normals = self.model.normals(cells, seed, draws)
        return self.model.draw(batch["static"], normals, seed=dropping)

    def _terms(self, batch, predictions, drawn, share: float, seed=None):
        """All terms of the objective on a device."""
        terms = self.objective.terms(
            predictions, batch["targets"], batch["month"], self.model.noise()
        )
        if self.penalties is not None:
            terms |= self.penalties.terms(
                self.model, batch["static"], batch["weight"], drawn, share, seed
            )
        return terms

    def _compare(self, batch, step):
        replicas = tf.distribute.get_replica_context()
        seed = self._seed(replicas.replica_id_in_sync_group, step)
        terms, largest = self._errors(batch, seed, _share(replicas))
        return replicas.all_reduce("SUM", terms), replicas.all_gather(largest, axis=0)

    def _inflate(self, batch, step):
        """Each constraint's negative log-likelihood, by factor (factors, names)."""
        replicas = tf.distribute.get_replica_context()
        seed = self._seed(replicas.replica_id_in_sync_group, step)
        return replicas.all_reduce("SUM", self._inflated(batch, seed))

    def _inflated(self, batch, seed):
        draws = DRAWS if self.model.variational else 1
        batch = tf.nest.map_structure(
            lambda part: tf.tile(part, [draws] + [1] * (part.shape.rank - 1)), batch
        )
        drawn = self._drawn(batch, seed, draws=draws)
        predictions = self.model(
            inputs_of(batch), outputs=self.objective.names, drawn=drawn
        )
        noise = self.model.noise()
        pairs = {
            constraint: self.objective.pairs(
                constraint,
                predictions[constraint.name],
                batch["targets"],
                batch["month"],
            )
            for constraint in self.objective.constraints
        }

        def totals(factor):
            found = []
            for constraint, of_draws in pairs.items():
                learned = noise[constraint.name]
                inflated = learned._replace(deviation=learned.deviation * factor)
                density = self.objective.log_densities(constraint, of_draws, inflated)
                density = tf.reshape(density, [draws, -1])
                found.append(
                    tf.reduce_sum(math.log(draws) - tf.reduce_logsumexp(density, 0))
                )
            return tf.stack(found)

        factors = tf.constant(INFLATIONS, self.model.compute_dtype)
        return tf.map_fn(totals, factors)

    def _errors(self, batch, seed, share: float):
        outputs = (*self.objective.names, RESIDUAL)
        drawn = self._drawn(batch, seed)
        predictions = self.model(inputs_of(batch), outputs=outputs, drawn=drawn)
        terms = self._terms(batch, predictions, drawn, share)
        residual = tf.reduce_max(tf.abs(predictions[RESIDUAL]), axis=1)
        return terms, tf.reduce_max(residual * batch["weight"], keepdims=True)


class Part(NamedTuple):
    """What one device has of a batch."""

    first: int  # row of the batch
    batch: Mapping
    seed: tf.Tensor | None
    dropping: bool  # whether dropout leaves anything out


class Totals:
    """Terms added up over batches.

    Args:
        names: Of the constraints, whose terms make the loss.
        sums: To go on from; nothing by default.
        counts: To go on from; nothing by default.
    """

    def __init__(
        self,
        names: Sequence[str],
        sums: Mapping[str, float] | None = None,
        counts: Mapping[str, int] | None = None,
    ):
        self.names = tuple(names)
        self.sums: dict[str, float] = dict.fromkeys(names, 0.0) | dict(sums or {})
        self.counts: dict[str, int] = dict.fromkeys(names, 0) | dict(counts or {})

    def add(self, terms: Mapping[str, Term]) -> None:
        """Adds the terms of a batch."""
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(term.total)
            self.counts[name] = self.counts.get(name, 0) + round(float(term.count))

    def means(self) -> dict[str, float]:
        """The mean of each term; 0 where nothing is observed."""
        return {k: v / max(self.counts[k], 1) for k, v in self.sums.items()}

    @property
    def loss(self) -> float:
        """The sum of the constraints' means."""
        means = self.means()
        return sum(means[name] for name in self.names)


def _evaluated(number: int):
    """In place of a step, for the seed of what is drawn for a batch that is evaluated.

    Args:
        number: Of the batch.
    """
    return tf.constant(-1 - number, "int64")


def _finite(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether all numbers are finite."""
    each = [tf.reduce_all(tf.math.is_finite(tensor)) for tensor in tensors]
    return tf.reduce_all(tf.stack(each))


def _share(replicas: tf.distribute.ReplicaContext) -> float:
    """Of this device in what all of them compute alike."""
    return 1 / replicas.num_replicas_in_sync


def inputs_of(batch: Mapping) -> dict[str, tf.Tensor]:
    """What the model reads of a batch."""
    return {
        name: batch[name]
        for name in ("forcing", "static", "spin_up_forcing")
        if name in batch
    }

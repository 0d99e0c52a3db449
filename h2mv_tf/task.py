"""What a training consists of: streams of windows, an objective, devices.

task = prepare(config.load("trainers/configs/h2mv.yaml"))
"""

from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from h2mv_tf import distribution
from h2mv_tf.config import Config
from h2mv_tf.data import pipeline
from h2mv_tf.data.store import Store
from h2mv_tf.data.survey import Moments, Statistics
from h2mv_tf.errors import UserError
from h2mv_tf.inputs import Inputs
from h2mv_tf.inputs import prepare as prepared
from h2mv_tf.model import H2MV
from h2mv_tf.objective import Constraint, Objective
from h2mv_tf.steps import Trainer
from h2mv_tf.untrained import untrained_model
from h2mv_tf.variables import VARIABLES

if TYPE_CHECKING:
    from h2mv_tf.penalties import Penalties

EPSILON = 1e-8  # of AdamW, as in the published optimizer; Keras' default is 1e-7


class Evidence(NamedTuple):
    """What an objective has to know of the training cells."""

    moments: dict[str, Moments]  # of each constraint
    daily: dict[str, bool]  # whether its observations are; monthly otherwise
    observations: dict[str, int]  # of each constraint, as they are compared
    cells: int

    @classmethod
    def of(cls, inputs: Inputs) -> "Evidence":
        """That of a training's inputs."""
        cells, moments = inputs.split.train, inputs.statistics.constraints
        daily = {name: inputs.survey.record.daily[name] for name in moments}
        observations = {}
        for name in moments:
            found = inputs.survey.series[name]
            by_day = daily[name] and VARIABLES[name].cadence == "daily"
            counts = found.count if by_day else found.months
            observations[name] = max(int(counts[cells].sum()), 1)
        return cls(dict(moments), daily, observations, len(cells))


class Task(NamedTuple):
    """What is trained on, and what it is held against."""

    inputs: Inputs
    evidence: Evidence
    strategy: tf.distribute.Strategy
    objective: Objective
    penalties: "Penalties | None"
    train: pipeline.Stream
    validation: pipeline.Stream
    test: pipeline.Stream


def prepare(config: Config) -> Task:
    """Reads and checks all that a training needs.

    Args:
        config: The configuration.

    Raises:
        UserError: The store cannot be trained with.
    """
    inputs = prepared(config)
    evidence = Evidence.of(inputs)
    objective, penalties = objective_of(config, evidence, inputs.survey.store)
    # All streams share one batch size, so that one program serves them all.
    windows = inputs.windows.plan(inputs.split.train, inputs.survey.observed)
    batch_size = min(config.training.batch_size, len(windows.cell))
    worker = distribution.worker()
    if config.training.batch_size % worker.count:
        raise UserError(
            f"training.batch_size is {config.training.batch_size}, which "
            f"{worker.count} workers cannot share. Choose a multiple of "
            f"{worker.count}."
        )
    strategy = distribution.strategy(config.distribution.devices, batch_size)

    def stream(cells: np.ndarray, seed: int | None = None) -> pipeline.Stream:
        return pipeline.Stream(
            inputs.source,
            inputs.survey.record,
            cells,
            inputs.windows,
            batch_size=-(-batch_size // worker.count),
            multiple=distribution.local_devices(strategy),
            dtype=config.training.precision,
            seed=seed,
            shard=worker,
        )

    return Task(
        inputs=inputs,
        evidence=evidence,
        strategy=strategy,
        objective=objective,
        penalties=penalties,
        train=stream(inputs.split.train, config.training.seed),
        validation=stream(inputs.split.validation),
        test=stream(inputs.split.test),
    )


def objective_of(
    config: Config, evidence: Evidence, store: Store | None = None
) -> tuple[Objective, "Penalties | None"]:
    """What a model is held against, and what priors add to it.

    Args:
        config: The configuration.
        evidence: Of the training cells.
        store: Whose static inputs a prior may depend on; that of the configuration
            by default.

    Raises:
        UserError: A prior does not fit the store.
    """
    settings = config.objective
    constraints = [
        Constraint(name=name, mean=mean, std=std, daily=evidence.daily[name])
        for name, (mean, std) in evidence.moments.items()
    ]
    common = {
        "anomaly_reference": settings.anomaly_reference,
        "saturation": settings.saturation,
    }
    if settings.likelihood == "mse":
        return Objective(constraints, **common), None
    # They import tensorflow-probability, which takes a second.
    from h2mv_tf.likelihood import Likelihood
    from h2mv_tf.penalties import Penalties
    from h2mv_tf.priors import Priors

    objective = Likelihood(
        constraints,
        settings.likelihood,
        observations=evidence.observations,
        degrees_of_freedom=settings.degrees_of_freedom,
        autocorrelation=settings.autocorrelation,
        **common,
    )
    uncertainty = config.uncertainty
    penalties = Penalties(
        Priors(config, store or Store.open(config.data.store, config.data.groups)),
        variational=uncertainty.posterior == "variational",
        last_layer=uncertainty.last_layer,
        cells=evidence.cells,
        scale=objective.scale,
    )
    return objective, penalties


def trainer_of(
    config: Config,
    statistics: Statistics,
    objective: Objective,
    penalties: "Penalties | None",
    strategy: tf.distribute.Strategy,
) -> Trainer:
    """What takes the steps of a training, with an untrained model.

    Args:
        config: The configuration.
        statistics: Of the training cells.
        objective: What the model is held against.
        penalties: What is added to it.
        strategy: Of the devices.
    """
    settings = config.training
    with strategy.scope():
        model = untrained_model(config, statistics)
        optimizer = keras.optimizers.AdamW(
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            epsilon=EPSILON,
        )
        # Callbacks and checkpoints find the optimizer on the model.
        model.compile(optimizer=optimizer, jit_compile=False)
        if model.observed:
            optimizer.exclude_from_weight_decay(var_list=_held(model))
        optimizer.build(model.trainable_variables)
    return Trainer(
        model,
        objective,
        model.optimizer,
        strategy=strategy,
        clip_value=settings.clip_value,
        memory=settings.memory * 1e6,
        jit_compile=settings.jit_compile,
        seed=settings.seed,
        penalties=penalties,
    )


def _held(model: H2MV) -> list[keras.Variable]:
    """Weights that observations or priors hold, which no decay is to pull to 0."""
    held = [*model.observation_noise.weights]
    held += [model.cell.snowfall_correction, model.cell.baseflow_fraction]
    if model.variational:
        held += [*model.posterior.trainable_weights]
        held += [part for part in model.uncertain if all(part is not h for h in held)]
    return held

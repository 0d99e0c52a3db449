"""Samples: the parameters of each, drawn before anything is simulated.

A sample is of one member of an ensemble, and where that has a posterior, a draw from
it. Which one it is depends on the seed, the number of the sample and the cells of the
store; not on blocks, devices or how many are simulated together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from h2mv_tf import config
from h2mv_tf.cell import Head
from h2mv_tf.data.splits import TEST
from h2mv_tf.data.store import Store
from h2mv_tf.errors import UserError
from h2mv_tf.model import H2MV, Drawn
from h2mv_tf.posterior import Normals
from h2mv_tf.trained import Trained
from h2mv_tf.variables import names


class Sampling(NamedTuple):
    """Which samples are simulated, and what is written of them."""

    count: int
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    keep: bool = False  # the samples themselves, instead of mean, spread and quantiles
    prior: bool = False  # drawn from the priors instead of what was learned
    seed: int = 0


@dataclass(frozen=True)
class Samples:
    """The parameters of all samples.

    Attributes:
        members: The models.
        member: Which of them each sample is of (samples,).
        capacity: Soil water capacity of all land cells (samples, cells) [mm].
        head: Of each sample, as of `cell.Head` (samples, ...).
    """

    members: tuple[Trained, ...]
    member: np.ndarray
    capacity: np.ndarray
    head: Head

    def __len__(self) -> int:
        return len(self.member)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of the member that each sample is of."""
        return tuple(self.members[n].name for n in self.member)

    def drawn(self, chosen: np.ndarray, cells: np.ndarray) -> Drawn:
        """The parameters of some samples at some cells, one sample after the other.

        Args:
            chosen: Numbers of the samples.
            cells: Numbers of the land cells.
        """
        return Drawn(
            self.capacity[np.ix_(chosen, cells)].reshape(-1, 1),
            Head(*(part[chosen] for part in self.head)),
        )

    def constants(self) -> dict[str, np.ndarray]:
        """The global constants of each sample (samples,), by name."""
        return {
            name: 1 / (1 + np.exp(-getattr(self.head, name).astype("float64")))
            for name in names("constant")
        }

    @property
    def most_of_a_member(self) -> int:
        """The largest number of samples that are of one member."""
        return int(np.bincount(self.member).max())

    def batches(self, most: int) -> list[np.ndarray]:
        """Numbers of samples that are simulated together: of one member each.

        Args:
            most: Of a batch, at most.
        """
        found = []
        for member in range(len(self.members)):
            of_member = np.flatnonzero(self.member == member)
            found += [of_member[n : n + most] for n in range(0, len(of_member), most)]
        return found


def draw(
    members: Sequence[Trained],
    store: Store,
    sampling: Sampling,
) -> Samples:
    """Draws the parameters of samples, as many of each member as can be.

    Args:
        members: The models.
        store: Whose cells are simulated.
        sampling: How many, and what of.

    Raises:
        UserError: There are more samples than members, and a member is a point; or
            fewer. Members differ in the sizes of their networks or in their test cells,
            or two have one name.
    """
    count, prior = sampling.count, sampling.prior
    points = [m for m in members if not m.settings.get("variational")]
    if count < 2:
        raise UserError(f"Asked for {count} sample; expected 2 or more.")
    if points and not prior and count > len(members):
        raise UserError(
            f"Asked for {count} samples of {len(members)} "
            f"model{'s' * (len(members) > 1)}, and '{points[0].name}' has no posterior "
            "to draw from: it was trained with uncertainty.posterior: none. Train with "
            "variational, or an ensemble, and ask for a sample of each model."
        )
    if count < len(members):
        raise UserError(
            f"Asked for {count} samples of {len(members)} models. Expected one of each "
            "or more."
        )
    _refuse_different(members, store)
    static = store.static()
    member = np.arange(count) % len(members)
    dtype = members[0].weights[0].dtype
    capacity = np.empty((count, len(static)), dtype)
    heads: list[Head] = [None] * count
    for n, trained in enumerate(members):
        model = trained.model()
        of_model = _Draws(model, trained, store, static, prior)
        for sample in np.flatnonzero(member == n):
            drawn = of_model(np.random.default_rng([sampling.seed, sample]))
            capacity[sample] = drawn.soil_water_capacity.numpy()[:, 0]
            heads[sample] = drawn.head
    head = Head(*(np.concatenate(part) for part in zip(*heads, strict=True)))
    return Samples(tuple(members), member, capacity, head)


class _Draws:
    """Draws the parameters of a model."""

    def __init__(
        self, model: H2MV, trained: Trained, store: Store, static, prior: bool
    ):
        self.model, self.static = model, static
        self.priors = _priors(trained, store) if prior else None

    def __call__(self, generator: np.random.Generator) -> Drawn:
        """One draw."""
        model, cells = self.model, len(self.static)

        def normal(*shape: int):
            return tf.constant(generator.standard_normal(shape), model.compute_dtype)

        if self.priors is not None:
            return self._from_priors(generator, normal)
        if model.variational:
            # In this order, so that more cells leave the weights as they are.
            factors, weights = normal(1, model.rank), normal(1, model.posterior.size)
            return model.draw(self.static, Normals(normal(cells, 1), weights, factors))
        return Drawn(model.encode(self.static)[1], self._own())

    def _own(self) -> Head:
        parts = (getattr(self.model.cell, name) for name in Head._fields)
        return Head(*(tf.convert_to_tensor(part)[None] for part in parts))

    def _from_priors(self, generator, normal) -> Drawn:
        model, priors = self.model, self.priors

        def seed() -> tuple[int, ...]:  # another one for each parameter
            return tuple(int(n) for n in generator.integers(0, 2**31, 2))

        own = self._own()
        logits = {}
        for name in names("constant"):
            value = priors.constant(name).sample(seed=seed())
            logit = tf.math.log(value) - tf.math.log1p(-value)
            logits[name] = tf.cast(logit, model.compute_dtype)[None]
        if model.variational and model.last_layer:
            own = own._replace(
                **{
                    name: priors.weight_deviation * normal(*getattr(own, name).shape)
                    for name in ("coefficient_kernel", "coefficient_bias")
                }
            )
        of_cells = priors.capacity(self.static)
        shape = () if of_cells.batch_shape.rank else len(self.static)
        capacity = of_cells.sample(shape, seed=seed())
        capacity = tf.cast(capacity, model.compute_dtype)[:, None]
        return Drawn(capacity, own._replace(**logits))


def _priors(trained: Trained, store: Store):
    """The priors of a training, for the cells of a store."""
    from h2mv_tf.priors import Priors  # imports tensorflow-probability: a second

    settings = config.parse(str(trained.attributes["configuration"]))
    if settings.objective.likelihood == "mse":
        raise UserError(
            f"'{trained.name}' has no priors: it was trained with "
            "objective.likelihood: mse."
        )
    for name, prior in settings.priors:
        if prior is None:
            raise UserError(
                f"'{trained.name}' has no prior of {name}: it was trained with "
                f"priors.{name}: null."
            )
    return Priors(settings, store)


def _refuse_different(members: Sequence[Trained], store: Store) -> None:
    first, *others = members
    known = {member.name for member in members}
    if len(known) < len(members):
        raise UserError(
            f"Two of the {len(members)} models have one name, out of: "
            f"{', '.join(sorted(known))}. Rename the folder of one, or leave it out."
        )
    tested = first.role_of(store) == TEST
    for other in others:
        for name, size in other.architecture.items():
            if first.architecture[name] != size:
                raise UserError(
                    f"'{first.name}' and '{other.name}' differ in {name}: "
                    f"{first.architecture[name]} and {size}. Samples are of models of "
                    "one kind."
                )
        if not ((other.role_of(store) == TEST) == tested).all():
            raise UserError(
                f"'{first.name}' and '{other.name}' differ in their test cells: one "
                "has seen what the other is judged by. Samples are of models of one "
                "split.seed and split.block_size."
            )

"""Which field of a search space matters: what a model of the scores loses without it.

    found = importance(trials, space.fields)
    found.table, found.explained

A random forest (Breiman, 2001, Machine Learning 45, 5-32, doi 10.1023/A:1010933404324)
learns the rank of a score from the fields, and is asked about trials that it has not
seen. A field matters as much as the answers get worse when its values are shuffled
among those trials. That forests are a good model of a sweep is from Hutter et al.
(2014), An efficient approach for assessing hyperparameter importance, Proc. ICML 32,
754-762, whose fANOVA splits the variance of the forest instead.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GroupKFold

from h2mv_tf.tuning.space import Field

FEWEST_TRIALS, FEWEST_ORIGINS = 10, 5  # of which there is something to learn
FOLDS, TREES, REPEATS = 5, 100, 5
MIDDLE = 0.5  # where a field stands that is not active
EPOCHS = "epochs"  # the feature of the budget


class Importance(NamedTuple):
    """What a forest needs to know the rank of an unseen trial.

    Attributes:
        table: A row for each field, the most important first: `field`, `importance`,
            the R2 that is lost when it is shuffled, and `deviation`, the standard
            deviation of that over folds and repeats.
        explained: R2 of the ranks of unseen trials; at 0 or below the forest knows
            nothing, and the importances mean nothing.
    """

    table: pd.DataFrame
    explained: float


def importance(trials: pd.DataFrame, fields: Iterable[Field]) -> Importance | None:
    """How much each field tells of the rank of a trial.

    Ranks, since a diverged trial would drown the others. Where a sweep has several
    budgets (Hyperband), the epochs are one more field, or they would hide the others.
    Trials of one configuration are left out of the learning together.

    Args:
        trials: The table of trials.
        fields: Of the search space.

    Returns:
        None where trials are too few to learn from, or have all the same score.
    """
    done = trials[(trials["status"] == "completed") & trials["score"].notna()]
    origins = done["origin"].nunique()
    few = len(done) < FEWEST_TRIALS or origins < FEWEST_ORIGINS
    if few or done["score"].nunique() < 2:
        return None
    features = pd.DataFrame(
        {field.name: _positions(field, done[field.name]) for field in fields}
    )
    if done["bracket"].notna().any() and done["epochs"].nunique() > 1:
        features[EPOCHS] = done["epochs"].to_numpy("float64")
    ranks = done["score"].rank().to_numpy()
    total = ranks.var()

    unexplained, losses = np.zeros(len(done)), []
    # Shuffled, as a grid has its values in turns.
    folds = GroupKFold(min(FOLDS, origins), shuffle=True, random_state=0)
    for seen, unseen in folds.split(features, ranks, done["origin"]):
        forest = RandomForestRegressor(TREES, random_state=0, n_jobs=1)
        forest.fit(features.iloc[seen], ranks[seen])
        held_out = features.iloc[unseen], ranks[unseen]
        unexplained[unseen] = (forest.predict(held_out[0]) - held_out[1]) ** 2
        # Not the R2 of a fold, as the variance of a few trials may be anything.
        shuffled = permutation_importance(
            forest,
            *held_out,
            scoring="neg_mean_squared_error",
            n_repeats=REPEATS,
            random_state=0,
            n_jobs=1,
        )
        losses.append(shuffled.importances / total)
    losses = np.concatenate(losses, axis=1)
    table = pd.DataFrame(
        {
            "field": features.columns,
            "importance": losses.mean(axis=1),
            "deviation": losses.std(axis=1),
        }
    ).sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return Importance(table, float(1 - unexplained.mean() / total))


def _positions(field: Field, values: pd.Series) -> list[float]:
    """Where the values of a field lie, from 0 to 1."""
    active = values.notna()
    # A choice of null is no gap.
    otherwise = field.position(None) if None in field.values else MIDDLE
    return [
        field.position(value) if known else otherwise
        for value, known in zip(values, active, strict=True)
    ]

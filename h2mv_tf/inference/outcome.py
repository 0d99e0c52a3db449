"""What predictions come to: how well the balance closes, and what is out of domain."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from h2mv_tf.domain import Domain
from h2mv_tf.variables import BALANCE

logger = logging.getLogger(__name__)

MOST_NAMES = 5  # of static inputs in a line
TRAINING, PLAUSIBLE = "training", "plausible"


class Outcome(NamedTuple):
    """What predictions come to over all cells that were simulated."""

    largest_residual: float  # of a cell and day [mm d-1]
    largest_closure: float  # of a cell over the whole period [mm]
    days: int
    cells: int
    cells_out_of_domain: int  # on a day at least
    share_out_of_domain: float  # of cells and days
    domain: str  # "training", or "plausible" where the ranges are not known

    @classmethod
    def of(cls, dataset: xr.Dataset, days: int) -> "Outcome":
        """What predictions come to.

        Args:
            dataset: Of `predictions.load`.
            days: That were simulated.
        """
        residual, closure = (float(abs(dataset[name]).max()) for name in BALANCE)
        return cls(
            residual,
            closure,
            days,
            cells=int(dataset.attrs["cells"]),
            cells_out_of_domain=int(dataset.attrs["cells_out_of_domain"]),
            share_out_of_domain=float(dataset.attrs["share_out_of_domain"]),
            domain=dataset.attrs["domain"],
        )

    def tell(self, path: Path) -> None:
        """Tells it to the log.

        Args:
            path: Where the predictions are.
        """
        logger.info(
            "%s: water balance within %.1e mm d-1, and %.1e mm over %d days.",
            path,
            self.largest_residual,
            self.largest_closure,
            self.days,
        )
        known = "The ranges of the training are not known, only what is plausible."
        logger.info(
            "Out of domain: %.1f%% of cells and days, %d of %d cells.%s",
            100 * self.share_out_of_domain,
            self.cells_out_of_domain,
            self.cells,
            f" {known}" * (self.domain == PLAUSIBLE),
        )


def beyond(share: xr.DataArray, domain: Domain | None) -> dict[str, object]:
    """The attributes of predictions that tell what is out of domain.

    Args:
        share: `out_of_domain` of every cell, NaN at sea.
        domain: Of the training, where it is known.
    """
    share = share.load()
    return {
        "cells": int(share.notnull().sum()),
        "cells_out_of_domain": int((share > 0).sum()),
        "share_out_of_domain": float(share.mean(dtype="float64")),
        "domain": TRAINING if domain is not None else PLAUSIBLE,
    }


def static_beyond(
    static: np.ndarray, names: Sequence[str], domain: Domain
) -> str | None:
    """Tells of the static inputs beyond their ranges in the training, if any are.

    Args:
        static: (cells, static inputs).
        names: Of the static inputs.
        domain: Of the training.
    """
    low, high = np.array([domain.static[name] for name in names]).T
    counts = ((static < low) | (static > high)).sum(axis=0)
    found = [n for n in np.argsort(-counts, kind="stable") if counts[n]]
    words = [f"{names[n]} ({counts[n]} of {len(static)} cells)" for n in found]
    rest = len(words) - MOST_NAMES
    more = f" and {rest} more" * (rest > 0)
    return ", ".join(words[:MOST_NAMES]) + more if words else None

"""Figures of a folder, and what each of them shows."""

import base64
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from h2mv_tf.errors import UserError
from h2mv_tf.report.parts import Figure, title
from h2mv_tf.variables import CONSTRAINTS

# A figure of matplotlib is made for print; on a screen it is shown a little larger.
PIXELS_PER_INCH = 135
SCREEN = 96  # pixels per inch of a file that does not say

# Name of the file -> what it shows.
CAPTIONS = {
    "loss_curves": "Loss and its terms in training and validation against the epoch; "
    "the grey line marks the best epoch.",
    "roles": "Cells that train, validate and test.",
    "means": "Means over the period of states, fluxes and ratios, and parameters.",
    **{
        f"scores_{name}": f"Scores against observations in each cell: {title(name)}."
        for name in CONSTRAINTS
    },
    "skill": "Scores of the model and of the baselines at every time scale, as in the "
    "tables: the median over test cells.",
    "seasonal_cycles": "Mean seasonal cycles by climate region, observed and "
    "simulated; only cells and months that both have.",
    "interannual": "Monthly anomalies from the mean seasonal cycle by climate region, "
    "and their means of the years, observed and simulated.",
    "scatter": "Observed against simulated values: days of snow, months of the others.",
    "tws_composition": "Mean seasonal cycles of snow, soil moisture and groundwater by "
    "climate region, and their shares of the variability of TWS.",
    "story": "One cell, day by day: weather, stores, fluxes and learned coefficients.",
    "coverage": "How often the central intervals of 50 and 90 % hold the observations "
    "and the hidden truth; lines are the shares that they should hold.",
    "reliability": "How often observations and hidden truth lie at or below a quantile "
    "of the samples, against its probability. Calibrated samples lie on the diagonal.",
    "pit_histograms": "Probability integral transforms of observations and hidden "
    "truth, flat where the samples are calibrated, a U where they are too narrow, a "
    "hump where they are too wide. Grey: 95 % of the bars of calibrated samples, were "
    "all pairs independent.",
    "spread_skill": "Spread of the samples against the error of their mean, in ten "
    "groups by spread. Calibrated samples lie on the diagonal, too narrow ones above.",
    "width_maps": "What the data constrain: the standard deviation of the posterior "
    "relative to that of the prior, 0 where the data decide and 1 where they say "
    "nothing; without a simulation of the prior, that of the posterior in units.",
    "truth_coverage_maps": "Share of months in which the interval of 90 % holds the "
    "hidden truth, cell by cell; of soil water capacity whether it does.",
    "equifinality": "Differences between the folds, variable by variable, and what "
    "they are made of.",
    "equifinality_maps": "Standard deviation over the folds of the means over time.",
}


def embed(folder: Path, only: Iterable[str] = (), without: Iterable[str] = ()) -> tuple:
    """The figures of a folder, in the order of `CAPTIONS` and then by name.

    Args:
        folder: Where the PNG files are.
        only: Names of the figures that are wanted; all of them by default.
        without: Names of those that are not.

    Raises:
        UserError: A file is no picture.
    """
    order = list(CAPTIONS)
    files = {
        file.stem: file
        for file in sorted(folder.glob("[!.]*.png"))
        if file.stem not in without and (not only or file.stem in only)
    }
    names = [name for name in order if name in files]
    names += [name for name in files if name not in order]
    return tuple(_figure(files[name]) for name in names)


def caption(name: str) -> str:
    """What a figure shows, as far as its name tells."""
    words = title(name)
    return CAPTIONS.get(name, f"{words[:1].upper()}{words[1:]}.")


def _figure(file: Path) -> Figure:
    try:
        with Image.open(file) as image:
            image.verify()
            size, (dpi, _) = image.size, image.info.get("dpi", (SCREEN, SCREEN))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(
            f"Figure '{file}' is no picture. Draw it again with: python -m h2mv_tf "
            f"plot {file.parent.parent}"
        ) from error
    width, height = (round(side / dpi * PIXELS_PER_INCH) for side in size)
    data = base64.b64encode(file.read_bytes()).decode("ascii")
    return Figure(file.stem, caption(file.stem), data, width, height)

"""Figures for print: tables and arrays in, matplotlib figures out.

    plots.density_scatter({"runoff": Points(observed, simulated)}).savefig("q.pdf")

Nothing here reads a file or knows a model; `h2mv_tf.figures` draws what a folder has.
"""

from h2mv_tf.plots import twin
from h2mv_tf.plots.equifinality import decomposition, spread_maps
from h2mv_tf.plots.fields import Field, mean_fields, score_fields
from h2mv_tf.plots.maps import field_maps, score_maps
from h2mv_tf.plots.scatter import Points, density_scatter
from h2mv_tf.plots.series import interannual, seasonal_cycles
from h2mv_tf.plots.skill import skill_scores
from h2mv_tf.plots.storage import tws_composition
from h2mv_tf.plots.story import cell_story
from h2mv_tf.plots.training import fold_losses, folds_map, loss_curves, roles_map
from h2mv_tf.plots.tuning import (
    best_so_far,
    importance_of_fields,
    parallel_coordinates,
    scores_of_fields,
)
from h2mv_tf.plots.uncertainty import (
    coverage,
    pit_histograms,
    reliability,
    spread_skill,
    truth_coverage_maps,
    width_maps,
)

__all__ = [
    "Field",
    "Points",
    "best_so_far",
    "cell_story",
    "coverage",
    "decomposition",
    "density_scatter",
    "field_maps",
    "fold_losses",
    "folds_map",
    "importance_of_fields",
    "interannual",
    "loss_curves",
    "mean_fields",
    "parallel_coordinates",
    "pit_histograms",
    "reliability",
    "roles_map",
    "score_fields",
    "score_maps",
    "scores_of_fields",
    "seasonal_cycles",
    "skill_scores",
    "spread_maps",
    "spread_skill",
    "truth_coverage_maps",
    "twin",
    "tws_composition",
    "width_maps",
]

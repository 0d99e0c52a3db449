"""What a run folder tells of the cells of a training: roles and ranges.

    describe(run, survey, roles, fold=1)

A training writes it, and an import of weights that were trained elsewhere.
"""

import xarray as xr

from h2mv_tf import plots
from h2mv_tf.data import splits
from h2mv_tf.data.survey import Survey
from h2mv_tf.domain import Domain
from h2mv_tf.run_folder import RunFolder


def describe(run: RunFolder, survey: Survey, roles: xr.DataArray, fold: int) -> None:
    """Writes the role of every cell, and the ranges of the training cells' inputs.

    Args:
        run: The run folder.
        survey: What a pass over the store of the training found.
        roles: Role of every cell of it.
        fold: Of the training.
    """
    domain = Domain.of(survey, splits.split(roles, fold).train)
    run.save_json(run.domain_file, domain.to_dict())
    run.save_json(run.leakage_file, splits.leakage(roles, fold))
    splits.save(roles, run.split_store)
    figure = plots.roles_map(roles, fold, splits.TEST)
    figure.savefig(run.figures / "roles.png", dpi=200)

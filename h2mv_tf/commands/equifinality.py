"""`python -m h2mv_tf equifinality`: what the folds disagree about."""

from pathlib import Path

import click

from h2mv_tf import console


@click.command()
@click.argument("folder", metavar="CV_DIR", type=click.Path(path_type=Path))
@click.option(
    "--variables",
    metavar="NAMES",
    help="As runoff,swe; all coefficients, states and fluxes by default.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to make; CV_DIR/equifinality by default.",
)
def command(folder: Path, variables: str | None, to: Path | None) -> None:
    """Compares the folds of a cross-validation on its test cells.

    The mean squared difference of each pair of folds, in units of their mean variance,
    split into terms of mean, standard deviation and covariance; a table, a CSV, and a
    NetCDF file with maps of the spread between the folds.
    """
    with console.command():
        from h2mv_tf import equifinality, predictions
        from h2mv_tf.files import refuse_existing

        to = to or folder / equifinality.FOLDER
        refuse_existing(to)
        members = predictions.of_folds(folder)
        chosen = equifinality.compared(variables and variables.split(","))
        folds = {name: predictions.load(path) for name, path in members.items()}
        with console.progress("comparing") as progress:
            found = equifinality.equifinality(
                folds, variables=chosen, progress=progress
            )
        equifinality.save(found, to)
        for step in found.step.values:
            _print(found.sel(step=step), len(folds))
        console.console.print(f"{to}", markup=False)


def _print(found, folds: int) -> None:
    terms = [str(term) for term in found.term.values]
    rows = [
        (
            str(name),
            str(one.kind.values),
            *(_number(one.decomposition.sel(term=term)) for term in terms),
            _number(one.total),
        )
        for name in found["variable"].values
        for one in [found.sel(variable=name)]
    ]
    console.table(
        f"{str(found.step.values).capitalize()}: normalised mean squared difference of "
        f"{folds} folds on {found.attrs['test_cells']} test cells",
        ("variable", "kind", *terms, "total"),
        rows,
    )


def _number(value) -> str:
    return f"{float(value.round(4)) + 0:.4f}"  # never "-0.0000"

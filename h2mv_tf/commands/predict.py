"""`python -m h2mv_tf predict`: what a trained model says of every cell and day."""

import contextlib
from pathlib import Path

import click

from h2mv_tf import console
from h2mv_tf.commands import options
from h2mv_tf.errors import UserError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="STORE",
    help="Store of weather and static inputs; that of the training by default.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="What to make; must not exist. By default predictions.zarr in a run folder.",
)
@click.option(
    "--begin",
    metavar="DAY",
    help="First day to simulate, as 2001-01-31; that of the store by default.",
)
@click.option(
    "--end",
    metavar="DAY",
    help="Last day to simulate; that of the store by default.",
)
@click.option(
    "--variables",
    metavar="NAMES",
    help="As runoff,swe; all by default. The water balance is always there.",
)
@click.option(
    "--samples",
    type=click.IntRange(2),
    metavar="N",
    help="Simulate so many samples: draws from the posterior of a variational run, of "
    "the members of an ensemble, or both. By default one of each member.",
)
@click.option(
    "--quantiles",
    show_default="0.05,0.25,0.5,0.75,0.95",
    metavar="LEVELS",
    help="Of the samples, beside their mean and standard deviation.",
)
@click.option(
    "--realizations",
    is_flag=True,
    help="Write the samples themselves, along the dimension realization.",
)
@click.option(
    "--prior",
    is_flag=True,
    help="Draw from the priors instead: what was known before anything was observed.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    show_default="0",
    help="Of the draws.",
)
@click.option(
    "--profile",
    type=click.Choice(["native", "cf"]),
    default="native",
    show_default=True,
    help="Names and units of this package, or of CMIP.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["zarr", "netcdf"]),
    help="By default netcdf where OUT ends with .nc, or else zarr.",
)
@click.option("--monthly", is_flag=True, help="Means of months instead of days.")
@click.option(
    "--spin-up",
    type=click.IntRange(1),
    show_default="1",
    metavar="PASSES",
    help="Passes over the series that bring the stores into motion.",
)
@click.option(
    "--initial-state",
    type=click.Path(path_type=Path),
    metavar="STATE",
    help="Start from what --save-state wrote instead of a spin-up.",
)
@click.option(
    "--save-state",
    type=click.Path(path_type=Path),
    metavar="STATE",
    help="Write the state at the end of the last day, too: netcdf where STATE ends "
    "with .nc, or else zarr; must not exist.",
)
@click.option(
    "--memory",
    default="2GB",
    show_default=True,
    metavar="SIZE",
    help="Limit of the values in hand.",
)
@click.option(
    "--shard",
    metavar="i/n",
    help="Do this part of the work, as 1/4; n processes make one store.",
)
@click.option(
    "--dask",
    "cluster",
    metavar="ADDRESS",
    help="Hand the work to a dask cluster, as tcp://head:8786.",
)
def command(
    run: Path,
    data: Path | None,
    to: Path | None,
    begin: str | None,
    end: str | None,
    variables: str | None,
    samples: int | None,
    quantiles: str | None,
    realizations: bool,
    prior: bool,
    seed: int | None,
    profile: str,
    file_format: str | None,
    monthly: bool,
    spin_up: int | None,
    initial_state: Path | None,
    save_state: Path | None,
    memory: str,
    shard: str | None,
    cluster: str | None,
) -> None:
    """Simulates every cell of a store with the trained model of a run or a SavedModel.

    RUN may be a folder of runs, too, as of a cross-validation: an ensemble. The store
    needs no observations, and may be of another period or place. An
    interrupted call is continued by the same one.
    """
    named = to is not None
    file = "prior.zarr" if prior else "samples.zarr" if samples else "predictions.zarr"
    to = to or run / file
    with console.command(interrupted=f"Interrupted. The same call goes on with {to}."):
        from h2mv_tf import startup
        from h2mv_tf.data.writing import ALONE

        part = ALONE if shard is None else options.shard(shard)
        size = options.size(memory)
        netcdf = to.suffix == ".nc" if file_format is None else file_format == "netcdf"
        if shard is not None and cluster is not None:
            raise UserError(
                "Give --shard or --dask, not both: dask deals out the work."
            )
        if realizations and quantiles is not None:
            raise UserError(
                "Give --quantiles or --realizations, not both: all quantiles follow "
                "from the samples themselves."
            )
        startup.import_tensorflow()
        from h2mv_tf import inference
        from h2mv_tf.run_folder import RunFolder
        from h2mv_tf.trained import Trained, opened

        folder = RunFolder(run)
        trained = opened(run)
        of_run = folder.config_file.is_file()
        if not named and not of_run and isinstance(trained, Trained):
            raise UserError(
                f"'{run}' is no run folder, where predictions could be kept. Name what "
                "to make in --to."
            )
        members = [trained] if isinstance(trained, Trained) else trained
        sampling = None
        if samples or len(members) > 1:
            sampling = inference.Sampling(
                samples or len(members), keep=realizations, prior=prior, seed=seed or 0
            )
            if quantiles is not None:
                levels = options.quantiles(quantiles)
                sampling = sampling._replace(quantiles=levels)
        elif realizations or prior or quantiles is not None or seed is not None:
            raise UserError(
                "--realizations, --prior, --quantiles and --seed are of samples. Tell "
                "how many in --samples, as --samples 50."
            )
        store = members[0].open_store(data).during(begin, end)
        with console.progress("simulating") as progress:
            outcome = inference.predict(
                trained,
                store,
                to,
                variables=None if variables is None else variables.split(","),
                sampling=sampling,
                profile=profile,
                netcdf=netcdf,
                monthly=monthly,
                spin_up=spin_up,
                initial_state=initial_state,
                save_state=save_state,
                memory=size,
                shard=part,
                cluster=cluster,
                progress=progress,
            )
        if outcome is None:
            console.console.print(
                f"Part {shard} is done; {to} appears as soon as all parts are.",
                markup=False,
            )
            return
        with folder.logged() if of_run else contextlib.nullcontext():
            outcome.tell(to)
        if of_run:
            folder.note_predictions(to, outcome._asdict())

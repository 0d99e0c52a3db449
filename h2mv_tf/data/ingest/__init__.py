"""Ingest: from any CF data sets to a store.

Finds the forcing, observations, static inputs and land mask of NetCDF files or Zarr
stores, on a grid of latitude and longitude or at sites, brings them to days, to the
units of the registry and to one grid, and writes a store:

    report = ingest(["era5/*.nc", "gleam.nc"], "globe.zarr", mapping={"rn": "ssr+str"})
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from h2mv_tf import __version__
from h2mv_tf.data.ingest import flow
from h2mv_tf.data.ingest.cells import Box, Cells
from h2mv_tf.data.ingest.days import Stamps
from h2mv_tf.data.ingest.fields import field, on_common_days
from h2mv_tf.data.ingest.land import derived_inputs, land_mask, static_inputs
from h2mv_tf.data.ingest.names import choose, timeless_errors
from h2mv_tf.data.ingest.report import Report, Row, rows
from h2mv_tf.data.ingest.sources import Source, other_places, paths_of, reading
from h2mv_tf.data.writing import tile_of, writing
from h2mv_tf.errors import UserError
from h2mv_tf.files import refuse_existing
from h2mv_tf.variables import FORCING

__all__ = ["Report", "Row", "ingest"]

MEMORY = 2e9  # bytes, by default


def ingest(
    sources: str | Path | Sequence[str | Path],
    to: str | Path,
    *,
    mapping: Mapping[str, str] | None = None,
    regrid: float | None = None,
    period: tuple[str | None, str | None] = (None, None),
    box: Box | None = None,
    stamps: Stamps | None = None,
    memory: float = MEMORY,
    zarr_format: int = 3,
    progress: flow.Progress = lambda done, total: None,
) -> Report:
    """Turns data sets into a store.

    An interrupted call is continued by one of the same arguments.

    Args:
        sources: NetCDF files or Zarr stores with CF attributes, or patterns such as
            `era5/*.nc`; of daily or shorter steps, observations also of longer ones.
        to: The store; must not exist.
        mapping: Variables of the sources by group, name or CMIP name, as in
            {"rn": "ssr+str", "mask": "lsm"}; "" leaves a constraint out. What it
            does not tell is found by name, then by standard name.
        regrid: Resolution of the grid to average to [degrees].
        period: First and last date that are wanted, as "2001" or "2001-05-17".
        box: West, south, east and north of the cells that are wanted [degrees].
        stamps: Where in its step a time stamp is. By default the bounds of time tell
            it; without them, it is the start, but the end for amounts of steps
            within a day, as in ERA5.
        memory: Limit of the values in hand [bytes].
        zarr_format: 2 or 3.
        progress: Called with the number of parts that are done, and of all.

    Returns:
        What was taken from where.

    Raises:
        UserError: The store exists; a source cannot be read, lacks forcing, has an
            unknown layout or calendar or units that cannot be converted; two
            sources contradict each other; forcing has gaps or is out of bounds.
    """
    to = Path(to)
    refuse_existing(to)
    paths = paths_of([sources] if isinstance(sources, str | Path) else sources)
    options = {
        "mapping": dict(mapping or {}),
        "regrid": regrid,
        "period": period,
        "box": box,
        "stamps": stamps,
    }
    plan = {**options, "memory": memory, "sources": [_state(path) for path in paths]}
    with reading(paths, flow.chunk_bytes(memory)) as source:
        try:
            content, notes = _content(source, **options)
        except UserError as error:
            raise UserError(f"{source.label}: {error}") from error
        time = content.fields[FORCING[0]].data.indexes["time"]
        with writing(
            to,
            tile=tile_of(len(time), content.place.dims),
            plan=plan,
            attributes=_attributes(source),
            zarr_format=zarr_format,
        ) as writer:
            try:
                found = flow.Flow(source, content, writer, memory).run(progress)
            except UserError as error:
                raise UserError(f"{source.label}: {error}") from error
    return Report(
        rows=rows(content.fields.values(), content.static, found),
        cells=found.land,
        period=(time[0], time[-1]),
        notes=(*found.notes(), *notes),
    )


def _content(
    source: Source,
    *,
    mapping: Mapping[str, str],
    regrid: float | None,
    period: tuple[str | None, str | None],
    box: Box | None,
    stamps: Stamps | None,
) -> tuple[flow.Content, tuple[str, ...]]:
    """What the store will hold, and notes on what was changed."""
    choice, cells = choose(source.arrays, mapping), Cells(box, regrid)
    fields = {
        variable.name: field(
            source, variable, names, cells=cells, period=slice(*period), stamps=stamps
        )
        for variable, names in choice.series.items()
    }
    notes = _together(note for found in fields.values() for note in found.notes)
    forcing, shortened = on_common_days([fields[name] for name in FORCING])
    fields |= {found.variable.name: found for found in forcing}
    notes += shortened
    mask = land_mask(source, choice.masks, cells)
    errors = timeless_errors(source.arrays)
    notes += tuple(f"{name} left out, as it has no time" for name in errors)
    static, means = static_inputs(source, (*choice.masks, *errors), cells), {}
    if static is None:
        static, means = derived_inputs(forcing)
        derived = ", ".join(static["variable"].values)
        notes += [f"no static input found; derived {derived}"]

    first = forcing[0].data
    for data in (*(found.data for found in fields.values()), static, mask):
        if data is not None and (difference := other_places(first, data)):
            raise UserError(
                f"'{first.attrs['source']}' and '{data.attrs['source']}' are at "
                f"different places: {difference}. Bring them to one grid with "
                "--regrid, or cut them out with --box."
            )
    same = {dim: first[dim] for dim in first.dims[1:] if dim in first.indexes}
    fields = {
        name: found._replace(data=found.data.assign_coords(same))
        for name, found in fields.items()
    }
    return flow.Content(fields, mask, static.assign_coords(same), means), tuple(notes)


def _together(notes: Iterable[tuple[str, str]]) -> list[str]:
    """What was done to which variables, each thing once."""
    done: dict[str, list[str]] = {}
    for name, what in notes:
        done.setdefault(what, []).append(name)
    return [f"{', '.join(names)}: {what}" for what, names in done.items()]


def _state(path: Path) -> tuple[str, int, int]:
    """By which a file is known again."""
    about = path.stat()
    return str(path.resolve()), about.st_size, about.st_mtime_ns


def _attributes(source: Source) -> dict[str, str]:
    """Where the store came from."""
    names = ", ".join(path.name for path in source.paths)
    lines = [f"{datetime.now(UTC):%FT%TZ} h2mv_tf {__version__}: ingest {names}"]
    if "history" in source.attributes:
        lines.append(str(source.attributes["history"]))
    return {
        "title": str(source.attributes.get("title", source.paths[0].stem)),
        "source": names,
        "history": "\n".join(lines),
    }

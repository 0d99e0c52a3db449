"""The data set of an evaluation, from what its blocks have contributed."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from h2mv_tf.evaluation.blocks import (
    H2MV,
    MODELS,
    SEASONAL,
    SIMULATED,
    TRUE,
    UNTRAINED,
    Block,
    Part,
    Sources,
)
from h2mv_tf.evaluation.emergent import QUANTITIES
from h2mv_tf.evaluation.metrics import METRICS
from h2mv_tf.evaluation.scales import SCALES
from h2mv_tf.evaluation.summaries import CELLS, STATISTICS, Domain
from h2mv_tf.variables import ANOMALIES, names

SUMMARY = ("scale", "metric", "cells", "region", "statistic")


def dataset(
    sources: Sources, domain: Domain, blocks: Sequence[Block], parts: Sequence[Part]
) -> xr.Dataset:
    """Scores and summaries of all that was compared.

    Args:
        sources: What was evaluated.
        domain: Its cells.
        blocks: The blocks.
        parts: What each has contributed.
    """
    together = _Together(domain, blocks, parts)
    result = xr.Dataset(
        coords={
            "scale": list(SCALES),
            "metric": list(METRICS),
            "cells": list(CELLS),
            "region": list(domain.regions),
            "statistic": list(STATISTICS),
            "quantity": list(QUANTITIES),
        }
    )
    result = result.assign_coords(
        {n: c for n, c in domain.land.coords.items() if n in ("lat", "lon", "name")}
    )
    result["cell_count"] = (
        ("cells", "region"),
        domain.by_set(np.array([len(c) for c in domain.selections()])),
        {"long_name": "number of cells", "units": "1"},
    )
    if sources.observed:
        result = result.merge(_constraints(together, sources))
    if sources.truth or sources.parameters:
        result = result.merge(_truths(together, sources))
    return result.merge(_emergent(together)).merge(_constants(sources))


class _Together:
    """Blocks put together."""

    def __init__(self, domain, blocks, parts):
        self.domain, self.blocks, self.parts = domain, blocks, parts

    def cells(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays of blocks (..., cell) as one of all land cells."""
        shape = (*arrays[0].shape[:-1], len(self.domain.area))
        full = np.empty(shape, arrays[0].dtype)
        for block, array in zip(self.blocks, arrays, strict=True):
            full[..., block.cells] = array
        return full

    def of(self, field: str, key: tuple) -> np.ndarray:
        return self.cells([getattr(part, field)[key] for part in self.parts])

    def sums(self, key: tuple) -> dict[str, xr.DataArray]:
        scales = self.parts[0].sums[key]
        return {scale: sum(part.sums[key][scale] for part in self.parts) for scale in scales}

    def summary(self, key: tuple, scores: np.ndarray, anomalies: bool) -> np.ndarray:
        return self.domain.summary(scores, self.sums(key), anomalies)


def _constraints(together: _Together, sources: Sources) -> xr.Dataset:
    variables, domain = list(sources.observed), together.domain
    there = {(model, name) for _, model, name in together.parts[0].scores}
    models = [m for m in MODELS if any(model == m for model, _ in there)]
    shape = (len(models), len(variables), len(SCALES), len(METRICS))
    scores = np.full((*shape, len(domain.area)), np.nan)
    summary = np.full(
        (*shape, len(CELLS), len(domain.regions), len(STATISTICS)), np.nan
    )
    count = np.zeros((len(variables), len(SCALES), len(domain.area)), "int32")
    for v, name in enumerate(variables):
        for m, model in enumerate(models):
            key = ("observations", model, name)
            if key not in together.parts[0].scores:
                continue
            scores[m, v] = together.of("scores", key)
            summary[m, v] = together.summary(key, scores[m, v], name in ANOMALIES)
        count[v] = together.of("counts", ("observations", H2MV, name))
    score = domain.on_space(scores, ("model", "variable", "scale", "metric"))
    result = xr.Dataset({"score": score}, {"model": models, "variable": variables})
    result["summary"] = (("model", "variable", *SUMMARY), summary)
    result["count"] = domain.on_space(count, ("variable", "scale"), fill=0)
    result.score.attrs = {"long_name": "score against the observations of a cell"}
    result.summary.attrs = {"long_name": "score against the observations of a region"}
    result["count"].attrs = {
        "long_name": "number of pairs of observation and prediction",
        "units": "1",
    }
    result.model.attrs["comment"] = (
        f"{UNTRAINED}: the same network with its first random weights; {SEASONAL}: of "
        "the observations of the training cells of the cell's region"
    )
    return result


def _truths(together: _Together, sources: Sources) -> xr.Dataset:
    variables = [n for n in names_in_order(sources)]
    domain = together.domain
    shape = (len(variables), len(SCALES), len(METRICS))
    sets = (len(CELLS), len(domain.regions))
    scores = np.full((*shape, len(domain.area)), np.nan)
    summary = np.full((*shape, *sets, len(STATISTICS)), np.nan)
    pattern = np.full((len(variables), len(METRICS), *sets), np.nan)
    for v, name in enumerate(variables):
        key = (TRUE, H2MV, name)
        if key in together.parts[0].scores:
            scores[v] = together.of("scores", key)
            summary[v] = together.summary(key, scores[v], anomalies=False)
        maps = (
            together.cells([part.means[of][name] for part in together.parts])
            for of in (SIMULATED, TRUE)
        )
        pattern[v] = domain.pattern(*maps)
    on_space = domain.on_space(scores, ("truth_variable", "scale", "metric"))
    result = xr.Dataset({"truth_score": on_space}, {"truth_variable": variables})
    result["truth_summary"] = (("truth_variable", *SUMMARY), summary)
    result["truth_pattern"] = (
        ("truth_variable", "metric", "cells", "region"),
        pattern,
    )
    result.truth_score.attrs = {"long_name": "score against the truth of a cell"}
    result.truth_summary.attrs = {"long_name": "score against the truth of a region"}
    result.truth_pattern.attrs = {
        "long_name": "score of the map of time means against that of the truth"
    }
    return result


def names_in_order(sources: Sources) -> list[str]:
    """What is scored against the truth, in the order of the registry."""
    known = {*sources.truth, *sources.parameters}
    ordered = names("coefficient", "parameter", "state", "flux", "diagnostic")
    return [name for name in ordered if name in known]


def _emergent(together: _Together) -> xr.Dataset:
    result, domain = xr.Dataset(), together.domain
    for of, suffix in ((SIMULATED, ""), (TRUE, "_truth")):
        if of not in together.parts[0].emergent:
            continue
        values = together.of("emergent", of)
        sums = {
            name: sum(part.amounts[of][name] for part in together.parts)
            for name in together.parts[0].amounts[of]
        }
        result[f"emergent{suffix}"] = domain.on_space(values, ("quantity",))
        result[f"emergent{suffix}"].attrs = {
            "long_name": f"emergent quantity of the {of}",
            "units": "1",
        }
        result[f"emergent_summary{suffix}"] = (
            ("quantity", "cells", "region"),
            domain.emergent(sums),
            {"long_name": f"emergent quantity of a region, {of}", "units": "1"},
        )
    return result.rename(
        {n: "emergent_truth_summary" for n in result if n == "emergent_summary_truth"}
    )


def _constants(sources: Sources) -> xr.Dataset:
    return xr.Dataset()


def unobserved(result: xr.Dataset) -> list[str]:
    """Regions and cells without any observation, in words."""
    if "count" not in result:
        return []
    notes = []
    climate = result.climate
    numbers = dict(
        zip(
            climate.attrs["flag_meanings"].split(),
            np.atleast_1d(climate.attrs["flag_values"]),
            strict=True,
        )
    )
    for name in result.variable.values:
        pairs = result["count"].sel(variable=name, scale="monthly")
        for cells in CELLS:
            chosen = result.role == 11 if cells == "test" else result.role >= 0
            empty = []
            for region in result.region.values:
                inside = chosen & (
                    (climate == numbers[region]) if region in numbers else True
                )
                has_cells = int(result.cell_count.sel(cells=cells, region=region))
                if has_cells and not int(pairs.where(inside, 0).sum()):
                    empty.append(str(region))
            if empty:
                which = "test cells of " if cells == "test" else ""
                notes.append(f"{name}: no observation in {which}{', '.join(empty)}: NaN.")
    return notes

"""The data set of an evaluation, from what its blocks have contributed."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from h2mv_tf.data.splits import SEA
from h2mv_tf.evaluation.blocks import (
    H2MV,
    MODELS,
    OBSERVED,
    SEASONAL,
    SIMULATED,
    TRUE,
    UNTRAINED,
    Part,
    Sources,
)
from h2mv_tf.evaluation.cutting import Block
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
    area = domain.on_space(domain.area).assign_attrs(long_name="area of the cell")
    role = domain.on_space(domain.role, fill=SEA).assign_attrs(
        long_name="role of the cell",
        comment="0: sea or unknown; 1 to 10: the fold in which it validates; 11: test",
    )
    result = result.assign_coords(cell_area=area, role=role)
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

    def scores(self, against: str) -> dict[tuple, np.ndarray]:
        """Scores of the land cells (scale, metric, cell), by what was compared."""
        keys = [key for key in self.parts[0].scores if key[0] == against]
        return {key: self.of("scores", key) for key in keys}

    def summaries(self, scores: Mapping[tuple, np.ndarray]) -> dict[tuple, np.ndarray]:
        """(scale, metric, cells, region, statistic), by what was compared."""
        sums = {
            key: {
                scale: sum(part.sums[key][scale] for part in self.parts)
                for scale in self.parts[0].sums[key]
            }
            for key in scores
        }
        anomalies = [k for k in scores if k[0] == OBSERVED and k[2] in ANOMALIES]
        return self.domain.summaries(scores, sums, anomalies)


def _constraints(together: _Together, sources: Sources) -> xr.Dataset:
    variables, domain = list(sources.observed), together.domain
    found = together.scores(OBSERVED)
    summaries = together.summaries(found)
    models = [m for m in MODELS if any(model == m for _, model, _ in found)]
    shape = (len(models), len(variables), len(SCALES), len(METRICS))
    sets = (len(CELLS), len(domain.regions), len(STATISTICS))
    scores = np.full((*shape, len(domain.area)), np.nan)
    summary = np.full((*shape, *sets), np.nan)
    for (_, model, name), of_key in found.items():
        place = models.index(model), variables.index(name)
        scores[place], summary[place] = of_key, summaries[OBSERVED, model, name]
    count = np.zeros((len(variables), len(SCALES), len(domain.area)), "int32")
    for v, name in enumerate(variables):
        count[v] = together.of("counts", (OBSERVED, H2MV, name))
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
    variables = _in_order(sources)
    domain = together.domain
    shape = (len(variables), len(SCALES), len(METRICS))
    sets = (len(CELLS), len(domain.regions))
    scores = np.full((*shape, len(domain.area)), np.nan)
    summary = np.full((*shape, *sets, len(STATISTICS)), np.nan)
    found = together.scores(TRUE)
    summaries = together.summaries(found)
    for key, of_key in found.items():
        place = variables.index(key[2])
        scores[place], summary[place] = of_key, summaries[key]
    simulated, true = (
        np.stack(
            [
                together.cells([part.means[of][name] for part in together.parts])
                for name in variables
            ]
        )
        for of in (SIMULATED, TRUE)
    )
    pattern = np.moveaxis(domain.pattern(simulated, true), 0, 1)
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


def _in_order(sources: Sources) -> list[str]:
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
        result[f"emergent{suffix}_summary"] = (
            ("quantity", "cells", "region"),
            domain.emergent(sums),
            {"long_name": f"emergent quantity of a region, {of}", "units": "1"},
        )
    return result


def _constants(sources: Sources) -> xr.Dataset:
    """Values that the model learns once for the globe, and those of the truth."""
    found = {n: values for n, values in sources.constants.items() if values}
    if not found:
        return xr.Dataset()
    models = (SIMULATED, TRUE)
    values = [[of.get(model, np.nan) for model in models] for of in found.values()]
    return xr.Dataset(
        {
            "constant": (
                ("constant_name", "source"),
                values,
                {"long_name": "what is learned once for the globe"},
            )
        },
        {"constant_name": list(found), "source": list(models)},
    )


def unobserved(result: xr.Dataset, domain: Domain) -> list[str]:
    """Regions, of all cells and of those that test, without any observation, in words.

    Args:
        result: Of `dataset`.
        domain: Its cells.
    """
    notes = []
    regions = list(domain.regions)
    sets = [(cells, region) for cells in CELLS for region in regions]
    selected = dict(zip(sets, domain.selections(), strict=True))
    land = np.flatnonzero(domain.land.values)
    for name in result.variable.values if "count" in result else ():
        count = result["count"].sel(variable=name, scale="monthly").values.ravel()[land]
        without = {
            cells: [
                region
                for region in regions
                if len(selected[cells, region])
                and not count[selected[cells, region]].any()
            ]
            for cells in CELLS
        }
        tests = [region for region in without["test"] if region not in without["all"]]
        if without["all"]:
            words = ", ".join(without["all"])
            notes.append(f"{name}: no observation at all in {words}; its row is NaN.")
        if tests:
            words = ", ".join(tests)
            notes.append(f"{name}: no observation in test cells of {words}; NaN there.")
    return notes

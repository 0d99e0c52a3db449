from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from h2mv_tf import physics
from h2mv_tf.physics import (
    FREEZING_POINT,
    Coefficients,
    Diagnostics,
    Fluxes,
    Forcing,
    Parameters,
    WaterState,
)

CELLS = 100
ROUNDING = 1e-12


class Day(NamedTuple):
    """All that the water cycle of a day depends on."""

    state: WaterState
    forcing: Forcing
    coefficients: Coefficients
    parameters: Parameters

    def to(self, dtype):
        return Day(*tf.nest.map_structure(lambda x: tf.constant(x, dtype), tuple(self)))


ENERGY_OF_4_MM = 4 * 2.45 / 0.0864

WARM_DAY = Day(
    WaterState(swe=10.0, soil_moisture=60.0, groundwater=200.0),
    Forcing(
        net_radiation=ENERGY_OF_4_MM,
        precipitation=8.0,
        air_temperature=FREEZING_POINT + 2,
    ),
    Coefficients(
        snowmelt_factor=3.0,
        interception_capacity=2.0,
        soil_evaporation_coefficient=0.4,
        transpiration_coefficient=0.5,
        soil_recharge_coefficient=0.5,
        groundwater_recharge_coefficient=0.25,
        fapar=0.5,
    ),
    Parameters(
        soil_water_capacity=70.0, snowfall_correction=0.9, baseflow_fraction=0.02
    ),
)


def altered(**changes):
    """The warm day with some of its numbers changed."""
    return Day(
        *(
            record._replace(**{k: v for k, v in changes.items() if k in record._fields})
            for record in WARM_DAY
        )
    )


def walked(day):
    """New state, fluxes and diagnostics of a day."""
    new_state, fluxes = physics.step(*day)
    return (
        new_state,
        fluxes,
        physics.diagnostics(day.state, new_state, fluxes, *day[1:]),
    )


def assert_close(record, **expected):
    for name, value in expected.items():
        actual = getattr(record, name)
        rtol = 1e-12 if actual.dtype == tf.float64 else 2e-6
        assert_allclose(actual, value, rtol=rtol, atol=rtol, err_msg=name)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


# Worked by hand


def test_a_hundred_watts_evaporate_three_and_a_half_millimetres():
    energy = physics.available_energy(tf.constant(100.0, "float64"))
    assert_allclose(energy, 8.64 / 2.45, rtol=1e-14)


def test_melt_is_degree_days_or_all_the_snow():
    swe = tf.constant([10.0, 10.0, 5.0])
    melt = physics.snowmelt(swe, tf.constant([2.0, 4.0, -3.0]), 3.0)
    assert_array_equal(melt, [6.0, 10.0, 0.0])


def test_interception_is_the_least_of_rain_capacity_and_energy():
    rain, energy = tf.constant([1.0, 9.0, 9.0]), tf.constant([9.0, 9.0, 2.0])
    capacity, fapar = tf.constant([8.0, 8.0, 8.0]), tf.constant(0.5)
    evaporation = physics.interception_evaporation(rain, energy, capacity, fapar)
    assert_array_equal(evaporation, [1.0, 4.0, 2.0])


def test_bare_ground_evaporates_and_a_full_canopy_transpires():
    water, energy = tf.constant(2.0), tf.constant(8.0)
    fapar = tf.constant([0.0, 0.25, 1.0])
    evaporation = physics.soil_evaporation(water, energy, 0.5, fapar)
    assert_array_equal(evaporation, [1.0, 0.75, 0.0])
    transpiration = physics.transpiration(water, energy, 0.5, fapar)
    assert_array_equal(transpiration, [0.0, 0.25, 1.0])


def test_baseflow_is_a_share_of_the_groundwater():
    assert_array_equal(physics.baseflow(tf.constant([0.0, 200.0]), 0.5), [0.0, 100.0])


def test_a_warm_day_worked_by_hand(dtype):
    new_state, fluxes, diagnostics = walked(WARM_DAY.to(dtype))
    assert_close(
        fluxes,
        snowfall=0.0,
        rainfall=8.0,
        corrected_precipitation=8.0,
        snowmelt=6.0,
        interception_evaporation=1.0,
        soil_evaporation=0.6,
        transpiration=0.6,
        evapotranspiration=2.2,
        water_input=13.0,
        soil_recharge=5.6,  # half of the 11.2 mm that the soil can take
        groundwater_recharge=1.85,
        surface_runoff=5.55,
        baseflow=4.0,
        runoff=9.55,
    )
    assert_close(new_state, swe=4.0, soil_moisture=64.4, groundwater=197.85)
    assert_close(
        diagnostics,
        evaporative_fraction=0.55,
        soil_recharge_fraction=0.5 * 11.2 / 13,
        groundwater_recharge_fraction=0.25 * (1 - 5.6 / 13),
        surface_runoff_fraction=0.75 * (1 - 5.6 / 13),
        relative_soil_moisture=0.92,
        tws=266.25,
    )


def test_a_frosty_day_worked_by_hand(dtype):
    day = altered(air_temperature=FREEZING_POINT - 10).to(dtype)
    new_state, fluxes, diagnostics = walked(day)
    assert_close(
        fluxes,
        snowfall=7.2,
        rainfall=0.0,
        corrected_precipitation=7.2,
        snowmelt=0.0,
        interception_evaporation=0.0,
        soil_evaporation=0.8,  # 0.5 * 0.4 of 4 mm
        transpiration=0.8,  # 0.5 * 0.5 of 3.2 mm
        evapotranspiration=1.6,
        water_input=0.0,
        soil_recharge=0.0,
        groundwater_recharge=0.0,
        surface_runoff=0.0,
        runoff=4.0,
    )
    assert_close(new_state, swe=17.2, soil_moisture=58.4, groundwater=196.0)
    # The shares that a first drop would take.
    assert_close(
        diagnostics,
        soil_recharge_fraction=0.5,
        groundwater_recharge_fraction=0.125,
        surface_runoff_fraction=0.375,
        tws=271.6,
    )


def test_a_dry_soil_gives_no_more_than_it_holds():
    day = altered(soil_moisture=1.0, precipitation=0.0, swe=0.0).to("float64")
    new_state, fluxes, _ = walked(day)
    # Half of 0.4 of 1 mm, then half of 0.5 of the 0.8 mm that are left.
    assert_close(fluxes, soil_evaporation=0.2, transpiration=0.2)
    assert_close(new_state, soil_moisture=0.6)


def test_the_residual_is_what_is_missing():
    state = WaterState(*map(tf.constant, (10.0, 20.0, 30.0)))
    new_state = WaterState(*map(tf.constant, (11.0, 22.0, 33.0)))
    fluxes = Fluxes(*map(tf.constant, [0.0] * len(Fluxes._fields)))
    assert_array_equal(physics.water_balance_residual(state, new_state, fluxes), -6.0)
    fluxes = fluxes._replace(
        corrected_precipitation=tf.constant(20.0),
        evapotranspiration=tf.constant(4.0),
        runoff=tf.constant(9.0),
    )
    assert_array_equal(physics.water_balance_residual(state, new_state, fluxes), 1.0)


# Limits


def test_zero_degrees_exactly_is_snow(dtype):
    day = altered(air_temperature=FREEZING_POINT).to(dtype)
    _, fluxes, _ = walked(day)
    assert_close(fluxes, snowfall=7.2, rainfall=0.0, snowmelt=0.0)


def test_the_least_above_zero_degrees_is_rain(dtype):
    above = np.nextafter(np.array(FREEZING_POINT, dtype), np.array(400, dtype))
    _, fluxes, _ = walked(altered(air_temperature=above).to(dtype))
    assert_close(fluxes, snowfall=0.0, rainfall=8.0)


def test_nothing_melts_without_snow(dtype):
    _, fluxes, _ = walked(altered(swe=0.0).to(dtype))
    assert_close(fluxes, snowmelt=0.0)


def test_a_full_soil_takes_no_water(dtype):
    day = altered(soil_moisture=70.0, net_radiation=0.0).to(dtype)
    new_state, fluxes, diagnostics = walked(day)
    assert_close(fluxes, soil_recharge=0.0, surface_runoff=0.75 * 14)
    assert_close(new_state, soil_moisture=70.0)
    assert_close(diagnostics, soil_recharge_fraction=0.0, relative_soil_moisture=1.0)


@pytest.mark.parametrize("net_radiation", [0.0, -80.0])
def test_nothing_evaporates_without_radiation(dtype, net_radiation):
    _, fluxes, diagnostics = walked(altered(net_radiation=net_radiation).to(dtype))
    assert_close(
        fluxes,
        interception_evaporation=0.0,
        soil_evaporation=0.0,
        transpiration=0.0,
        evapotranspiration=0.0,
        water_input=14.0,
    )
    assert_close(diagnostics, evaporative_fraction=0.0)


def test_an_empty_cell_without_rain_stays_empty(dtype):
    day = altered(swe=0.0, soil_moisture=0.0, groundwater=0.0, precipitation=0.0)
    new_state, fluxes, diagnostics = walked(day.to(dtype))
    for record in (new_state, fluxes):
        assert_close(record, **dict.fromkeys(record._fields, 0.0))
    assert_close(diagnostics, tws=0.0, relative_soil_moisture=0.0)


def test_a_store_that_drains_wholly_is_empty_the_next_day():
    day = altered(baseflow_fraction=1.0, precipitation=0.0, swe=0.0).to("float64")
    new_state, fluxes, _ = walked(day)
    assert_close(fluxes, baseflow=200.0)
    assert_close(new_state, groundwater=0.0)


# Properties


def drawn(rng, least, most):
    """Values in a range; a good part lies on its ends, on zero, or close to zero."""
    ends = rng.choice([least, most, np.clip(0.0, least, most)], CELLS)
    inside = rng.uniform(least, most, CELLS)
    small = np.clip(10.0 ** rng.uniform(-12, 0, CELLS), least, most)
    return np.choose(rng.choice(3, CELLS, p=(0.2, 0.7, 0.1)), [ends, inside, small])


@st.composite
def days(draw):
    """Any day that the model can meet: a soil is never over its capacity."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    capacity = drawn(rng, 1.0, 1000.0)
    day = Day(
        WaterState(
            swe=drawn(rng, 0.0, 2000.0),
            soil_moisture=drawn(rng, 0.0, 1.0) * capacity,
            groundwater=drawn(rng, 0.0, 5000.0),
        ),
        Forcing(
            net_radiation=drawn(rng, -300.0, 500.0),
            precipitation=drawn(rng, 0.0, 500.0),
            air_temperature=drawn(rng, -60.0, 50.0) + FREEZING_POINT,
        ),
        Coefficients(
            drawn(rng, 0.0, 30.0),
            drawn(rng, 0.0, 30.0),
            *(drawn(rng, 0.0, 1.0) for _ in Coefficients._fields[2:]),
        ),
        Parameters(capacity, drawn(rng, 0.0, 1.0), drawn(rng, 0.0, 1.0)),
    )
    return day.to("float64")


def assert_at_most(small, large):
    small, large = np.asarray(small), np.asarray(large)
    assert (small <= large + ROUNDING * np.abs(large)).all(), (small, large)


@given(days())
def test_storages_are_never_negative(day):
    for store in walked(day)[0]:
        assert (store.numpy() >= 0).all()


@given(days())
def test_fluxes_are_never_negative(day):
    for name, flux in walked(day)[1]._asdict().items():
        assert (flux.numpy() >= 0).all(), name


@given(days())
def test_soil_moisture_never_exceeds_its_capacity(day):
    new_state, _, diagnostics = walked(day)
    assert_at_most(new_state.soil_moisture, day.parameters.soil_water_capacity)
    assert_at_most(diagnostics.relative_soil_moisture, 1.0)


@given(days())
def test_melt_never_exceeds_the_snowpack(day):
    assert (walked(day)[1].snowmelt <= day.state.swe).numpy().all()


@given(days())
def test_evapotranspiration_never_exceeds_the_available_energy(day):
    _, fluxes, diagnostics = walked(day)
    energy = physics.available_energy(day.forcing.net_radiation)
    assert_at_most(fluxes.evapotranspiration, energy)
    assert_at_most(diagnostics.evaporative_fraction, 1.0)


@given(days())
def test_interception_never_exceeds_the_rain(day):
    fluxes = walked(day)[1]
    assert_at_most(fluxes.interception_evaporation, fluxes.rainfall)


@given(days())
def test_recharge_never_exceeds_the_water_input(day):
    fluxes = walked(day)[1]
    assert_at_most(fluxes.soil_recharge, fluxes.water_input)
    assert_at_most(
        fluxes.soil_recharge + fluxes.groundwater_recharge, fluxes.water_input
    )


@given(days())
def test_the_water_input_goes_to_soil_groundwater_and_runoff(day):
    fluxes = walked(day)[1]
    parts = fluxes.soil_recharge + fluxes.groundwater_recharge + fluxes.surface_runoff
    assert_allclose(parts, fluxes.water_input, rtol=1e-12, atol=ROUNDING)


@given(days())
def test_the_sums_are_the_sums_of_their_parts(day):
    fluxes = walked(day)[1]
    evaporation = (
        fluxes.interception_evaporation + fluxes.soil_evaporation + fluxes.transpiration
    )
    assert_allclose(fluxes.evapotranspiration, evaporation, rtol=1e-12)
    assert_allclose(fluxes.runoff, fluxes.surface_runoff + fluxes.baseflow, rtol=1e-12)
    assert_allclose(
        fluxes.corrected_precipitation, fluxes.rainfall + fluxes.snowfall, rtol=1e-12
    )


@given(days())
def test_the_water_balance_closes(day):
    new_state, fluxes, diagnostics = walked(day)
    gained = sum(new_state) - sum(day.state)
    lost = fluxes.evapotranspiration + fluxes.runoff
    residual = fluxes.rainfall + fluxes.snowfall - lost - gained
    turned_over = sum(day.state) + fluxes.corrected_precipitation
    assert_at_most(np.abs(residual), 1e-9 * turned_over)
    assert_at_most(np.abs(diagnostics.water_balance_residual), 1e-9 * turned_over)


@given(days())
def test_the_fractions_share_out_the_water_input(day):
    _, fluxes, diagnostics = walked(day)
    shares = (
        diagnostics.soil_recharge_fraction,
        diagnostics.groundwater_recharge_fraction,
        diagnostics.surface_runoff_fraction,
    )
    assert_allclose(sum(shares), 1.0, rtol=1e-12)
    parts = (fluxes.soil_recharge, fluxes.groundwater_recharge, fluxes.surface_runoff)
    for share, part in zip(shares, parts, strict=True):
        assert (share.numpy() >= 0).all()
        assert_allclose(share * fluxes.water_input, part, rtol=1e-9, atol=1e-9)


@given(days())
def test_a_cell_does_not_feel_the_others(day):
    last = tf.nest.map_structure(lambda x: x[-1:], day)
    together, alone = walked(day), walked(last)
    tf.nest.map_structure(lambda x, y: assert_array_equal(x[-1:], y), together, alone)


@given(
    # Below 1e-8 mm the published form is no longer the same algebra.
    hnp.arrays("float64", 8, elements=st.just(0.0) | st.floats(1e-8, 1000)),
    hnp.arrays("float64", 8, elements=st.floats(0, 1000)),
    hnp.arrays("float64", 8, elements=st.floats(0, 1)),
)
def test_soil_recharge_is_that_of_the_published_form(water_input, deficit, share):
    published = np.minimum(1, deficit / np.maximum(water_input, 1e-8))
    published *= share * water_input
    recharge = physics.soil_recharge(water_input, deficit, share)
    assert_allclose(recharge, published, rtol=1e-12, atol=1e-300)


# Kinks

KINKS = {
    "0 degC": {"air_temperature": FREEZING_POINT},
    "no snow": {"swe": 0.0},
    "the snow just melts": {"swe": 6.0},
    "no precipitation": {"precipitation": 0.0},
    "no radiation": {"net_radiation": 0.0},
    "negative radiation": {"net_radiation": -50.0},
    "empty soil": {"soil_moisture": 0.0},
    "full soil": {"soil_moisture": 70.0},
    "full soil and no radiation": {"soil_moisture": 70.0, "net_radiation": 0.0},
    "no water input": {"precipitation": 0.0, "swe": 0.0},
    "no water input to a full soil": {
        "precipitation": 0.0,
        "swe": 0.0,
        "soil_moisture": 70.0,
        "net_radiation": 0.0,
    },
    "all rain is intercepted": {"precipitation": 1.0, "swe": 0.0},
    "nothing at all": {
        **dict.fromkeys(WaterState._fields, 0.0),
        "net_radiation": 0.0,
        "precipitation": 0.0,
        "air_temperature": FREEZING_POINT,
    },
    "coefficients of zero": dict.fromkeys(Coefficients._fields, 0.0),
}


@pytest.mark.parametrize("kink", KINKS)
def test_gradients_are_finite_at_every_kink(kink, dtype):
    day = altered(**KINKS[kink]).to(dtype)
    inputs = tf.nest.flatten(tuple(day))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        results = [x._asdict() for x in walked(day)]
    for record in results:
        for name, value in record.items():
            assert np.isfinite(value), name
            for gradient in tape.gradient(value, inputs):
                assert gradient is None or np.isfinite(gradient), name


def test_results_have_the_dtype_of_the_day(dtype):
    for value in tf.nest.flatten(walked(WARM_DAY.to(dtype))):
        assert value.dtype == dtype


def test_results_have_the_shape_of_the_day():
    day = tf.nest.map_structure(lambda x: tf.fill((2, 3), x), WARM_DAY.to("float32"))
    for record, kind in zip(
        walked(day), (WaterState, Fluxes, Diagnostics), strict=True
    ):
        assert isinstance(record, kind)
        assert all(value.shape == (2, 3) for value in record)

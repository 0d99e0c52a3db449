import pytest
import yaml

from h2mv_tf import config
from h2mv_tf.errors import UserError


def written(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_defaults_are_the_published_training():
    training = config.load().training
    assert training.learning_rate == 0.01
    assert training.weight_decay == 0.01
    assert training.clip_value == 0.5
    assert training.batch_size == 256
    assert training.patience == 30


def test_h2mv_yaml_says_the_same_as_the_defaults(configs):
    shipped = config.load(configs / "h2mv.yaml", ["data.store=data/demo.zarr"])
    assert shipped == config.Config()


@pytest.mark.parametrize("name", ["h2mv.yaml", "demo.yaml", "posterior.yaml"])
def test_a_shipped_configuration_is_valid(configs, name):
    config.load(configs / name)


def test_a_configuration_survives_a_round_trip(tmp_path):
    settings = config.load(
        None,
        [
            "objective.constraints=[swe, et]",
            "window.length=400",
            "data.groups={et: et_xbase}",
            "synthetic.years=2",
        ],
    )
    assert config.load(written(tmp_path, settings.to_yaml())) == settings


def test_an_override_reaches_its_field_and_no_other():
    settings = config.load(None, ["training.learning_rate=0.005"])
    assert settings.training.learning_rate == 0.005
    assert settings == config.Config(training={"learning_rate": 0.005})


def test_an_override_wins_over_the_file(tmp_path):
    file = written(tmp_path, "training: {epochs: 7, patience: 3}")
    settings = config.load(file, ["training.epochs=9"])
    assert (settings.training.epochs, settings.training.patience) == (9, 3)


def test_a_number_may_be_written_in_scientific_notation():
    assert (
        config.load(None, ["training.weight_decay=1e-3"]).training.weight_decay == 1e-3
    )


def test_constraints_go_by_any_of_their_names():
    settings = config.load(None, ["objective.constraints=[q, evspsbl, swe]"])
    assert settings.objective.constraints == ("runoff", "evapotranspiration", "swe")
    assert config.load(None, ["objective.constraints=swe"]).objective.constraints == (
        "swe",
    )


def test_sections_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        config.load().training.epochs = 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.learning_rte=1", "did you mean 'training.learning_rate'"),
        ("learning_rate=1", "did you mean 'training.learning_rate'"),
        ("trainig.epochs=1", "did you mean 'training'"),
        ("zzz=1", "Expected one of: data, window"),
        ("training.epochs=0", "training.epochs is 0"),
        ("training.epochs=many", "training.epochs is 'many'"),
        ("training.learning_rate=.nan", "training.learning_rate is nan"),
        ("training.learning_rate=-1", "greater than 0"),
        ("training.precision=half", "'float32' or 'float64'"),
        ("training=3", "training is 3"),
        ("split.fold=11", "split.fold is 11"),
        ("model.dropout=1", "model.dropout is 1, but input should be less than 1"),
        ("model.dropout=-0.1", "model.dropout is -0.1"),
        ("model.encoder_layers=0", "model.encoder_layers is 0"),
        ("window.length=1", "at least 2, or full"),
        ("window.length=true", "at least 2, or full"),
        ("objective.constraints=[swee]", "did you mean 'swe'"),
        ("objective.constraints=[swe, swe]", "each once"),
        ("objective.constraints=[]", "one or more"),
        ("data.groups={ett: x}", "did you mean 'et'"),
        ("training.epochs", "section.field=value"),
        ("=3", "section.field=value"),
        ("training.epochs=[", "no YAML value"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override, words):
    with pytest.raises(UserError) as error:
        config.load(None, [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {epochs: [}", "is not YAML"),
        ("- a\n- b", "not a mapping"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("training:\n  epoch: 3", "did you mean 'training.epochs'"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        config.load(written(tmp_path, text))
    assert words in str(error.value)
    assert "config.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml.*No such file"):
        config.load(tmp_path / "nowhere.yaml")


def test_an_empty_file_is_the_defaults(tmp_path):
    assert config.load(written(tmp_path, "")) == config.Config()


def test_the_written_configuration_is_plain_yaml():
    settings = yaml.safe_load(config.Config().to_yaml())
    assert settings["training"]["batch_size"] == 256


def test_a_mistake_in_one_of_two_kinds_names_the_field():
    with pytest.raises(UserError, match=r"distribution\.devices is 0, but "):
        config.load(None, ["distribution.devices=0"])


NORMAL = "objective.likelihood=normal"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["objective.errors=tws"], "objective.errors is set, but"),
        (["objective.likelihood=cauchy"], "objective.likelihood is 'cauchy'"),
        (["uncertainty.posterior=variational"], "uncertainty.posterior is set, but"),
        (["priors.snowfall_correction=null"], "priors is set, but"),
        (
            [NORMAL, "uncertainty.posterior=variational", "priors.baseflow_fraction="],
            "priors.baseflow_fraction is null",
        ),
        (
            [NORMAL, "priors.baseflow_fraction={distribution: Beta}"],
            "priors.baseflow_fraction.concentration1 is missing",
        ),
        (
            [NORMAL, "priors.soil_water_capacity={distribution: Beta}"],
            "one of: LogNormal, Normal, Gamma",
        ),
        (
            [
                NORMAL,
                "priors.soil_water_capacity="
                "{distribution: Gamma, mean: 0 mm, concentration: 2}",
            ],
            "it has to lie above 0",
        ),
        (
            [
                NORMAL,
                "priors.snowfall_correction="
                "{distribution: Normal, mean: 1.2, deviation: 0.1}",
            ],
            "above 0 and below 1",
        ),
        (
            [
                NORMAL,
                "priors.snowfall_correction="
                "{distribution: Normal, mean: 0.8, deviation: -1}",
            ],
            "deviation is -1",
        ),
        (
            [
                NORMAL,
                "priors.baseflow_fraction="
                "{distribution: LogitNormal, median: 3 m, deviation: 1}",
            ],
            "no number in units that convert to d-1",
        ),
        ([NORMAL, "uncertainty.warm_up=500"], "is judged after its warm-up"),
        (["Training.epochs=5"], "unknown key 'Training'"),
        ([NORMAL, "priors.soil_water_capacity.Median=5"], "priors.soil_water_capacity"),
        (["objective.errors=rain"], "objective.errors is"),
    ],
)
def test_a_likelihood_prior_or_posterior_that_cannot_be_is_one_line(overrides, words):
    with pytest.raises(UserError) as error:
        config.load(None, overrides)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_prior_keeps_its_units_and_its_absence_when_it_is_written():
    given = config.load(
        None,
        [
            NORMAL,
            "priors.snowfall_correction=null",
            "priors.soil_water_capacity="
            "{distribution: LogNormal, median: 15 cm m-1, deviation: 1, per: depth}",
        ],
    )
    assert config.parse(given.to_yaml()) == given
    assert given.priors.snowfall_correction is None
    assert given.priors.soil_water_capacity.median == "15 cm m-1"

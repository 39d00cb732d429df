"""Settings: recipes, files, overrides, and what is refused."""

import pytest
import yaml
from pydantic import ValidationError

from voxpanel.config import Config, build_config, merge, read_config, recipe_names
from voxpanel.errors import ConfigError

STAGE = {
    "name": "only",
    "clips": "rated",
    "epochs": 3,
    "learning_rate": 1e-3,
    "mos": [1.0, 1.0],
    "synthesizer": [0.0, 0.0],
}


@pytest.fixture
def write(tmp_path):
    """Return `write(settings, name)`: settings or text to a YAML file."""

    def write_file(settings, name="run.yaml"):
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


def test_the_promised_recipes_are_there():
    assert recipe_names() == ["frozen", "paper", "ssl-mos"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_under_its_own_name(name):
    assert read_config(name).name == name


def test_the_paper_recipe_says_what_the_paper_says():
    config = read_config("paper")
    assert [stage.learning_rate for stage in config.stages] == [1e-4, 5e-5, 1e-5]  # III-D
    assert [stage.clips for stage in config.stages] == ["named", "all", "rated"]
    assert all(10 <= stage.epochs <= 15 for stage in config.stages[:1])
    assert [stage.patience for stage in config.stages] == [5, 5, 5]
    assert config.optimizer.clip_norm == 1.0
    assert config.backbone.fine_tune
    joint, final = config.stages[1:]
    assert joint.mos[0] < joint.mos[1]
    assert joint.synthesizer[0] > joint.synthesizer[1]
    assert final.mos[0] > final.synthesizer[0]


def test_the_baseline_has_no_mixture_and_one_statistic_of_the_last_layer():
    config = read_config("ssl-mos")
    assert config.mixture is None
    assert (config.fusion.layers, config.fusion.statistics) == ("last", ("mean",))
    assert not config.fusion.fullband


@pytest.mark.parametrize("name", recipe_names())
def test_a_config_written_to_json_is_read_back_the_same(name):
    config = read_config(name)
    assert build_config(config.model_dump(mode="json"), "config.json") == config


@pytest.mark.parametrize("name", recipe_names())
def test_a_config_written_to_yaml_is_read_back_the_same(name, write):
    config = read_config(name)
    assert read_config(write(config.model_dump(mode="json"))) == config


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        read_config("frozen").fusion.dim = 3


def test_a_file_says_only_what_differs_from_its_base(write):
    path = write({"base": "frozen", "name": "mine", "optimizer": {"batch_size": 7}})
    config, base = read_config(path), read_config("frozen")
    assert (config.name, config.optimizer.batch_size) == ("mine", 7)
    expected = base.model_copy(
        update={
            "name": "mine",
            "optimizer": base.optimizer.model_copy(update={"batch_size": 7}),
        }
    )
    assert config == expected


def test_bases_may_be_files_with_bases_of_their_own(write):
    first = write({"base": "frozen", "seed": 3, "fusion": {"dim": 32}}, "first.yaml")
    config = read_config(write({"base": first, "fusion": {"dropout": 0.5}}))
    assert (config.seed, config.fusion.dim, config.fusion.dropout) == (3, 32, 0.5)
    assert config.stages == read_config("frozen").stages


def test_stages_of_a_file_replace_those_of_its_base(write):
    config = read_config(write({"base": "frozen", "stages": [STAGE]}))
    assert [stage.name for stage in config.stages] == ["only"]


def test_a_base_that_leads_back_is_refused(write, tmp_path):
    first = write({"base": str(tmp_path / "second.yaml")}, "first.yaml")
    write({"base": first}, "second.yaml")
    with pytest.raises(ConfigError, match=r"first\.yaml: its `base` leads back to itself"):
        read_config(first)


def test_merging_leaves_both_sides_as_they_were():
    base, changes = {"a": {"x": 1}}, {"a": {"y": 2}}
    assert merge(base, changes) == {"a": {"x": 1, "y": 2}}
    assert (base, changes) == ({"a": {"x": 1}}, {"a": {"y": 2}})


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("seed=5", lambda c: c.seed, 5),
        ("optimizer.batch_size=8", lambda c: c.optimizer.batch_size, 8),
        ("optimizer.weight_decay=1e-3", lambda c: c.optimizer.weight_decay, 1e-3),
        ("mixture=null", lambda c: c.mixture, None),
        ("mixture.n_experts=2", lambda c: c.mixture.n_experts, 2),
        ("mixture.hidden=[32, 16, 8]", lambda c: c.mixture.hidden, (32, 16, 8)),
        ("fusion.statistics=[mean]", lambda c: c.fusion.statistics, ("mean",)),
        ("stages.1.epochs=2", lambda c: [s.epochs for s in c.stages][1], 2),
        ("stages.0.mos.1=0.5", lambda c: c.stages[0].mos, (0.0, 0.5)),
        ("stages.2.mos=[0.2, 0.4]", lambda c: c.stages[2].mos, (0.2, 0.4)),
    ],
)
def test_an_override_changes_one_setting_and_no_other(override, read, expected):
    config, before = read_config("paper", [override]), read_config("paper")
    assert read(config) == expected
    assert read(before) != expected
    group = override.partition("=")[0].split(".")[0]
    assert config.model_dump(exclude={group}) == before.model_dump(exclude={group})
    assert len(config.stages) == len(before.stages)


def test_an_override_of_one_place_leaves_the_rest_of_the_list():
    stages, before = (
        read_config("paper", ["stages.1.epochs=2"]).stages,
        read_config("paper").stages,
    )
    assert stages[0] == before[0]
    assert stages[2] == before[2]
    assert stages[1] == before[1].model_copy(update={"epochs": 2})


def test_of_two_overrides_of_a_setting_the_last_one_holds():
    assert read_config("frozen", ["seed=1", "fusion.dim=9", "seed=2"]).seed == 2


def test_a_group_that_a_recipe_took_out_can_be_put_back():
    config = read_config("ssl-mos", ["mixture.n_experts=2"])
    assert config.mixture is not None
    assert config.mixture.n_experts == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fusoin.dim=3", "paper fusoin: not a setting here; did you mean 'fusion'?"),
        ("fusion.dims=3", "paper fusion.dims: not a setting here; did you mean 'dim'?"),
        ("mixture.n_expert=3", "mixture.n_expert: not a setting here; did you mean 'n_experts'?"),
        (
            "stages.1.lerning_rate=1",
            "paper stages.1.lerning_rate: not a setting here; did you mean 'learning_rate'?",
        ),
        ("optimizer.zzz=3", "known are batch_size, weight_decay, warmup, clip_norm"),
    ],
)
def test_an_unknown_name_is_refused_and_the_right_one_suggested(override, message):
    with pytest.raises(ConfigError) as caught:
        read_config("paper", [override])
    assert message in str(caught.value)


def test_every_wrong_setting_of_a_file_is_named(write):
    path = write({"base": "frozen", "seeds": 1, "fusion": {"dim": 0}, "optimizer": {"bach": 1}})
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{path} ") for line in lines)
    assert any("fusion.dim: Input should be greater than or equal to 1" in line for line in lines)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("validation.members=21", r"frozen validation: members \(21\) cannot exceed folds \(20\)"),
        ("backbone.name=transformer", "frozen: backbone.source: the transformer needs a folder"),
        ("mixture.top_k=5", r"frozen mixture: top_k \(5\) cannot exceed n_experts \(4\)"),
        ("mixture.hidden=[]", "frozen mixture.hidden: .* at least 1"),
        ("mixture.hidden=[64, 0]", "frozen mixture.hidden.1: Input should be greater than 0"),
        (
            "mixture={residual: true, hidden: [7]}",
            r"frozen: mixture.residual: the experts' last width \(7\) must be fusion.dim",
        ),
        ("backbone.fine_tune=true", "frozen: blend: a ridge or an earlier model needs a frozen"),
        ("stages=[]", "frozen stages: .* at least 1"),
        (
            "stages.0.clips=every",
            "frozen stages.0.clips: Input should be 'named', 'rated' or 'all'",
        ),
        ("fusion.dropout=1.0", "frozen fusion.dropout: Input should be less than 1"),
        ("backbone.name=whisper", "frozen backbone.name: Input should be 'distilled', 'transf"),
        ("fusion=3", "frozen fusion: Input should be a valid dictionary"),
    ],
)
def test_values_out_of_range_or_that_exclude_one_another_are_refused(override, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        read_config("frozen", [override])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set seed: expected name=value, such as optimizer.batch_size=8"),
        ("=3", "--set =3: expected name=value"),
        ("stages.3.epochs=1", "--set stages.3.epochs=1: stages has places 0 to 2"),
        ("stages.last.epochs=1", "--set stages.last.epochs=1: stages has places 0 to 2"),
        ("seed=[1", "--set seed=[1: not YAML: "),
    ],
)
def test_an_override_that_makes_no_sense_is_refused(override, message):
    with pytest.raises(ConfigError) as caught:
        read_config("paper", [override])
    assert str(caught.value).startswith(message)


def test_a_fine_tuned_encoder_has_one_member():
    with pytest.raises(ConfigError, match=r"^paper: validation\.members: a fine-tuned encoder has"):
        read_config("paper", ["validation.members=2"])


def test_a_name_that_is_neither_recipe_nor_file_is_refused():
    with pytest.raises(
        ConfigError, match="forzen: no such recipe or file; recipes are frozen, pap"
    ):
        read_config("forzen")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not YAML: "),
        ("- one\n- two\n", "expected settings by name, got list"),
        ("", "expected settings by name, got NoneType"),
        ("1: x\n", "expected settings by name, got dict"),
        ("!!python/object:os.system {}\n", "not YAML: could not determine a constructor"),
    ],
)
def test_a_file_without_settings_is_refused(text, message, write):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: cannot be read as UTF-8 text"):
        read_config(path)


def test_a_config_without_stages_trains_nothing_and_is_refused():
    with pytest.raises(ConfigError, match="here stages: Field required"):
        build_config({"name": "x"}, "here")


def test_the_defaults_build_a_config_with_any_stage():
    assert Config.model_validate({"stages": [STAGE]}).mixture is not None

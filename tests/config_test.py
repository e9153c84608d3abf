"""Every field has a range or a kind, is read somewhere, and survives the way through JSON."""

import enum
import inspect
import json
import pathlib
import re
import runpy

import pytest

from uhman_jax import config as config_lib
from uhman_jax import main
from uhman_jax.config import Config, Decay, Duplicates, Estimator, flatten, from_dict, to_dict
from uhman_jax.config_checks import differences, nearest_field, validate
from uhman_jax.losses import make_loss
from uhman_jax.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


def with_field(path, value):
    config = target = Config()
    *sections, name = path.split(".")
    for section in sections:
        target = getattr(target, section)
    setattr(target, name, value)
    return config


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_config_file_is_valid_and_named_after_its_file(path):
    config = runpy.run_path(str(path))["get_config"]()
    validate(config)
    assert config.name == path.stem


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bl", "model.name: uhman before, bl now"),
        ("ua", "model.name: uhman before, ua now"),
        ("threewm", "model.name: uhman before, 3wm now"),
        ("uhman_a", "model.region_attention: true before, false now"),
        ("uhman_b", "model.frame_attention: true before, false now"),
        ("uhman_c", "model.user_guidance: true before, false now"),
    ],
)
def test_a_system_of_the_study_differs_from_natural_s_network_in_one_setting(name, change):
    natural, other = (
        main.parse([f"--config={ROOT}/configs/{stem}.py"]).config for stem in ("natural", name)
    )
    path = "model.direct_path: true before, false now"
    assert differences(natural, other) == [f"name: natural before, {name} now", change, path]


@pytest.mark.parametrize("name", ["uhman", "bl", "ua", "3wm", "UA"])
def test_a_flag_names_a_system_as_files_do(name):
    flags = [f"--config={ROOT}/configs/natural.py", f"--config.model.name={name}"]
    config = main.parse(flags).config
    assert to_dict(config)["model"]["name"] == config.model.name.value == name.lower()
    assert from_dict(to_dict(config)) == config


def test_every_number_has_a_range_and_every_range_a_number():
    numbers = {path for path, value in flatten(Config()).items() if type(value) in (int, float)}
    assert config_lib.ranges().keys() == numbers


def test_every_field_is_read_somewhere():
    sources = " ".join(
        path.read_text() for path in (ROOT / "uhman_jax").rglob("*.py") if "config" not in path.name
    )
    # All settings of the loss go to `make_loss`, which takes no other.
    taken = {f"loss.{name}" for name in inspect.signature(make_loss).parameters}
    unread = [
        path
        for path in flatten(Config())
        if path not in taken and not re.search(rf"[.\"]{path.rsplit('.', 1)[-1]}\b", sources)
    ]
    assert not unread


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.batch_size", 0, r"train\.batch_size must be in \[1, inf\), got 0; .*32"),
        ("train.batch_size", 1.5, r"train\.batch_size must be a whole number, got 1\.5"),
        ("train.batch_size", True, "train.batch_size must be a whole number, got True"),
        ("train.learning_rate", float("nan"), "train.learning_rate must be a finite number"),
        ("train.learning_rate", 0.0, r"train\.learning_rate must be in \(0, inf\), got 0\.0"),
        ("train.momentum", 1.0, r"train\.momentum must be in \[0, 1\), got 1\.0"),
        ("model.unit_length", 1, "model.unit_length must be true or false, got 1"),
        ("loss.estimator", "exact", "loss.estimator must be one of sampled exact"),
        ("model.num_heads", 5, r"num_heads must divide model\.hidden_size 32, got 5; use e\.g\. 1"),
        ("train.decay_at", (0.9, 0.5), r"train\.decay_at must be increasing fractions"),
        ("train.decay_at", (0.5, 0.5), r"train\.decay_at must be increasing fractions"),
        ("train.decay_at", (0.5, "x"), "train.decay_at must be a tuple of numbers"),
        ("evaluate.select_by", "P@7", r"select_by must be one of .*, got 'P@7'; use e\.g\. P@10"),
        ("name", "a/b", "name must be a plain folder name, got 'a/b'"),
        ("name", "", "name must be a plain folder name"),
        ("preprocess.weights", "", "preprocess.weights must be imagenet, random or"),
        ("data.simulated_dir", "", "data.simulated_dir must name a folder"),
        ("simulator.num_hashtags", 5, "num_hashtags must be at least num_classes"),
        ("simulator.objects_per_clip", 999, "objects_per_clip must be at most num_classes"),
        ("simulator.frames_per_object", 999, "frames_per_object must be at most num_frames"),
        ("simulator.min_seconds", 99.0, "min_seconds must be at most max_seconds .*, got 99"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_rule_value_and_remedy(path, value, message):
    config = with_field(path, value)
    with pytest.raises(UserError, match=message) as caught:
        validate(config)
    assert "\n" not in str(caught.value)


def test_a_run_that_may_stop_early_needs_a_schedule_without_an_end():
    for decay in Decay:
        config = with_field("train.decay", decay)
        config.train.stop_after = 5
        if decay is not Decay.COSINE:
            validate(config)
            continue
        message = "train.stop_after must be 0 with train.decay=cosine, .*, got 5; use 0, or"
        with pytest.raises(UserError, match=message):
            validate(config)


def test_all_wrong_values_are_listed_at_once():
    config = with_field("train.batch_size", 0)
    config.view.test_share = 1.0
    with pytest.raises(UserError) as caught:
        validate(config)
    assert len(str(caught.value).splitlines()) == 2


def test_defaults_are_valid_and_a_float_may_be_a_whole_number():
    validate(Config())
    validate(with_field("train.learning_rate", 1))


def test_config_survives_json():
    config = with_field("train.decay_at", (0.25,))
    config.loss.estimator = Estimator.SAMPLED
    config.train.decay = Decay.PLATEAU
    config.data.root = "clips/α β"
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_an_absent_field_has_the_value_for_the_behaviour_before_it():
    """Which is the default, except for `data.duplicates`."""
    expected = with_field("train.batch_size", 7)
    expected.data.duplicates = Duplicates.KEEP
    assert from_dict({"train": {"batch_size": 7}}) == expected
    assert from_dict({"data": {"duplicates": "together"}}) == Config()


@pytest.mark.parametrize(
    ("stored", "command", "expected"),
    [
        (None, "together", "keep"),
        (None, "keep", "keep"),
        (None, "drop", "drop"),
        ("keep", "together", "together"),
        ("together", "together", "together"),
        ("drop", "keep", "keep"),
    ],
)
def test_an_older_run_keeps_its_behaviour_unless_the_command_sets_another(
    stored, command, expected
):
    values = to_dict(Config())
    values["data"] = {"duplicates": stored} if stored else {}
    config = with_field("data.duplicates", Duplicates(command))
    before = to_dict(config)
    after = config_lib.go_on_with(config, values)
    assert after == with_field("data.duplicates", Duplicates(expected))
    assert to_dict(config) == before and after is not config


@pytest.mark.parametrize("values", [{"nme": "x"}, {"loss": {"estimator": "best"}}])
def test_an_unknown_field_or_choice_in_a_stored_config_is_an_error(values):
    with pytest.raises(UserError, match="nme|one of sampled exact, got 'best'"):
        from_dict(values)


def test_differences_name_each_field_with_both_values():
    other = with_field("train.batch_size", 64)
    other.loss.estimator = Estimator.SAMPLED
    assert differences(Config(), other) == [
        "loss.estimator: exact before, sampled now",
        "train.batch_size: 32 before, 64 now",
    ]
    assert differences(other, other) == []


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("loss.estimatr", "loss.estimator"),
        ("train.learning_rat", "train.learning_rate"),
        ("train.batchsize", "train.batch_size"),
        ("batch_size", "train.batch_size"),
        ("model.learning_rate", "train.learning_rate"),
        ("los.margin", "loss.margin"),
        ("sed", "seed"),
    ],
)
def test_the_nearest_field_is_the_one_meant(misspelt, meant):
    assert nearest_field(misspelt) == meant


def test_fields_are_mutable_and_of_types_that_flags_can_set():
    for value in flatten(Config()).values():
        assert isinstance(value, bool | int | float | str | tuple | enum.Enum)
    assert not Config.__dataclass_params__.frozen

"""Whatever a person writes after --config.FIELD= is used as written, or refused in sentences."""

import enum
import json
import math

from hypothesis import example, given, settings
from hypothesis import strategies as st

from uhman_jax import main as main_lib
from uhman_jax.config import Config, flatten, from_dict, to_dict
from uhman_jax.runtime.errors import UserError

FIELDS = flatten(Config())
WORDS = ("nan", "inf", "-inf", "1e400", "1e-400", "0x10", "1_000", "٣", "", " 1", "None", "true")
WORDS += ("()", "(0.5,)", "0.5,0.7", "[0.1, 0.2]", "'random'", "{}", "__import__('os')", "\0", "😀")
WORDS += tuple(
    sorted({c.value for v in FIELDS.values() if isinstance(v, enum.Enum) for c in type(v)})
)
TEXTS = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.text(max_size=20),
)


def means(text, value):
    """Whether a value is what the text says, read in the plainest way."""
    if isinstance(value, enum.Enum):
        return text.lower() in (str(value.value), value.name.lower())
    if isinstance(value, bool):
        return text.lower() in (
            ("true", "t", "1", "yes", "y") if value else ("false", "f", "0", "no", "n")
        )
    if isinstance(value, int):
        return int(text, 0) == value
    if isinstance(value, float):
        return math.isfinite(value) and float(text) == value
    if isinstance(value, tuple):
        inside = text.strip("()[] ").rstrip(", ")
        return value == tuple(float(part) for part in inside.split(",") if part)
    return text == value


@settings(max_examples=400, deadline=None)
@given(overrides=st.dictionaries(st.sampled_from(sorted(FIELDS)), TEXTS, min_size=1, max_size=3))
@example(overrides={"train.batch_size": "1e3"})
@example(overrides={"train.decay_at": "()"})
@example(overrides={"preprocess.weights": "a=b --config.seed=3"})
def test_a_setting_is_used_as_written_or_refused(overrides):
    argv = [f"--config.{path}={text}" for path, text in overrides.items()]
    try:
        config = main_lib.parse(["--config=configs/natural.py", *argv]).config
    except UserError as error:
        assert any(path.rsplit(".")[-1] in str(error) for path in overrides), error
        return
    values = flatten(config)
    for path, text in overrides.items():
        assert means(text, values[path]), (path, text, values[path])
        assert type(values[path]) is type(FIELDS[path])
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@settings(max_examples=200, deadline=None)
@given(
    argv=st.lists(st.one_of(st.text(max_size=12), st.text(max_size=12).map("--config.{}".format)))
)
def test_no_command_line_at_all_is_a_traceback(argv):
    try:
        arguments = main_lib.parse(["--config=configs/natural.py", *argv])
    except UserError as error:
        assert str(error)
        return
    assert isinstance(arguments.config, Config)

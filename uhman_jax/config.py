"""Every setting of a run: typed, defaulted, with unit and meaning.

`configs/NAME.py` returns a `Config` that differs from these defaults; flags such as
`--config.train.learning_rate=0.05` override single fields; `validate` is called once after that,
and nobody writes to a config again. 0 and "" mean "off" or "automatic" where the comment says so.
"""

import copy
import dataclasses
import difflib
import enum
import functools
import math
from dataclasses import field
from typing import Any

from uhman_jax.errors import UserError
from uhman_jax.preprocess.backbone import BACKBONES


class Door(enum.Enum):
    """How the simulator delivers a world."""

    PIXELS = "pixels"  # real MP4 files, through the whole pipeline
    FEATURES = "features"  # region features, written straight into shards


class World(enum.Enum):
    """Who tags what in a simulated world."""

    SELECTION = "selection"  # the user's taste picks the object that is tagged
    ADDITIVE = "additive"  # taste adds to content
    EVERYTHING = "everything"  # users tag all they see


class Duplicates(enum.Enum):
    """What becomes of clips whose content another clip has too."""

    TOGETHER = "together"  # all copies lie in one part of the split
    DROP = "drop"  # the first of each is kept
    KEEP = "keep"  # they count as different clips, as a run does whose config lacks the field


class Storage(enum.Enum):
    """How shards hold region features."""

    UINT8 = "uint8"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class Distribution(enum.Enum):
    """Hashtag distribution of a view (paper, section 3.1)."""

    NATURAL = "natural"
    BALANCED = "balanced"


class Split(enum.Enum):
    """How videos are divided into train, validation and test."""

    RANDOM = "random"  # by video, the paper's
    TEMPORAL = "temporal"  # the newest videos are the test
    COLD_USER = "cold_user"  # test users post nothing in train


class ModelName(enum.Enum):
    """Which system to train (section 3.2)."""

    UHMAN = "uhman"  # sections 2.2 and 2.3
    BL = "bl"  # bilinear: the clip alone
    UA = "ua"  # user additive
    THREE_WAY = "3wm"  # three-way multiplicative
    locals()["3WM"] = "3wm"  # a flag takes the names of members; this alias is the value

    def title(self, **settings: Any) -> str:
        """The system as tables call it; UHMAN with a letter for each switch that is off.

        >>> ModelName.THREE_WAY.title(), ModelName.UHMAN.title(region_attention=False)
        ('3WM', 'UHMAN(a)')
        """
        letters = {"region_attention": "a", "frame_attention": "b", "user_guidance": "c"}
        missing = "".join(letters[name] for name in letters if not settings.get(name, True))
        ablated = self is ModelName.UHMAN and missing
        return f"{self.value.upper()}({missing})" if ablated else self.value.upper()


class Loss(enum.Enum):
    """What training minimises."""

    WARP = "warp"  # section 2.4
    SOFTMAX = "softmax"  # cross-entropy over all hashtags


class Optimiser(enum.Enum):
    """How gradients become updates."""

    SGD = "sgd"  # section 2.4
    ADAMW = "adamw"


class Estimator(enum.Enum):
    """How the rank of a positive hashtag is found."""

    SAMPLED = "sampled"  # from a few uniform negatives
    EXACT = "exact"  # from the scores of all hashtags


class RankWeight(enum.Enum):
    """Weight of a positive in the loss, as a function of its rank."""

    NONE = "none"  # section 2.4 to the letter
    WSABIE = "wsabie"  # L(rank) = 1 + 1/2 + ... + 1/rank


class Decay(enum.Enum):
    """When the learning rate falls."""

    STEPS = "steps"  # at fixed shares of the run
    PLATEAU = "plateau"  # when the validation score stops improving
    COSINE = "cosine"  # smoothly to 0 at the end of the run


class Features(enum.Enum):
    """Where training finds the region features."""

    AUTO = "auto"  # on the device where they fit half of its memory, else read ahead
    DEVICE = "device"  # read once, kept there
    STREAM = "stream"  # read ahead from the shards, batch by batch


class Precision(enum.Enum):
    """Type of the model's activations; parameters, softmax and losses stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


BackboneName = enum.Enum(  # type: ignore[invalid-argument]
    "BackboneName", {name.upper(): name for name in BACKBONES}
)


class Backend(enum.Enum):
    """The library that runs the backbone."""

    AUTO = "auto"  # JAX where it has an accelerator, else TensorFlow
    TENSORFLOW = "tensorflow"
    JAX = "jax"


@dataclasses.dataclass
class DataConfig:
    """Where the raw dataset is."""

    root: str = ""  # folder with videos.csv; "": the simulator's, under `simulated_dir`
    simulated_dir: str = "data"  # local; each simulated dataset has a folder, by its fingerprint
    strict: bool = False  # stop on any bad row instead of dropping it
    duplicates: Duplicates = Duplicates.TOGETHER  # the video streams of clips are compared


@dataclasses.dataclass
class SimulatorConfig:
    """The simulated world (DESIGN: the embedded default and the study's ground truth)."""

    door: Door = Door.PIXELS
    world: World = World.SELECTION
    seed: int = 0  # of the world, its users and its clips
    num_videos: int = 600  # clips
    num_users: int = 300
    num_hashtags: int = 60  # object words and generic hashtags together
    num_generic: int = 4  # hashtags that fit every clip
    num_classes: int = 14  # kinds of object; the words are dealt out among them
    num_countries: int = 6  # a country and an age group (under 19, or not) make a dialect
    objects_per_clip: int = 3  # objects of different classes in a clip
    zipf_exponent: float = 0.4  # long tail of object classes: popularity ~ rank ** -exponent
    taste_strength: float = 3.0  # scale of the taste logits; 0: every user picks at random
    num_styles: int = 1  # ways to show an object, such as its light or pace; features door only
    style_share: float = 0.0  # share of taste variance that is about styles, not classes, 0..1
    private_share: float = 0.5  # share of taste variance that attributes do not explain, 0..1
    private_rank: int = 4  # dimensions of that private taste
    user_share: float = 0.5  # weight of the user's part against the clip's; additive world only
    dialect_strength: float = 0.8  # spread of a word's log rate between dialects; 0: one language
    mean_hashtags: float = 3.42  # hashtags per video (paper, section 3.1)
    generic_share: float = 0.08  # share of the hashtags that are generic, roughly
    missing_prob: float = 0.15  # chance that an attribute is left empty
    mean_history: float = 8.0  # earlier hashtags per user
    no_history_prob: float = 0.2  # share of users without any
    posterior_samples: int = 1024  # draws of private taste behind the observable oracle
    min_seconds: float = 2.0  # shortest clip; pixels door only
    max_seconds: float = 6.0  # longest clip; pixels door only
    object_size: float = 0.5  # mean width of an object, share of the frame's; pixels door only
    visible_share: float = 0.65  # mean share of a clip that shows an object; pixels door only
    frames_per_object: int = 2  # frames that show an object; features door only
    regions_per_object: int = 9  # cells of the 8x8 grid that an object covers; features door only
    noise: float = 1.0  # feature noise in units of the class signal; features door only
    num_channels: int = 256  # feature channels; features door only
    num_frames: int = 8  # frames per clip, 5 per second; features door only


@dataclasses.dataclass
class PreprocessConfig:
    """Videos to region features (paper, section 2.2); the comments are also the help of flags."""

    backbone: BackboneName = BackboneName("inception_v3")  # network whose features are kept
    weights: str = "random"  # random (no download), imagenet (download) or a Keras .h5 file, no top
    weights_seed: int = 0  # seed of random weights
    calibration_frames: int = 64  # frames for batch statistics of random weights; 0: none
    frames_per_second: float = 5.0  # sampling rate
    max_frames: int = 16  # frames kept per clip, spread evenly (n_f)
    storage: Storage = Storage.UINT8  # type of stored features
    videos_per_shard: int = 64  # videos in a shard, the unit of work
    batch_frames: int = 16  # frames per call of the network; 128 on a GPU
    precision: Precision = Precision.FLOAT32  # type of the network's activations; bfloat16 on a GPU
    backend: Backend = Backend.AUTO  # runs the network; auto: JAX if it has an accelerator
    num_decoders: int = 0  # decoding processes; 0: one per core, at most 8
    clip_timeout: float = 60.0  # seconds of decoding after which a clip is given up
    max_megabytes: float = 1024.0  # larger files are not read
    max_seconds: float = 3600.0  # longer clips are not decoded
    max_megapixels: float = 64.0  # larger pictures are not decoded (8K has 33)
    decoder_memory: float = 0.75  # GiB of address space of a decoder; 0: no limit
    output_dir: str = ""  # folder of the shards; "": ROOT/features/<hash>


@dataclasses.dataclass
class ViewConfig:
    """Which hashtags, which split, which histories."""

    distribution: Distribution = Distribution.NATURAL
    split: Split = Split.RANDOM
    seed: int = 0  # of the split and of downsampling
    min_count: int = 10  # training uses below which a hashtag leaves the vocabulary (section 3.1)
    test_share: float = 0.2  # of the videos (section 3.1)
    validation_share: float = 0.1  # of the remaining videos
    train_share: float = 1.0  # of the training videos that are kept; the vocabulary is that of all
    balanced_top: int = 150  # most frequent hashtags that `balanced` downsamples (section 3.1)
    max_history: int = 32  # history hashtags kept per video, most used first
    max_positives: int = 16  # hashtags kept per video


@dataclasses.dataclass
class ModelConfig:
    """The network (paper, sections 2.2 and 2.3)."""

    name: ModelName = ModelName.UHMAN
    hidden_size: int = 32  # K (section 3.3)
    embedding_size: int = 32  # d (section 3.3)
    num_heads: int = 4  # not given in the paper; divides hidden_size
    region_attention: bool = True  # False: mean over regions, UHMAN(a) (section 3.4)
    frame_attention: bool = True  # False: mean over frames, UHMAN(b) (section 3.4)
    user_guidance: bool = True  # False: all users attend alike, UHMAN(c); not in the paper
    unit_length: bool = True  # query and hashtag vectors of length 1: the margin has a scale
    dropout: float = 0.0  # share of hidden units dropped in training, 0..1
    history_dropout: float = 0.0  # share of a history's hashtags left out in training
    region_dropout: float = 0.0  # share of a frame's regions left out in training
    precision: Precision = Precision.FLOAT32


@dataclasses.dataclass
class LossConfig:
    """WARP (paper, section 2.4) or softmax."""

    name: Loss = Loss.WARP
    temperature: float = 0.1  # scores are divided by it; `softmax` only
    estimator: Estimator = Estimator.EXACT
    rank_weight: RankWeight = RankWeight.WSABIE
    margin: float = 0.1  # m (section 2.4)
    num_negatives: int = 4  # negatives per positive, `sampled` only (section 2.4)


@dataclasses.dataclass
class TrainConfig:
    """Optimisation (paper, section 2.4)."""

    num_seeds: int = 1  # models trained at once over one read of the features
    batch_size: int = 32  # videos per step
    microbatch_size: int = 0  # videos at once, divides batch_size; 0: what fits a CPU's cache
    features: Features = Features.AUTO
    num_epochs: int = 50  # passes over the training split
    optimiser: Optimiser = Optimiser.SGD
    learning_rate: float = 0.05  # the paper's is 0.1, for SGD with a step per pair (section 2.4)
    user_rate: float = 30.0  # learning rate of attribute and history rows, times this
    hashtag_rate: float = 100.0  # learning rate of hashtag rows, times this
    attention_rate: float = 1.0  # learning rate of attention's queries and keys, times this
    momentum: float = 0.0  # `sgd` only
    ema: float = 0.0  # decay of the moving average of the parameters that is evaluated; 0: off
    weight_decay: float = 0.0  # matrices only; L2 with `sgd`, decoupled with `adamw`
    clip_norm: float = 5.0  # global norm above which gradients are scaled down; 0: off
    decay: Decay = Decay.STEPS
    decay_factor: float = 0.1  # (section 2.4)
    decay_at: tuple[float, ...] = (0.6, 0.85)  # shares of the run; `steps` only
    patience: int = 5  # evaluations without improvement before a decay; `plateau` only
    eval_every: int = 0  # steps between validations; 0: once per epoch
    checkpoint_every: int = 0  # steps between checkpoints; 0: at validations, in 5 % of the time


@dataclasses.dataclass
class EvaluateConfig:
    """Full ranking and what is written of it."""

    batch_size: int = 64  # videos per scoring step
    top_k: int = 50  # hashtags per video in predictions.parquet
    select_by: str = "P@10"  # validation metric that picks the best parameters


@dataclasses.dataclass
class Config:
    """One run."""

    name: str = "natural"  # default workdir is runs/<name>
    seed: int = 0  # of parameters, batch order and negatives; seed s of a population uses seed + s
    data: DataConfig = field(default_factory=DataConfig)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


# What a stored config means by a field that it lacks, where that is not the field's default.
_BEFORE: dict[str, Any] = {"data.duplicates": Duplicates.KEEP}

# Ranges of all numbers; a round bracket excludes its end.
_RANGES = {
    "[0, 2147483647]": "seed simulator.seed preprocess.weights_seed view.seed",
    "[1, inf)": """
        simulator.num_videos simulator.num_users simulator.num_hashtags simulator.num_classes
        simulator.num_countries simulator.objects_per_clip simulator.private_rank
        simulator.num_styles
        simulator.mean_hashtags simulator.posterior_samples simulator.frames_per_object
        simulator.num_channels simulator.num_frames preprocess.max_frames
        preprocess.videos_per_shard preprocess.batch_frames view.min_count view.balanced_top
        view.max_history view.max_positives model.hidden_size model.embedding_size model.num_heads
        loss.num_negatives train.batch_size train.num_epochs train.patience
        evaluate.batch_size evaluate.top_k""",
    "[0, inf)": """
        simulator.num_generic simulator.zipf_exponent simulator.taste_strength
        simulator.dialect_strength simulator.mean_history simulator.noise
        preprocess.calibration_frames preprocess.num_decoders preprocess.decoder_memory
        train.weight_decay train.clip_norm train.eval_every train.checkpoint_every
        train.microbatch_size""",
    "(0, inf)": """
        simulator.min_seconds simulator.max_seconds preprocess.frames_per_second
        preprocess.clip_timeout preprocess.max_megabytes preprocess.max_seconds
        preprocess.max_megapixels loss.margin loss.temperature
        train.learning_rate train.user_rate train.hashtag_rate train.attention_rate""",
    "[0, 1]": """
        simulator.private_share simulator.user_share simulator.missing_prob
        simulator.no_history_prob simulator.style_share""",
    "(0, 1]": """
        simulator.object_size simulator.visible_share view.train_share train.decay_factor""",
    "[0, 1)": """
        simulator.generic_share view.validation_share model.dropout
        model.history_dropout model.region_dropout train.momentum train.ema""",
    "(0, 1)": "view.test_share",
    "[1, 64]": "simulator.regions_per_object",
    "[1, 1024]": "train.num_seeds",
}
SCORES = tuple(f"{name}@{k}" for name in ("P", "R", "F1") for k in (1, 5, 10, 50))
SCORES += ("NDCG@10", "MRR", "MAP")


def validate(config: Config) -> None:
    """Checks every field before any work.

    Raises:
        UserError: one line per field that is wrong: the rule, the value and the remedy.
    """
    values, defaults = flatten(config), flatten(Config())
    problems = [
        f"{path} must be {_kind(default)}, got {values[path]!r}; its default is {_text(default)}"
        for path, default in defaults.items()
        if not _same_kind(values[path], default)
    ]
    if not problems:
        problems = [
            f"{path} must be in {interval}, got {values[path]}; its default is {defaults[path]}"
            for interval, paths in _RANGES.items()
            for path in paths.split()
            if not _within(values[path], interval)
        ]
    if problems := problems or _combined_problems(config):
        raise UserError("\n".join(problems))


def _combined_problems(config: Config) -> list[str]:
    """Rules that are more than the range of one number."""
    simulator, model, train = config.simulator, config.model, config.train
    shares = list(train.decay_at)
    words = simulator.num_hashtags - simulator.num_generic
    checks = [
        (
            config.name not in ("", ".", "..") and not set(config.name) & set("/\\\0"),
            f"name must be a plain folder name, got {config.name!r}; write e.g. natural",
        ),
        (
            model.hidden_size % model.num_heads == 0,
            f"model.num_heads must divide model.hidden_size {model.hidden_size}, "
            f"got {model.num_heads}; use e.g. {math.gcd(model.hidden_size, model.num_heads)}",
        ),
        (
            shares == sorted(set(shares)) and all(0 < share < 1 for share in shares),
            f"train.decay_at must be rising shares of the run between 0 and 1, got "
            f"{train.decay_at}; use e.g. (0.6, 0.85)",
        ),
        (
            train.batch_size % (train.microbatch_size or 1) == 0,
            f"train.microbatch_size must divide train.batch_size {train.batch_size}, "
            f"got {train.microbatch_size}; use e.g. "
            f"{math.gcd(train.batch_size, train.microbatch_size)}, or 0 to have it chosen",
        ),
        (
            config.evaluate.select_by in SCORES,
            f"evaluate.select_by must be one of {' '.join(SCORES)}, got "
            f"{config.evaluate.select_by!r}; use e.g. P@10",
        ),
        (
            config.preprocess.weights != "",
            "preprocess.weights must be imagenet, random or a Keras .h5 file, got ''; use random",
        ),
        (
            config.data.root != "" or config.data.simulated_dir != "",
            "data.simulated_dir must name a folder where data.root is empty, got ''; use data",
        ),
        (
            "://" not in config.data.simulated_dir,
            "data.simulated_dir must be a local folder, since clips are drawn there, got "
            f"{config.data.simulated_dir!r}; copy a simulated dataset to the bucket and name it in "
            "data.root",
        ),
        (
            words >= simulator.num_classes,
            f"simulator.num_hashtags must be at least num_classes {simulator.num_classes} and "
            f"num_generic {simulator.num_generic} together, got {simulator.num_hashtags}; "
            f"use {simulator.num_classes + simulator.num_generic} or more",
        ),
        (
            simulator.objects_per_clip <= simulator.num_classes,
            f"simulator.objects_per_clip must be at most num_classes {simulator.num_classes}, "
            f"got {simulator.objects_per_clip}; use a smaller one or more classes",
        ),
        (
            simulator.frames_per_object <= simulator.num_frames,
            f"simulator.frames_per_object must be at most num_frames {simulator.num_frames}, "
            f"got {simulator.frames_per_object}; use a smaller one or more frames",
        ),
        (
            simulator.min_seconds <= simulator.max_seconds,
            f"simulator.min_seconds must be at most max_seconds {simulator.max_seconds}, "
            f"got {simulator.min_seconds}; use a smaller one",
        ),
    ]
    return [problem for fine, problem in checks if not fine]


def _within(value: Any, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


def _same_kind(value: object, default: object) -> bool:
    """Whether a value has its field's type; a whole number is a float too, a bool is no number."""
    if isinstance(default, tuple):
        return isinstance(value, tuple | list) and all(_same_kind(item, 0.0) for item in value)
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return type(value) is type(default)


def _kind(default: object) -> str:
    """What a field takes, in words."""
    if isinstance(default, enum.Enum):
        return "one of " + " ".join(str(choice.value) for choice in type(default))
    names: dict[type, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a finite number",
    }
    return names.get(type(default), "text" if isinstance(default, str) else "a tuple of numbers")


def _text(value: object) -> str:
    """How a value is written in a flag."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value) if isinstance(value, enum.Enum) else str(value) or "''"


def flatten(config: object, prefix: str = "") -> dict[str, object]:
    """Every field by its path, such as `train.batch_size`, in the order of the dataclasses."""
    fields = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            fields |= flatten(value, f"{prefix}{item.name}.")
        else:
            fields[prefix + item.name] = value
    return fields


def flag_rule(path: str) -> tuple[str, str]:
    """What the field at a path takes and an example of it, for messages of the command line."""
    default = flatten(Config())[path]
    return f"--config.{path} must be {_kind(default)}", f"--config.{path}={_text(default)}"


def nearest_field(path: str) -> str:
    """The field that a misspelt path most likely means: by its last name and as a whole."""
    paths = list(flatten(Config()))

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, path, candidate).ratio()
        name, other = path.rsplit(".", 1)[-1], candidate.rsplit(".", 1)[-1]
        return whole + difflib.SequenceMatcher(None, name, other).ratio()

    return max(paths, key=likeness)


def to_dict(config: object) -> dict[str, Any]:
    """The config as JSON holds it: nested objects, choices by their value, tuples as lists."""
    result = {}
    for item in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, enum.Enum):
            value = value.value
        elif isinstance(value, tuple):
            value = list(value)
        result[item.name] = value
    return result


def from_dict(values: dict[str, Any], default: Any = None) -> Any:
    """The config that `to_dict` wrote.

    Args:
        values: nested fields. One that is absent was unknown to the version that wrote them: it
            gets the value that stands for what was done then.
        default: the dataclass to fill, by default a `Config`.

    Raises:
        UserError: a field is unknown or a choice is; types and ranges are `validate`'s.
    """
    config = default
    if config is None:
        config = Config()
        for path, value in _BEFORE.items():
            _set(config, path, value)
    for name, value in values.items():
        present = getattr(config, name, None)
        if name not in {item.name for item in dataclasses.fields(config)}:
            raise UserError(
                f"a stored config may only hold known fields, got {name!r}; "
                "use the version of uhman_jax that wrote it"
            )
        if dataclasses.is_dataclass(present):
            value = from_dict(value, present)
        elif isinstance(present, enum.Enum):
            try:
                value = type(present)(value)
            except ValueError as error:
                raise UserError(f"{name} must be {_kind(present)}, got {value!r}") from error
        elif isinstance(present, tuple):
            value = tuple(value)
        setattr(config, name, value)
    return config


def go_on_with(config: Config, stored: dict[str, Any]) -> Config:
    """The config with which a stored run goes on when it is started with another one.

    Args:
        config: of the command that starts it again; it is not changed.
        stored: what `to_dict` wrote when the run began, perhaps in an earlier version.

    Returns:
        A copy. A field that the stored config lacks means what it meant then, unless the command
        sets it to another value than its default.
    """
    config = copy.deepcopy(config)
    known, now, default = _paths(stored), flatten(config), flatten(Config())
    for path, value in _BEFORE.items():
        if path not in known and now[path] == default[path]:
            _set(config, path, value)
    return config


def _paths(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Paths of all that nested objects hold."""
    paths = set()
    for name, value in values.items():
        paths.add(prefix + name)
        if isinstance(value, dict):
            paths |= _paths(value, f"{prefix}{name}.")
    return paths


def _set(config: Config, path: str, value: object) -> None:
    *sections, name = path.split(".")
    setattr(functools.reduce(getattr, sections, config), name, value)


def differences(before: Config, now: Config) -> list[str]:
    """One text per field that differs, such as `train.batch_size: 32 before, 64 now`."""
    old, new = flatten(before), flatten(now)
    return [
        f"{path}: {_text(old[path])} before, {_text(new[path])} now"
        for path in new
        if old[path] != new[path]
    ]

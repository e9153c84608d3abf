"""Defines every setting of a run with its type, default, range, unit and meaning.

`configs/NAME.py` returns a `Config` that differs from these defaults. Flags such as
`--config.train.learning_rate=0.05` override single fields. Then `config_checks.validate` is called
once, and no code changes the config after that. 0 and "" mean "off" or "automatic" where a comment
says so.
"""

import copy
import dataclasses
import enum
import functools
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from uhman_jax.backbone import BACKBONES
from uhman_jax.runtime.errors import UserError


class SimulatorOutput(enum.Enum):
    """Output format of the simulator."""

    PIXELS = "pixels"  # MP4 files, which pass through the whole pipeline
    FEATURES = "features"  # region features, written directly into shards


class World(enum.Enum):
    """Rule by which simulated users tag clips."""

    SELECTION = "selection"  # the user's preference selects one object of the clip
    ADDITIVE = "additive"  # mixture of the clip's objects and the user's favourites
    EVERYTHING = "everything"  # users tag all objects of the clip


class Duplicates(enum.Enum):
    """Treatment of clips with the same content as another clip."""

    TOGETHER = "together"  # all copies are in one part of the split
    DROP = "drop"  # only the first copy is kept
    KEEP = "keep"  # copies count as different clips


class Storage(enum.Enum):
    """Data type of region features in shards."""

    UINT8 = "uint8"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class Distribution(enum.Enum):
    """Hashtag distribution of a view (paper, section 3.1)."""

    NATURAL = "natural"
    BALANCED = "balanced"


class Split(enum.Enum):
    """Division of videos into train, validation and test."""

    RANDOM = "random"  # by video, as in the paper
    TEMPORAL = "temporal"  # the newest videos are the test split
    COLD_USER = "cold_user"  # test users have no videos in train


class ModelName(enum.Enum):
    """The system to train (section 3.2)."""

    UHMAN = "uhman"  # sections 2.2 and 2.3
    BL = "bl"  # bilinear, only the clip
    UA = "ua"  # user additive
    THREE_WAY = "3wm"  # three-way multiplicative
    GATED_MEAN = "gated_mean"  # mean feature times user; not in the paper
    locals()["3WM"] = THREE_WAY  # flags take member names; 3WM is no identifier

    def title(self, **settings: Any) -> str:
        """Returns the system's title; UHMAN has a letter for each part that `settings` disable.

        >>> ModelName.THREE_WAY.title(), ModelName.UHMAN.title(region_attention=False)
        ('3WM', 'UHMAN(a)')
        """
        letters = {"region_attention": "a", "frame_attention": "b", "user_guidance": "c"}
        missing = "".join(letters[name] for name in letters if not settings.get(name, True))
        name = self.value.upper().replace("_", " ")
        return f"{name}({missing})" if self is ModelName.UHMAN and missing else name


class Loss(enum.Enum):
    """The training loss."""

    WARP = "warp"  # section 2.4
    SOFTMAX = "softmax"  # cross-entropy over all hashtags
    LOGISTIC = "logistic"  # a yes-or-no cross-entropy per hashtag, or its mixture with WARP


class Optimiser(enum.Enum):
    """The optimiser."""

    SGD = "sgd"  # section 2.4
    ADAMW = "adamw"


class Estimator(enum.Enum):
    """Hashtags from which WARP and the logistic loss are computed."""

    SAMPLED = "sampled"  # the positives and a few uniform negatives
    EXACT = "exact"  # all hashtags


class RankWeight(enum.Enum):
    """Weight of a positive in the loss, as a function of its rank."""

    NONE = "none"  # exactly section 2.4
    WSABIE = "wsabie"  # L(rank) = 1 + 1/2 + ... + 1/rank


class Decay(enum.Enum):
    """Schedule of the learning rate."""

    STEPS = "steps"  # multiplied by a factor at fixed fractions of the run
    PLATEAU = "plateau"  # multiplied by it when the validation score stops improving
    COSINE = "cosine"  # smoothly to 0 at the end of the run


class Features(enum.Enum):
    """Location of the region features in training."""

    AUTO = "auto"  # `device` if the features fit half of the device memory, else `stream`
    DEVICE = "device"  # read once and kept on the device
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

    AUTO = "auto"  # JAX if it has an accelerator, else TensorFlow
    TENSORFLOW = "tensorflow"
    JAX = "jax"


def _within(interval: str, default: float) -> Any:
    """Returns a field with a default and the range of its values; "(" and ")" exclude an end."""
    return field(default=default, metadata={"range": interval})


_from_0 = functools.partial(_within, "[0, inf)")
_above_0 = functools.partial(_within, "(0, inf)")
_from_1 = functools.partial(_within, "[1, inf)")
_share = functools.partial(_within, "[0, 1]")
_below_1 = functools.partial(_within, "[0, 1)")
_part = functools.partial(_within, "(0, 1]")
_seed = functools.partial(_within, "[0, 2147483647]")

MAX_FRAMES = 16  # automatic `preprocess.max_frames` of a user's own clips


@dataclasses.dataclass
class DataConfig:
    """Location of the raw dataset."""

    root: str = ""  # folder with videos.csv; "": a simulated dataset under `simulated_dir`
    simulated_dir: str = "data"  # local; has a folder per simulated dataset, named by fingerprint
    simulated_frames: int = _from_1(16)  # automatic `preprocess.max_frames` of simulated clips
    strict: bool = False  # stop on any bad row instead of dropping it
    duplicates: Duplicates = Duplicates.TOGETHER  # clips with equal video streams


@dataclasses.dataclass
class SimulatorConfig:
    """The generative model of simulated datasets, whose true probabilities are known."""

    door: SimulatorOutput = SimulatorOutput.PIXELS
    world: World = World.SELECTION
    seed: int = _seed(0)  # of the generative model, its users and its clips
    num_videos: int = _from_1(600)  # clips
    num_users: int = _from_1(300)
    num_hashtags: int = _from_1(60)  # vocabulary: hashtags of classes and generic hashtags
    num_generic: int = _from_0(4)  # hashtags that fit every clip
    num_classes: int = _from_1(14)  # of objects; each class has its own hashtags
    num_countries: int = _from_1(6)  # each with two dialects: users aged up to 18 and older ones
    objects_per_clip: int = _from_1(3)  # objects of different classes in a clip
    zipf_exponent: float = _from_0(0.4)  # of object classes: popularity ~ rank ** -exponent
    taste_strength: float = _from_0(3.0)  # scale of the preference logits; 0: random choice
    num_styles: int = _from_1(1)  # visual styles of an object, e.g. lighting; `features` only
    style_share: float = _share(0.0)  # fraction of preference variance from styles, not classes
    private_share: float = _share(0.5)  # fraction of preference variance not from attributes
    private_rank: int = _from_1(4)  # dimensions of this private preference
    user_share: float = _share(0.5)  # probability that a post follows the user; `additive` only
    dialect_strength: float = _from_0(0.8)  # spread of a hashtag's log rate over dialects; 0: none
    mean_hashtags: float = _from_1(3.42)  # hashtags per video (paper, section 3.1)
    generic_share: float = _below_1(0.08)  # fraction of uses that are generic, approximately
    missing_prob: float = _share(0.15)  # probability that an attribute is empty
    mean_history: float = _from_0(8.0)  # earlier hashtags per user
    no_history_prob: float = _share(0.2)  # fraction of users without a history
    posterior_samples: int = _from_1(1024)  # draws of private preference for the observable oracle
    min_seconds: float = _above_0(2.0)  # shortest clip; `pixels` only
    max_seconds: float = _above_0(6.0)  # longest clip; `pixels` only
    object_size: float = _part(0.5)  # mean width, fraction of the frame's width; `pixels` only
    visible_share: float = _part(0.65)  # mean time in view, fraction of the clip; `pixels` only
    frames_per_object: int = _from_1(2)  # frames that show an object; `features` only
    regions_per_object: int = _within("[1, 64]", 9)  # cells of the 8x8 grid; `features` only
    noise: float = _from_0(1.0)  # feature noise in units of the class signal; `features` only
    num_channels: int = _from_1(256)  # feature channels; `features` only
    num_frames: int = _from_1(8)  # frames per clip, 5 per second; `features` only


@dataclasses.dataclass
class PreprocessConfig:
    """Extraction of region features (paper, section 2.2); the comments are also the flags' help."""

    backbone: BackboneName = BackboneName("inception_v3")  # network whose features are kept
    weights: str = "random"  # random, imagenet (downloaded) or a Keras .h5 file without the top
    weights_seed: int = _seed(0)  # seed of random weights
    calibration_frames: int = _from_0(64)  # frames for batch norms of random weights; 0: none
    frames_per_second: float = _above_0(5.0)  # sampling rate
    max_frames: int = _from_0(MAX_FRAMES)  # frames per clip, at most (n_f); 0: automatic
    storage: Storage = Storage.UINT8  # type of stored features
    videos_per_shard: int = _from_1(64)  # videos in a shard, the unit of work
    batch_frames: int = _from_1(16)  # frames per call of the network; 128 on a GPU
    precision: Precision = Precision.FLOAT32  # type of the network's activations; bfloat16 on a GPU
    backend: Backend = Backend.AUTO  # runs the network; auto: JAX if it has an accelerator
    num_decoders: int = _from_0(0)  # decoding processes; 0: one per core, at most 8
    clip_timeout: float = _above_0(60.0)  # seconds of decoding after which a clip is given up
    max_megabytes: float = _above_0(1024.0)  # larger files are not read
    max_seconds: float = _above_0(3600.0)  # longer clips are not decoded
    max_megapixels: float = _above_0(64.0)  # larger pictures are not decoded (8K has 33)
    decoder_memory: float = _from_0(0.75)  # GiB of address space of a decoder; 0: no limit
    output_dir: str = ""  # folder of the shards; "": ROOT/features/<hash>


@dataclasses.dataclass
class ViewConfig:
    """Vocabulary, split and histories."""

    distribution: Distribution = Distribution.NATURAL
    split: Split = Split.RANDOM
    seed: int = _seed(0)  # of the split and of downsampling
    min_count: int = _from_0(10)  # minimum training uses of a hashtag (section 3.1); 0: automatic
    test_share: float = _within("(0, 1)", 0.2)  # of the videos (section 3.1)
    validation_share: float = _below_1(0.1)  # of the remaining videos
    train_share: float = _part(1.0)  # of the training videos; the vocabulary uses all of them
    balanced_top: int = _from_1(150)  # frequent hashtags that `balanced` downsamples (section 3.1)
    max_history: int = _from_1(32)  # history hashtags kept per video, most used first
    max_positives: int = _from_1(16)  # hashtags kept per video


@dataclasses.dataclass
class ModelConfig:
    """The network (paper, sections 2.2 and 2.3)."""

    name: ModelName = ModelName.UHMAN
    hidden_size: int = _from_1(32)  # K (section 3.3)
    embedding_size: int = _from_1(32)  # d (section 3.3)
    num_heads: int = _from_1(4)  # not given in the paper; divides hidden_size
    region_attention: bool = True  # False: mean over regions, UHMAN(a) (section 3.4)
    frame_attention: bool = True  # False: mean over frames, UHMAN(b) (section 3.4)
    user_guidance: bool = True  # False: equal attention for all users, UHMAN(c); not in the paper
    unit_length: bool = True  # scale query and hashtag vectors to length 1, which bounds scores
    bias: bool = False  # learned number per hashtag, added to its score; starts by frequency
    dropout: float = _below_1(0.0)  # fraction of hidden units dropped in training
    history_dropout: float = _below_1(0.0)  # fraction of history hashtags dropped in training
    history_sampling: bool = False  # training shows a random part of the user's clips as history
    region_dropout: float = _below_1(0.0)  # fraction of regions dropped in training
    direct_path: bool = False  # also train a model without attention, and add both models' scores
    precision: Precision = Precision.FLOAT32


@dataclasses.dataclass
class LossConfig:
    """The loss: WARP (paper, section 2.4), softmax or logistic."""

    name: Loss = Loss.WARP
    temperature: float = _from_0(0.0)  # divides scores, except WARP's; 0: by number of hashtags
    mixture: float = _share(0.0)  # weight of WARP, the rest is logistic; `logistic` only
    estimator: Estimator = Estimator.EXACT
    rank_weight: RankWeight = RankWeight.WSABIE
    margin: float = _above_0(0.1)  # m of WARP (section 2.4)
    num_negatives: int = _from_1(4)  # negatives per positive, `sampled` only (section 2.4)


@dataclasses.dataclass
class TrainConfig:
    """Optimisation (paper, section 2.4)."""

    num_seeds: int = _within("[1, 1024]", 1)  # models trained together on the same batches
    batch_size: int = _from_1(32)  # videos per step
    microbatch_size: int = _from_0(0)  # videos processed at once; divides batch_size; 0: automatic
    features: Features = Features.AUTO
    num_epochs: int = _from_1(50)  # passes over the training split
    optimiser: Optimiser = Optimiser.SGD
    learning_rate: float = _above_0(0.05)  # paper: 0.1, with a step per pair (section 2.4)
    user_rate: float = _above_0(30.0)  # factor on learning_rate for attribute and history tables
    hashtag_rate: float = _above_0(100.0)  # factor on learning_rate for the hashtag table
    attention_rate: float = _above_0(1.0)  # factor on learning_rate for queries and keys
    momentum: float = _below_1(0.0)  # `sgd` only
    ema: float = _below_1(0.0)  # decay of the parameter average that is evaluated; 0: off
    weight_decay: float = _from_0(0.0)  # matrices only; L2 with `sgd`, decoupled with `adamw`
    clip_norm: float = _from_0(5.0)  # maximum global norm of gradients; 0: off
    decay: Decay = Decay.STEPS
    decay_factor: float = _part(0.1)  # factor on the learning rate at a decay (section 2.4)
    decay_at: tuple[float, ...] = (0.6, 0.85)  # fractions of the run; `steps` only
    patience: int = _from_1(5)  # evaluations without improvement before a decay; `plateau` only
    stop_after: int = _from_0(0)  # evaluations without improvement that end the run; 0: never
    eval_every: int = _from_0(0)  # steps between validations; 0: once per epoch
    checkpoint_every: int = _from_0(0)  # steps between saves; 0: at validations, up to 5 % of time


@dataclasses.dataclass
class EvaluateConfig:
    """Ranking of all hashtags and its output."""

    batch_size: int = _from_1(64)  # videos per scoring step
    top_k: int = _from_1(50)  # hashtags per video in predictions.parquet
    select_by: str = "P@10"  # validation metric that selects the best parameters


@dataclasses.dataclass
class Config:
    """One run."""

    name: str = "natural"  # default workdir is runs/<name>
    seed: int = _seed(0)  # of parameters, batches and negatives; model s of a run: seed + s
    data: DataConfig = field(default_factory=DataConfig)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    view: ViewConfig = field(default_factory=ViewConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


# Value of `data.duplicates` in a config that was stored before the field existed.
_DUPLICATES_BEFORE = Duplicates.KEEP


def kind_of(default: object) -> str:
    """Returns a description of the values that a field takes."""
    if isinstance(default, enum.Enum):
        return "one of " + " ".join(str(choice.value) for choice in type(default))
    if isinstance(default, tuple):
        return "a tuple of numbers"
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return names[type(default)]  # type: ignore[bad-index]


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """Yields path, field and value of every setting, in the order of the dataclasses."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item, value


def flatten(config: Config) -> dict[str, Any]:
    """Returns every setting by its path, such as `train.batch_size`."""
    return {path: value for path, _, value in _leaves(config)}


def ranges() -> dict[str, str]:
    """Returns the range of every number by its path, such as "[0, 1)"."""
    return {path: item.metadata["range"] for path, item, _ in _leaves(Config()) if item.metadata}


def to_dict(config: Any) -> dict[str, Any]:
    """Returns the config for JSON: nested objects, choices as their values, tuples as lists."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else getattr(value, "value", value)

    return dataclasses.asdict(
        config, dict_factory=lambda items: {name: plain(value) for name, value in items}
    )


def from_dict(values: dict[str, Any], default: Any = None) -> Any:
    """Returns the config that `to_dict` wrote; `validate` checks types and ranges.

    Args:
        values: nested fields. A missing field gets the value that reproduces the behaviour of the
            version that wrote the config.
        default: the dataclass to fill; by default a `Config`.

    Raises:
        UserError: a field or a choice is unknown.
    """
    config = default
    if config is None:
        config = Config(data=DataConfig(duplicates=_DUPLICATES_BEFORE))
    for name, value in values.items():
        if name not in vars(config):
            raise UserError(
                f"a stored config may only hold known fields, got {name!r}; "
                "use the version of uhman_jax that wrote it"
            )
        present = getattr(config, name)
        if dataclasses.is_dataclass(present):
            value = from_dict(value, present)
        elif isinstance(present, enum.Enum):
            try:
                value = type(present)(value)
            except ValueError as error:
                raise UserError(f"{name} must be {kind_of(present)}, got {value!r}") from error
        elif isinstance(present, tuple):
            value = tuple(value)
        setattr(config, name, value)
    return config


def go_on_with(config: Config, stored: dict[str, Any]) -> Config:
    """Returns the config with which a stored run continues.

    A field that the stored config lacks reproduces the version that wrote it, unless the command
    sets the field to a value other than the default. A number that is automatic in the command is
    the one with which the run began.

    Args:
        config: of the command that continues the run; it is not changed.
        stored: result of `to_dict` when the run began, possibly with an earlier version.
    """
    config = copy.deepcopy(config)
    data = stored.get("data", {})
    if config.data.duplicates is DataConfig().duplicates and "duplicates" not in data:
        config.data.duplicates = _DUPLICATES_BEFORE
    for section, name in (("preprocess", "max_frames"), ("view", "min_count")):
        if not getattr(part := getattr(config, section), name):
            number = stored.get(section, {}).get(name, getattr(type(part)(), name))
            setattr(part, name, number)
    # It decided the stored `max_frames`, and has no effect afterwards.
    config.data.simulated_frames = data.get("simulated_frames", DataConfig().simulated_frames)
    return config

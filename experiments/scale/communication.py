"""Computes, from the compiled program, the bytes that each device sends in a training step.

    python -m experiments.scale.communication --mesh=4x2 --num_hashtags=100000

Virtual devices stand in for real ones, because XLA plans communication before it knows the devices.
The program is not run, so sizes may exceed this machine's memory. Prints a JSON object.
"""

import json
import math
import os
import re
from typing import Any

from absl import flags

from uhman_jax.models.build import build_model
from uhman_jax.runtime.streams import run_app

_MESH = flags.DEFINE_string("mesh", "8x1", "Devices along data x model.")
_HASHTAGS = flags.DEFINE_integer("num_hashtags", 669, "Size of the vocabulary, T.")
_ESTIMATOR = flags.DEFINE_enum("estimator", "exact", ["exact", "sampled"], "WARP loss.")
_BATCH = flags.DEFINE_integer("batch_size", 1024, "Videos per step over all devices.")
_FRAMES = flags.DEFINE_integer("num_frames", 16, "Frames per video.")
_CHANNELS = flags.DEFINE_integer("num_channels", 2048, "Channels of a region.")
_HIDDEN = flags.DEFINE_integer("hidden_size", 32, "Widths K = d.")

_COLLECTIVE = re.compile(
    r" = (?P<shape>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute)(?:-start)?\((?P<rest>.*)"
)
_ARRAY = re.compile(r"(pred|[a-z]+\d+)\[([\d,]*)\]")
_BITS = {"pred": 8, "bf16": 16}


def array_bytes(shape: str) -> int:
    """Returns the bytes of all arrays of an HLO shape.

    >>> array_bytes("(f32[2,3]{1,0}, bf16[4]{0}, pred[])")
    33
    """
    total = 0
    for kind, sizes in _ARRAY.findall(shape):
        bits = _BITS.get(kind) or int(re.sub(r"\D", "", kind))
        total += bits // 8 * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def group_size(rest: str) -> int:
    """Returns the number of devices in each group of a collective, in any of three HLO notations.

    >>> group_size("%x), replica_groups={{0,2},{1,3}}, to_apply=%add")
    2
    >>> group_size("%x), replica_groups=[2,4]<=[8], to_apply=%add")
    4
    >>> group_size("%x), replica_groups=mesh['a'=2,'b'=3,'c'=4], device_ids=([2]) {'a','c'}, x")
    8
    """
    if match := re.search(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"('\w+')=(\d+)", match[1])}
        return math.prod(sizes[name] for name in match[2].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(match[1].split(","))
    raise ValueError(f"a collective must name its groups, got {rest[:200]!r}")


def sent_bytes(program: str) -> dict[str, int]:
    """Returns the bytes that a device sends, by kind of collective, if each runs as a ring.

    Each of d devices sends 2 (d - 1) / d n in an all-reduce of n bytes, (d - 1) / d n in an
    all-gather with n bytes of output or a reduce-scatter with n of input, and n in a permutation.

    >>> sent_bytes("%a = f32[8]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add")
    {'all-reduce': 32}
    """
    found: dict[str, int] = {}
    for line in program.splitlines():
        if not (match := _COLLECTIVE.search(line)):
            continue
        kind = match["kind"]
        size = 2 if kind == "collective-permute" else group_size(match["rest"])
        num_bytes = array_bytes(match["shape"])
        share = (size - 1) / size
        factor = {"all-reduce": 2 * share, "reduce-scatter": size * share, "collective-permute": 1}
        found[kind] = found.get(kind, 0) + round(factor.get(kind, share) * num_bytes)
    return found


def measure(shape: tuple[int, int]) -> dict:
    """Compiles a step for a mesh and returns the bytes that a device sends and holds."""
    import jax

    from tools.bench import synthetic
    from uhman_jax import train
    from uhman_jax.config import Estimator, Precision
    from uhman_jax.runtime.mesh import Devices
    from uhman_jax.train.state import abstract_state

    config = synthetic.config_of(hidden_size=_HIDDEN.value, batch_size=_BATCH.value)
    config.loss.estimator, config.model.precision = Estimator(_ESTIMATOR.value), Precision.BFLOAT16
    view: Any = synthetic.view_sizes(_HASHTAGS.value)
    model = build_model(config.model, view)
    devices = Devices(_HASHTAGS.value, shape)
    state = abstract_state(model, config, _CHANNELS.value)
    shardings = devices.state_shardings(state)

    def abstract(leaf, sharding):
        sizes = leaf.shape
        if sharding == devices.row_sharded():
            sizes = (1, devices.num_rows, sizes[2])
        return jax.ShapeDtypeStruct(sizes, leaf.dtype, sharding=sharding)

    state = jax.tree.map(abstract, state, shardings)
    batch = abstract_batch(devices.batch_sharded())
    step: Any = train.make_train_step(model, config, 1000, (shardings, devices.replicated()), "tpu")
    compiled = step.lower(state, batch).compile()
    held = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )
    sent = sent_bytes(compiled.as_text())
    return {
        "mesh": f"{shape[0]}x{shape[1]}",
        "num_hashtags": _HASHTAGS.value,
        "estimator": _ESTIMATOR.value,
        "batch_size": _BATCH.value,
        "sent": sum(sent.values()),
        "sent_by_kind": sent,
        "state": held,
        "temporary": compiled.memory_analysis().temp_size_in_bytes,
    }


def abstract_batch(sharding: Any) -> Any:
    """Returns the shapes and types of a batch, without allocating it."""
    import jax
    import numpy as np

    from tools.bench import synthetic

    sizes = {"batch_size": 8, "num_frames": 1, "num_channels": 1}
    small = synthetic.make_batch(num_hashtags=_HASHTAGS.value, **sizes)
    video = small.video._replace(
        codes_VFMC=np.zeros((8, _FRAMES.value, 64, _CHANNELS.value), np.uint8),
        scale_BC=np.zeros((8, _CHANNELS.value), np.float32),
        offset_BC=np.zeros((8, _CHANNELS.value), np.float32),
        mask_BF=np.zeros((8, _FRAMES.value), bool),
    )

    def abstract(leaf):
        sizes = (_BATCH.value, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(sizes, leaf.dtype, sharding=sharding)

    return jax.tree.map(abstract, small._replace(video=video))


def main(_: list[str]) -> None:
    """Prints the JSON object."""
    data, model = map(int, _MESH.value.split("x"))
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={data * model}"
    print(json.dumps(measure((data, model))))


if __name__ == "__main__":
    run_app(main)

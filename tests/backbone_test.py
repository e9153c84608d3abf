"""Another backbone from clips to suggestions; only the table of backbones is edited for it."""

import clips
import numpy as np
import pytest
import tiny_world

from uhman_jax import backbone, run
from uhman_jax.config import BackboneName, Config, PreprocessConfig
from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.preprocess import ledger, litert, shard_builder
from uhman_jax.recommend import Profile, Recommender
from uhman_jax.runtime.errors import UserError
from uhman_jax.shards.store import FrameStore


def test_the_setting_offers_every_backbone():
    assert [choice.value for choice in BackboneName] == list(backbone.BACKBONES)
    assert Config().preprocess.backbone.value == "inception_v3"


def test_features_of_the_default_have_the_settings_that_they_always_had():
    values = ledger.settings(PreprocessConfig())
    assert values["network"] == "inception_v3/mixed10" and "backbone" not in values
    other = ledger.settings(PreprocessConfig(backbone=BackboneName("efficientnet_v2_b0")))
    assert {name for name in values if values[name] != other[name]} == {"network"}


@pytest.mark.parametrize("network", ["resnet/last", "inception_v3/mixed9"])
def test_features_of_an_unknown_network_are_refused(network):
    with pytest.raises(UserError, match=f"a network that this version knows, got '{network}'"):
        shard_builder.of_network(network)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(backbone.BACKBONES)[1:])
def test_another_backbone_from_clips_to_suggestions(name, tmp_path, monkeypatch):
    chosen = backbone.BACKBONES[name]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, users, videos, rng = tmp_path / "clips", [], [], np.random.default_rng(0)
    root.mkdir()
    for v in range(12):
        blocks = rng.integers(0, 80, (6, 8, 3)).astype(np.uint8) + np.uint8(150 * (v % 2))
        image = blocks.repeat(8, 0).repeat(8, 1)
        clips.write_clip(root / f"{v:02}.mp4", [image, image[::-1].copy()], [0, 400])
        users.append(User(f"u{v}", "female", 20, "", ()))
        word = ("dark", "bright")[v % 2]
        videos.append(Video(f"{v:02}", f"{v:02}.mp4", f"u{v}", (word,), v))
    write_raw_dataset(root, videos, users)
    config = tiny_world.make_config(root, num_epochs=1)
    config.preprocess = PreprocessConfig(
        backbone=BackboneName(name), max_frames=2, calibration_frames=8, batch_frames=4,
        num_decoders=1,
    )  # fmt: skip
    assert run.run(config, tmp_path / "run", log=lambda line: None, report=False)
    (features,) = (root / "features").iterdir()
    store = FrameStore(features)
    assert len(store) == 12 and store.info["network"] == chosen.network
    assert (store.num_regions, store.num_channels) == (chosen.grid**2, chosen.num_channels)

    litert.keep(shard_builder.restore_extractor(features))
    new = clips.write_clip(tmp_path / "new.mp4", [clips.gray(40)] * 2, [0, 400])
    with Recommender.load(tmp_path / "run") as recommender:
        steps = np.abs(
            recommender.features(root / "00.mp4").codes_FMC - store[0].codes_FMC.astype(int)
        )
        assert steps.max() <= 1 and steps.mean() < 0.005
        assert {s.hashtag for s in recommender.recommend(new, Profile("f"))} == {"dark", "bright"}

"""The file of a view: it is read as it was written, or an error names it."""

import dataclasses
import os
import random
import zipfile

import numpy as np
import pytest
from views import build, random_world

from uhman_jax.dataset.raw import User, Video
from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError


def assert_equal(one, two):
    for field in dataclasses.fields(View):
        a, b = getattr(one, field.name), getattr(two, field.name)
        assert type(a) is type(b), field.name
        arrays = {np.ndarray: lambda x: [x], type(one.history): list}.get(type(a))
        if arrays is None:
            assert a == b, field.name
        else:
            for x, y in zip(arrays(a), arrays(b), strict=True):
                assert x.dtype == y.dtype and x.tolist() == y.tolist(), field.name


def test_saved_view_comes_back(tmp_path):
    videos, users = random_world(12)
    users.append(User("ü\n☃", "日本", 20, 'a "b"', ()))
    videos += [Video(f"é{i}", "", "ü\n☃", ("日本", "t00"), i) for i in range(9)]
    view = build(videos, users)
    view.save(tmp_path / "view.npz")
    again = View.load(tmp_path / "view.npz")
    assert_equal(view, again)
    assert os.listdir(tmp_path) == ["view.npz"]
    with zipfile.ZipFile(tmp_path / "view.npz") as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "view.npz", allow_pickle=False) as arrays:
        assert arrays["split_V"].tolist() == view.split_V.tolist()
    again.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "view.npz").read_bytes()


def test_fingerprint_sees_every_field():
    view = build(*random_world(13))
    fingerprints = {view.fingerprint}
    for seed in range(1, 4):
        fingerprints.add(build(*random_world(13), seed=seed).fingerprint)
    fingerprints.add(build(*random_world(13), max_history=3).fingerprint)
    fingerprints.add(build(*random_world(13), max_positives=2).fingerprint)
    videos, users = random_world(13)
    fingerprints.add(build(videos, users[1:]).fingerprint)
    fingerprints.add(
        build([*videos[:-1], dataclasses.replace(videos[-1], user_id="x")], users).fingerprint
    )
    assert len(fingerprints) == 8


def test_any_damage_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "view.npz"
    build(*random_world(14, num_videos=30)).save(path)
    content = path.read_bytes()
    rng = random.Random(0)
    damaged = [content[:n] for n in (0, 1, 63, 64, 65, len(content) // 2, len(content) - 1)]
    damaged += [content + b"\0", b"\0" * len(content), b"PK" + content]
    for position in [*range(0, 40), *rng.sample(range(len(content)), 300), len(content) - 1]:
        flipped = bytearray(content)
        flipped[position] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match="view.npz; delete it and build the view again"):
            View.load(path)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no.npz .No such file or directory.; build it again"):
        View.load(tmp_path / "no.npz")


def test_file_of_another_format_is_told_apart(tmp_path, monkeypatch):
    path = tmp_path / "view.npz"
    monkeypatch.setattr("uhman_jax.dataset.view._FORMAT", 99)
    build(*random_world(15)).save(path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="must be of format 2 or 3, got 99 in .*view.npz"):
        View.load(path)


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "view.npz"
    build(*random_world(16)).save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        build(*random_world(17)).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["view.npz"]

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
from uhman_jax.runtime.errors import UserError


def test_saved_view_comes_back(tmp_path):
    videos, users = random_world(12)
    users.append(User("ü\n☃", "日本", 20, 'a "b"', ()))
    videos += [Video(f"é{i}", "", "ü\n☃", ("日本z", "t00"), i, ("日本Z", "t00")) for i in range(9)]
    view = build(videos, users)
    assert view.spellings != view.hashtags
    view.save(tmp_path / "view.npz")
    assert os.listdir(tmp_path) == ["view.npz"]
    again = View.load(tmp_path / "view.npz")
    for field in dataclasses.fields(View):
        one, other = getattr(view, field.name), getattr(again, field.name)
        assert type(one) is type(other) and repr(one) == repr(other), field.name
    again.save(tmp_path / "again.npz")  # has all bytes of all fields
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "view.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "view.npz") as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "view.npz", allow_pickle=False) as arrays:
        assert arrays["split_V"].tolist() == view.split_V.tolist()


def test_fingerprint_sees_every_field():
    changes = [{"seed": 1}, {"seed": 2}, {"max_history": 3}, {"max_positives": 2}]
    views = [build(*random_world(13), **options) for options in [{}, *changes]]
    videos, users = random_world(13)
    views.append(build(videos, users[1:]))
    views.append(build([*videos[:-1], dataclasses.replace(videos[-1], user_id="x")], users))
    assert len({view.fingerprint for view in views}) == 7


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


def test_a_file_of_another_format_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "view.npz"
    monkeypatch.setattr("uhman_jax.dataset.view._FORMAT", 99)
    build(*random_world(15)).save(path)
    monkeypatch.undo()
    with pytest.raises(UserError, match="must be of format 2 or 3, got 99 in .*view.npz"):
        View.load(path)

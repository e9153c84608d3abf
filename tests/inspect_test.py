"""The page of a run on data in which the country decides the hashtag."""

import doctest
import itertools
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world

from tools.inspect_run import hashtag_map, page, rates, space, study
from uhman_jax import run
from uhman_jax.dataset.view import TEST, View
from uhman_jax.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has learned the tiny dataset, with enough test users for sure differences."""
    how = {"num_videos": 400, "test_share": 0.5, "num_epochs": 1, "num_seeds": 2, "by_hand": True}
    return tiny_world.finished_run(tmp_path_factory.mktemp("inspect"), **how)[1]


@pytest.fixture(scope="module")
def inspected(trained):
    """Numbers and page; two of the nine hashtags count as suggested."""
    study.inspect_run(trained, seed=1, top_k=2)
    values = json.loads((trained / "inspect.json").read_text())
    return values, (trained / "inspect.html").read_text()


def kind_of(values, attribute, value):
    kinds = values["differences"]["kinds"]
    return next(x for x in kinds if (x["attribute"], x["value"]) == (attribute, value))


@pytest.mark.parametrize("module", [rates, space, page])
def test_the_examples_hold(module):
    failed, attempted = doctest.testmod(module)
    assert attempted and not failed


def test_a_difference_by_hand():
    # 3 of 4 against 1 of 5 with z = 2: Wilson's middle is (p + z^2 / 2n) / (1 + z^2 / n).
    found = rates.difference(0.75, 4, 0.2, 5, 2.0)
    here, elsewhere = (2 * math.sqrt(x) for x in (3 / 64 + 4 / 64, 4 / 125 + 4 / 100))
    low_here, high_here = (1.25 - here) / 2, (1.25 + here) / 2
    low_else, high_else = (0.6 - elsewhere) / 1.8, (0.6 + elsewhere) / 1.8
    assert found.value == pytest.approx(0.55)
    below = math.sqrt((0.75 - low_here) ** 2 + (high_else - 0.2) ** 2)
    above = math.sqrt((high_here - 0.75) ** 2 + (0.2 - low_else) ** 2)
    assert found.low == pytest.approx(0.55 - below) and found.high == pytest.approx(0.55 + above)
    assert found.sign == 0 and rates.difference(1.0, 50, 0.0, 50, 2.0).sign == 1
    assert rates.difference(0.0, 50, 1.0, 50, 2.0).sign == -1
    none = rates.difference(0.0, 6, 0.0, 9, 1.96)
    assert none.value == 0 and none.low < -0.2 and none.high > 0.2


def test_the_interval_has_its_level_for_users_with_several_clips():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):  # the clips of a user are not independent
        preference_U = rng.beta(1.0, 2.0, 60)
        rates_UX = rng.binomial(3, preference_U)[:, None] / 3
        (found,) = rates.compare(rates_UX, np.arange(60) < 25, 1.96)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) > 0.94


def test_each_user_counts_once():
    # User 0 has three clips with the hashtag, user 1 has one without: 1/2 and not 3/4.
    user_V, tags_V = np.array([0, 0, 0, 1]), [np.array([5])] * 3 + [np.array([], int)]
    rates_UX = rates.rates_of_users(user_V, tags_V, np.array([5]))
    assert rates_UX.mean() == 0.5


def test_hashtags_of_few_users_are_left_out():
    enough = rates.MIN_USERS
    user_V = np.array([*range(enough), 0, 0, 0, 0, 0])
    first = [np.array([7, 3])] * enough + [np.array([4])] * 5
    second = [np.array([3])] * 5 + [np.array([9])] * 5
    assert rates.looked_at(user_V, first, second).tolist() == [3, 7]


def test_the_rates_follow_from_the_predictions(trained, inspected):
    values, _ = inspected
    view = View.load(trained / "view.npz")
    rows = pq.read_table(trained / "predictions.parquet").to_pylist()
    country = dict(zip(view.video_ids, view.country_V, strict=True))
    land0 = view.countries.index("land0")
    rows = [row for row in rows if row["seed"] == 1]
    for entry in kind_of(values, "country", "land0")["strongest"]:
        for name, column, width in (("suggested", "hashtags", 2), ("used", "true_hashtags", 99)):
            member_V = np.array([country[row["video_id"]] == land0 for row in rows])
            has_V = np.array([entry["hashtag"] in row[column][:width] for row in rows])
            here, elsewhere = has_V[member_V].mean(), has_V[~member_V].mean()
            found = [entry[name][key] for key in ("here", "elsewhere", "difference")]
            assert found == pytest.approx([here, elsewhere, here - elsewhere])


def test_users_of_a_country_get_and_write_its_hashtags(inspected):
    values, text = inspected
    sure = [entry for entry in kind_of(values, "country", "land0")["strongest"] if entry["sure"]]
    assert len(sure) >= 4
    for entry in sure[:4]:  # of weaker ones one in twenty is significant by chance
        own = entry["hashtag"].endswith("land0")
        assert own or entry["hashtag"].endswith("land1")
        for name in ("suggested", "used"):
            assert (entry[name]["difference"] > 0) == own
        low, high = entry["suggested"]["interval"]
        assert (low > 0) if own else (high < 0)
        assert entry["use"] == "shown"
        assert f"#{entry['hashtag']}" in text


def test_an_attribute_without_effect_shows_no_difference(inspected):
    values, text = inspected
    kinds = [kind for kind in values["differences"]["kinds"] if kind["attribute"] == "gender"]
    assert kinds and all(kind["num_sure"] == 0 for kind in kinds)
    assert "No significant difference" in text


def test_intervals_are_corrected_for_their_number(inspected):
    found = inspected[0]["differences"]
    assert found["num_intervals"] == len(found["kinds"]) * found["num_hashtags"] > 40
    assert found["quantile"] == pytest.approx(rates.joint_quantile(found["num_intervals"]))
    (entry, *_) = kind_of(inspected[0], "country", "land0")["strongest"]
    num_here = kind_of(inspected[0], "country", "land0")["num_users"]
    num_elsewhere = found["num_users"] - num_here
    for name, z in (("suggested", found["quantile"]), ("used", rates.joint_quantile(1))):
        here, elsewhere = entry[name]["here"], entry[name]["elsewhere"]
        expected = rates.difference(here, num_here, elsewhere, num_elsewhere, z)
        assert entry[name]["interval"] == pytest.approx([expected.low, expected.high])


def test_a_swapped_country_swaps_the_words(trained, inspected):
    swaps = {(s["attribute"], s["value"]): s for s in inspected[0]["swaps"]["values"]}
    view = View.load(trained / "view.npz")
    rows = view.rows(TEST)
    for here, there in (("land0", "land1"), ("land1", "land0")):
        swap = swaps["country", here]
        assert swap["num_clips"] == np.sum(view.country_V[rows] != view.countries.index(here))
        assert swap["changed"] == swap["replaced"] == 1, (
            "the hashtag of the country changes on every clip, #all on none"
        )
        assert {name for name, _ in swap["enter"]} == {f"thing{kind}{here}" for kind in range(4)}
        assert {name for name, _ in swap["leave"]} == {f"thing{kind}{there}" for kind in range(4)}
        for name, share in swap["enter"]:
            assert (name.replace(here, there), share) in map(tuple, swap["leave"])
        assert sum(share for _, share in swap["enter"]) == pytest.approx(1)
    swap = swaps["gender", "female"]
    assert swap["num_clips"] > 0 == swap["changed"] == swap["replaced"]
    assert swap["enter"] == swap["leave"] == []


def test_nearest_hashtags_and_map(trained, inspected):
    values, text = inspected
    assert list(values["nearest"]) == list(View.load(trained / "view.npz").hashtags)
    assert all(len(others) == 8 for others in values["nearest"].values())
    for name, others in values["nearest"].items():
        cosines = [cosine for _, cosine in others]
        assert name not in dict(others) and cosines == sorted(cosines, reverse=True)
    assert text.count("<circle") == len(values["map"]["places"]) == 9
    assert 0 < values["map"]["share_of_variance"] <= 1


def test_the_principal_plane_keeps_distances_in_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2)) @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:2]
    points_T2, share = space.principal_plane(flat)
    unit = space.directions(flat)
    assert share == pytest.approx(1)
    for one, other in ((0, 1), (4, 20)):
        expected = np.linalg.norm(unit[one] - unit[other])
        assert np.linalg.norm(points_T2[one] - points_T2[other]) == pytest.approx(expected)


def test_names_on_the_map_cover_no_other_name():
    rng = np.random.default_rng(1)
    names = [f"name{i}" for i in range(200)]
    found = {"hashtags": names, "uses": list(range(200, 0, -1))}
    dots = hashtag_map.dots(found | {"places": rng.normal(size=(200, 2)).tolist()})
    assert [dot.name for dot in dots] == names
    labels = [dot.label for dot in dots if dot.label]
    assert 20 < len(labels) <= hashtag_map.MAX_NAMES
    for dot in dots:
        if dot.label:
            width, height = dot.label.right - dot.label.left, dot.label.bottom - dot.label.top
            assert width > 6 * len(f"#{dot.name}") and height >= 14, "the name fits"
    for (left, top, right, bottom), other in itertools.combinations(labels, 2):
        beside = right <= other.left or other.right <= left
        assert beside or bottom <= other.top or other.bottom <= top


def test_names_on_the_page_are_text(inspected):
    found = {"hashtags": ["$x$<b>", "cat"], "uses": [2, 1], "places": [[0, 0], [1, 1]]}
    text = page.render(inspected[0] | {"map": found | {"share_of_variance": 1.0}})
    assert "<b>" not in text.partition('class="map"')[2]
    assert text.count("#$x$&lt;b&gt;") == 2, "its name, and the title of its dot"


def test_the_page_is_self_contained(inspected):
    values, text = inspected
    assert "default-src 'none'" in text and "<script" not in text
    assert not re.search(r"(?:src|href)=|url\(", text)
    assert "Real data" in text and "Simulated data" not in text and "not real people" not in text
    simulated = page.render(values | {"simulated": True})
    assert "Simulated data" in simulated and "not real people" in simulated
    assert all(entry["name"] in text for entry in values["slices"])


def test_lost_features_leave_out_only_the_swaps(trained, tmp_path, monkeypatch):
    copy = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["data"]["root"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    first, last = study.inspect_run(copy, tmp_path / "sub" / "page.html", top_k=2)
    assert "left out" in first and "page.html" in last
    values = json.loads((tmp_path / "sub" / "page.json").read_text())
    assert values["swaps"] == {"skipped": first} and values["seed"] == 0
    assert values["differences"]["kinds"]
    assert "Swapped users are left out" in (tmp_path / "sub" / "page.html").read_text()


def test_a_run_without_predictions_is_a_sentence(trained, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "run")
    (copy / "predictions.parquet").unlink()
    command = [sys.executable, "-m", "tools.inspect_run", f"--run={copy}", "--top_k=2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.count("\n") == 1 and "must have predictions.parquet" in result.stderr
    (copy / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="damaged"):
        study.inspect_run(copy, top_k=2)


@pytest.fixture(scope="module", params=[1, 2, 5])
def small(request, tmp_path_factory):
    """A run on users without attributes, with one seed and one or two test clips."""
    folder = tmp_path_factory.mktemp("small")
    root = tiny_world.write_dataset(folder / "data", num_videos=12)
    lines = (root / "videos.csv").read_text().splitlines()
    with open(root / "videos.csv", "w") as file:
        print(lines[0], file=file)
        for v, line in enumerate(lines[1:]):
            video_id, path, _, _, timestamp = line.split(",")
            name = f"#tag{v % request.param}"
            print(video_id, path, f"user{v % 4}", name, timestamp, sep=",", file=file)
    (root / "users.csv").unlink()
    config = tiny_world.make_config(root, num_epochs=1)
    config.view.test_share, config.view.validation_share = 0.1, 0.0
    run.run(config, folder / "run", log=lambda line: None, report=False)
    return request.param, folder / "run"


def test_a_small_run_is_inspected_without_a_refusal(small):
    num_hashtags, workdir = small
    assert study.inspect_run(workdir)[-1].startswith("Page: ")
    values = json.loads((workdir / "inspect.json").read_text())
    assert values["top_k"] == max(1, num_hashtags - 1) and values["num_seeds"] == 1
    assert values["differences"]["kinds"] == []
    text = (workdir / "inspect.html").read_text()
    assert "Too few test users" in text and "nan" not in text.casefold().replace("inance", "")
    assert not re.search(r"\b1 (?:users|clips|hashtags|suggestions|test clips)\b", text)


def test_output_and_number_of_hashtags_are_checked(trained, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="from 1 to 8, fewer than all hashtags, got 9"):
        study.inspect_run(trained, top_k=9)
    for output, message in (
        ("page.json", "must name the page, whose numbers get the suffix .json"),
        ("", "must name a file, got the folder"),
        ("file/page.html", "must be a folder that can be written, got .*: Not a dir"),
    ):
        with pytest.raises(UserError, match=message):
            study.inspect_run(trained, tmp_path / output)

"""The page of a run on data in which the country decides the hashtag."""

import doctest
import itertools
import json
import math
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_world
from html_page import Page

from tools import cli
from tools.inspect_run import hashtag_map, page, rates, space, study
from uhman_jax import run
from uhman_jax.dataset.view import TEST, View
from uhman_jax.runtime.errors import UserError


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has learned the tiny dataset, with enough test users for sure differences."""
    how = {"num_videos": 400, "test_share": 0.5, "num_epochs": 1, "num_seeds": 2, "by_hand": True}
    return tiny_world.finished_run(tmp_path_factory.mktemp("inspect"), **how)[1]


@pytest.fixture(scope="module")
def view(trained):
    return View.load(trained / "view.npz")


@pytest.fixture(scope="module")
def inspected(trained):
    """Numbers and page; two of the nine hashtags count as suggested."""
    return inspect(trained, seed=1, top_k=2)


def inspect(workdir, **how):
    study.inspect_run(workdir, **how)
    values = json.loads((workdir / "inspect.json").read_text())
    return values, (workdir / "inspect.html").read_text()


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
    assert found.difference == pytest.approx(0.55)
    below = math.sqrt((0.75 - low_here) ** 2 + (high_else - 0.2) ** 2)
    above = math.sqrt((high_here - 0.75) ** 2 + (0.2 - low_else) ** 2)
    assert found.interval == pytest.approx((0.55 - below, 0.55 + above))
    assert found.sign == 0 and rates.difference(1.0, 50, 0.0, 50, 2.0).sign == 1
    assert rates.difference(0.0, 50, 1.0, 50, 2.0).sign == -1
    none = rates.difference(0.0, 6, 0.0, 9, 1.96)
    low, high = none.interval
    assert none.difference == 0 and low < -0.2 and high > 0.2


def test_the_interval_has_its_level_for_users_with_several_clips():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):  # the clips of a user are not independent
        preference_U = rng.beta(1.0, 2.0, 60)
        rates_UX = rng.binomial(3, preference_U)[:, None] / 3
        (found,) = rates.compare(rates_UX, np.arange(60) < 25, 1.96)
        covered.append(found.sign == 0)
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


def test_the_rates_follow_from_the_predictions(trained, view, inspected):
    rows = pq.read_table(trained / "predictions.parquet").to_pylist()
    rows = [row for row in rows if row["seed"] == 1]
    country = dict(zip(view.video_ids, view.country_V, strict=True))
    land0 = view.countries.index("land0")
    member_V = np.array([country[row["video_id"]] == land0 for row in rows])
    for entry in kind_of(inspected[0], "country", "land0")["strongest"]:
        for name, column, width in (("suggested", "hashtags", 2), ("used", "true_hashtags", 99)):
            has_V = np.array([entry["hashtag"] in row[column][:width] for row in rows])
            here, elsewhere = has_V[member_V].mean(), has_V[~member_V].mean()
            found = [entry[name][key] for key in ("here", "elsewhere", "difference")]
            assert found == pytest.approx([here, elsewhere, here - elsewhere])


def test_users_of_a_country_get_and_write_its_hashtags_and_gender_has_no_effect(inspected):
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
    kinds = [kind for kind in values["differences"]["kinds"] if kind["attribute"] == "gender"]
    assert kinds and all(kind["num_sure"] == 0 for kind in kinds)
    assert "No significant difference" in text


def test_intervals_are_corrected_for_their_number(inspected):
    found, kind = inspected[0]["differences"], kind_of(inspected[0], "country", "land0")
    assert found["num_intervals"] == len(found["kinds"]) * found["num_hashtags"] > 40
    assert found["quantile"] == pytest.approx(rates.joint_quantile(found["num_intervals"]))
    sizes = kind["num_users"], found["num_users"] - kind["num_users"]
    for name, z in (("suggested", found["quantile"]), ("used", rates.joint_quantile(1))):
        entry = kind["strongest"][0][name]
        expected = rates.difference(entry["here"], sizes[0], entry["elsewhere"], sizes[1], z)
        assert entry["interval"] == pytest.approx(expected.interval)


def test_a_swapped_country_swaps_the_words(view, inspected):
    swaps = {(s["attribute"], s["value"]): s for s in inspected[0]["swaps"]["values"]}
    rows = view.rows(TEST)
    for here, there in (("land0", "land1"), ("land1", "land0")):
        swap = swaps["country", here]
        assert swap["num_clips"] == np.sum(view.country_V[rows] != view.countries.index(here))
        assert swap["changed"] == swap["replaced"] == 1, (
            "the hashtag of the country changes on every clip, #all on none"
        )
        enter, leave = dict(swap["enter"]), dict(swap["leave"])
        assert enter.keys() == {f"thing{kind}{here}" for kind in range(4)}
        assert leave == {name.replace(here, there): share for name, share in enter.items()}
        assert sum(enter.values()) == pytest.approx(1)
    swap = swaps["gender", "female"]
    assert swap["num_clips"] > 0 == swap["changed"] == swap["replaced"]
    assert swap["enter"] == swap["leave"] == []


def test_nearest_hashtags_and_map(view, inspected):
    values, text = inspected
    assert list(values["nearest"]) == list(view.hashtags)
    for name, others in values["nearest"].items():
        cosines = [cosine for _, cosine in others]
        assert len(others) == 8 and name not in dict(others)
        assert cosines == sorted(cosines, reverse=True)
    assert text.count("<circle") == len(values["map"]["places"]) == 9
    assert 0 < values["map"]["share_of_variance"] <= 1


def test_the_principal_plane_keeps_distances_in_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2)) @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:2]
    unit = space.directions(flat)
    points_T2, share = space.principal_plane(unit)
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
    Page(text).assert_self_contained()
    assert "Real data" in text and "Simulated data" not in text and "not real people" not in text
    simulated = page.render(values | {"simulated": True})
    assert "Simulated data" in simulated and "not real people" in simulated
    assert all(entry["name"] in text for entry in values["slices"])


def test_lost_features_leave_out_only_the_swaps(trained, tmp_path):
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


def test_a_run_without_predictions_is_a_sentence(trained, tmp_path, capsys):
    copy = shutil.copytree(trained, tmp_path / "run")
    (copy / "predictions.parquet").unlink()
    with pytest.raises(SystemExit, match="2"):
        cli.print_report(lambda: study.inspect_run(copy, top_k=2))
    output, errors = capsys.readouterr()
    assert not output and errors.count("\n") == 1 and "must have predictions.parquet" in errors
    (copy / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="damaged"):
        study.inspect_run(copy, top_k=2)


@pytest.mark.parametrize("num_hashtags", [1, slow(2), slow(5)])
def test_a_small_run_is_inspected_without_a_refusal(num_hashtags, tmp_path):
    """Uses users without attributes, one seed, and one or two test clips."""
    root = tiny_world.write_dataset(tmp_path / "data", num_videos=12)
    head, *lines = (root / "videos.csv").read_text().splitlines()
    for v, line in enumerate(lines):
        video_id, path, _, _, timestamp = line.split(",")
        lines[v] = f"{video_id},{path},user{v % 4},#tag{v % num_hashtags},{timestamp}"
    (root / "videos.csv").write_text("\n".join([head, *lines]) + "\n")
    (root / "users.csv").unlink()
    config = tiny_world.make_config(root, num_epochs=1)
    config.view.test_share, config.view.validation_share = 0.1, 0.0
    run.run(config, tmp_path / "run", log=lambda line: None, report=False)
    values, text = inspect(tmp_path / "run")
    assert values["top_k"] == max(1, num_hashtags - 1) and values["num_seeds"] == 1
    assert values["differences"]["kinds"] == []
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

"""The report page, made from synthetic run directories."""

import base64
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys

import clips
import numpy as np
import pyarrow.parquet as pq
import pytest
from fake_run import METRICS, NUM_CLIPS, NUM_FRAMES, WORDS, make_run
from html_page import Page
from PIL import Image

from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.report import write_report
from uhman_jax.report.plots import PAGE_COLORS, loss_curve, score_curve
from uhman_jax.report.tables import number
from uhman_jax.report.thumbnails import heat_levels, heat_png
from uhman_jax.runtime.errors import UserError
from uhman_jax.scores import REFERENCES

ROOT = pathlib.Path(__file__).parents[1]


def read_page(workdir, root=None):
    path = write_report(workdir, root)
    assert path == workdir / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def edit(path, change):
    """Changes a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A run on simulated clips with three seeds; tests must not change it."""
    return make_run(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def simulated_page(simulated):
    return read_page(*simulated)


@pytest.fixture(scope="module")
def metrics(simulated):
    return json.loads((simulated[0] / "metrics.json").read_text())


@pytest.fixture
def changed_page(simulated, tmp_path):
    """Returns the page of the simulated run after a change of a JSON file."""

    def read(change, name="metrics.json"):
        workdir = shutil.copytree(simulated[0], tmp_path / "run", dirs_exist_ok=True)
        edit(workdir / name, change)
        return read_page(workdir)

    return read


def test_every_metric_stands_in_its_row_and_column(metrics, simulated_page):
    cells = simulated_page.cells()
    names = [row[0] for row in simulated_page.tables[1][1:]]
    keys = "popularity", "user_history", "user_attributes", "knn", "ridge", "observable_oracle"
    keys += ("oracle",)
    titles = [key.capitalize().replace("_", " ") for key in keys]
    titles[3] = "Nearest neighbours"
    together, intervals = "UHMAN, ensemble of 3 seeds", ["± over seeds", "± over clips"]
    models = ["UHMAN", *intervals, together, "± over clips"]
    assert names == [*titles[:5], *models, *titles[5:]]
    for metric in METRICS:
        for key, title in zip(keys, titles, strict=True):
            assert cells[title, metric] == f"{metrics[f'{key}/{metric}']:.4f}"
        assert cells["UHMAN", metric] == f"{metrics[f'test/{metric}']:.4f}"
        assert cells["± over seeds", metric] == f"{metrics[f'test/{metric}/interval']:.4f}"
        assert cells[together, metric] == f"{metrics[f'test_ensemble/{metric}']:.4f}"
    for table in simulated_page.tables[1:5]:
        names, column = [row[0] for row in table], table[0].index(table[0][-1])
        for name, key in (("UHMAN", "test"), (together, "test_ensemble")):
            below = table[names.index(name) + 1 : names.index(name) + 3]
            (width,) = [row[column] for row in below if row[0] == "± over clips"][:1]
            assert width == f"{metrics[f'{key}/{table[0][column]}/interval_clips']:.4f}"
    for metric in METRICS:
        for seed in range(3):
            value = metrics[f"test/{metric}/seeds"][seed]
            assert cells[f"Seed {seed}", metric] == f"{value:.4f}"


def test_differences_to_references_stand_first_with_a_verdict(
    metrics, simulated_page, changed_page
):
    head, *rows = simulated_page.tables[0]
    assert head == ["UHMAN, ensemble of 3 seeds compared with", "P@10", "NDCG@10"]
    assert [row[0] for row in rows][-2:] == ["Nearest neighbours", "Ridge"] and len(rows) == 5
    for row, key in zip(rows, REFERENCES, strict=True):
        for cell, metric in zip(row[1:], ("P@10", "NDCG@10"), strict=True):
            gap = metrics[f"test-{key}/{metric}"]
            width = metrics[f"test-{key}/{metric}/interval_clips"]
            assert cell == f"{gap:+.4f} ±\u202f{width:.4f}".replace("-", "−")
    won = "The ensemble of 3 seeds ranks better than every reference; the closest is"
    assert won in simulated_page.text
    lost = {"test-ridge/P@10": -0.0055, "test-ridge/P@10/interval_clips": 0.0021}
    page = changed_page(lambda metrics: metrics.update(lost))
    lost = "Ridge on the mean feature ranks better than the ensemble of 3 seeds: P@10"
    assert lost in page.text
    assert "difference −0.0055 ±\u202f0.0021 over clips." in page.text


def test_references_explain_their_settings(simulated_page, changed_page):
    assert "the hashtags of the 30 training clips" in simulated_page.text
    assert "with penalty 3.0" in simulated_page.text
    assert "no validation clips, so the settings of both are fixed" in " ".join(
        simulated_page.text.split()
    )
    chosen = changed_page(lambda metrics: metrics["references"].update(validation_videos=64))
    assert "settings of both were chosen on the validation clips" in " ".join(chosen.text.split())


def test_a_run_from_before_the_comparison_has_a_page(changed_page):
    def as_before(metrics):
        for key in list(metrics):
            new = key.startswith(("test-", "knn/", "ridge/")) or key.endswith("/interval_clips")
            new |= "_ensemble/" in key
            if new or key == "references":
                del metrics[key]

    page = changed_page(as_before)
    assert page.tables[0][0][1] == "P@1" and ("Ridge", "P@10") not in page.cells()
    for text in ("± over clips", "compared with", "Ridge", "Nearest", "nsemble of"):
        assert text not in page.text
    assert "± over seeds" in page.text


def test_every_slice_stands_in_its_row_with_a_bar(metrics, simulated_page):
    cells = simulated_page.cells()
    for entry in metrics["slices"]:
        assert cells[entry["name"], "Clips"] == f"{entry['num_videos']:,}".replace(",", "\u202f")
        assert cells[entry["name"], "R@10"] == f"{entry['R@10']:.4f}"
    tags = simulated_page.elements
    bars = [bar["style"] for (_, box), (_, bar) in zip(tags, tags[1:], strict=False)
            if box.get("class") == "meter"]  # fmt: skip
    user = [entry["P@10"] for entry in metrics["slices"] if entry["by"] == "user"]
    assert bars[6:11:2] == [f"width:{100 * value / max(user):.2f}%" for value in user]


def test_gap_figure_measures_from_popularity_to_oracle(metrics, simulated_page, changed_page):
    low, value, high = (metrics[f"{key}/P@5"] for key in ("popularity", "test", "oracle"))
    share = 100 * (value - low) / (high - low)
    assert f"closes {share:.0f}\u202f% of it" in simulated_page.text
    assert f"{share:.0f}\u202f%±\u202f4\u202f%" in simulated_page.text, "its interval is 0.037"
    assert "it (ensemble of 3 seeds: 43\u202f%)" in simulated_page.text
    assert "ensemble: 43\u202f%" in simulated_page.text
    styles = {e["style"] for _, e in simulated_page.elements if "style" in e}
    full = 1.04 * high
    band = f"left:{100 * low / full:.2f}%;width:{100 * (high - low) / full:.2f}%"
    together = metrics["test_ensemble/P@5"]
    width = metrics["test_ensemble/P@5/interval_clips"]
    whisker = f"left:{100 * (together - width) / full:.2f}%;width:{200 * width / full:.2f}%"
    lengths = {f"width:{100 * score / full:.2f}%" for score in (value, together)}
    assert {band, whisker, *lengths} <= styles
    assert f"{5 * value:.2f} are right on average" in simulated_page.text
    page = changed_page(lambda metrics: metrics.update({"gap_closed/P@5": -0.042}))
    assert "UHMAN is below the band" in page.text and "UHMAN closes" not in page.text
    assert "−4\u202f%" in page.text


@pytest.mark.parametrize(
    ("settings", "title"), [({"frame_attention": False}, "UHMAN(b)"), ({"name": "3wm"}, "3WM")]
)
def test_an_ablation_or_a_baseline_is_called_by_its_name(changed_page, settings, title):
    page = changed_page(lambda config: config["model"].update(settings), "config.json")
    assert f"Model {title}" in page.text and f"{title} closes" in page.text
    assert (title, "P@10") in page.cells()


def test_duplicates_stand_beside_the_counts_of_the_data(simulated_page, changed_page):
    assert "Duplicates" not in simulated_page.text
    facts = {"duplicate_contents": 2, "duplicate_videos": 5}
    facts["duplicate_contents_in_several_parts_if_kept"] = 1
    page = changed_page(lambda metrics: metrics["data"].update(facts))
    assert "Duplicates: 2 contents have several ids, 5 videos in all. All videos of a" in page.text
    assert "duplicate contents in several parts if kept" in page.text


def test_facts_and_settings_stand_on_the_page(simulated_page, changed_page):
    for text in (
        "3.1 times chance, 16\u202f%",  # attention: 0.503 / 0.161
        "27\u202f%",
        "1.4 times chance, 52\u202f%",
        "off by 4.2 percentage points",
        "That of the ensemble of 3 seeds is off by 2.9 percentage points",
        "Simulated data",
        "random weights (seed 0), calibrated",
        "10\u202f291",
        "preprocess.frames_per_second8.0",  # exact
    ):
        assert text in simulated_page.text
    assert simulated_page.cells()["13\u202f%", "Right"] == "20\u202f%"
    assert simulated_page.cells()["13\u202f%", "Suggestions"] == "3\u202f000"
    # Without a validation split, or evaluated by an earlier version:
    assert "percentage points" not in changed_page(lambda metrics: metrics.pop("reliability")).text


def test_page_is_self_contained_and_reproducible(simulated, simulated_page):
    simulated_page.assert_self_contained()
    assert write_report(*simulated).read_text() == simulated_page.source


def test_a_phone_scrolls_one_way_and_has_dark_mode(browser, simulated, simulated_page):
    phone = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme="dark")
    phone.goto((simulated[0] / "report.html").as_uri())
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    style = "getComputedStyle(document.querySelector('.clip')).backgroundColor"
    assert phone.evaluate(style) == "rgb(28, 30, 37)", "--card of the style sheet"


def test_plots_have_the_colours_of_the_page(simulated_page):
    styles = " ".join(e["style"] for _, e in simulated_page.elements if "style" in e)
    assert "var(--model)" in styles and "var(--train)" in styles
    assert not set(PAGE_COLORS) & set(re.findall("#[0-9a-f]{6}", styles)), "blind to dark mode"
    tags = [tag for tag, _ in simulated_page.elements]
    assert tags.count("svg") == 3
    dots = [e for tag, e in simulated_page.elements if tag == "use"]
    dots = [dot for dot in dots if "fill: var(--model)" in dot.get("style", "")]
    assert len(dots) == 3, "one per seed marks the best validation"


def test_clips_show_real_frames_with_attention_and_weights(simulated_page):
    num_frames = (NUM_CLIPS - 1) * NUM_FRAMES + 5  # the last clip has five real frames
    thumbnails = simulated_page.sources("jpeg")
    heats = simulated_page.sources("png")
    assert len(thumbnails) == len(heats) == num_frames
    assert {picture.size for picture in thumbnails} == {(140, 249)}  # 90 x 160
    assert {picture.size for picture in heats} == {(32, 32)}
    for picture, corner in ((thumbnails[0], (20, 20)), (thumbnails[12], (100, 180))):
        red, green, blue = picture.convert("RGB").getpixel(corner)
        assert red > 190 and green > 180 and blue < 150, "the yellow square is elsewhere"


def test_hits_are_marked_by_more_than_colour(simulated, simulated_page):
    rows = pq.read_table(simulated[0] / "predictions.parquet").to_pylist()
    first = {row["video_id"]: row for row in rows if row["seed"] == 0}
    hits = sum(len(set(r["true_hashtags"]) & set(r["hashtags"][:10])) for r in first.values())
    assert simulated_page.text.count("hit: ") == 2 * hits, "once among the true, once suggested"
    row = first["clip-03"]
    rank = 1 + row["hashtags"].index(row["true_hashtags"][0])
    assert f"#{row['true_hashtags'][0]}rank {rank}" in simulated_page.text


def test_hostile_text_stays_text(tmp_path):
    hostile = ["<script>alert(1)</script>", "\"'><img/src=x/onerror=alert(1)>", "&amp;"]
    hostile += ["\u202eevil"]
    others = "</style><script>bad()</script>", "<b onclick=x>", "</title><script>"
    workdir, _ = make_run(tmp_path, hashtags=hostile + WORDS, num_seeds=1)

    def spoil_metrics(metrics):
        metrics["extractor"], metrics["slices"][0]["name"], _ = others

    def spoil_config(config):
        config["name"], config["data"]["root"] = others[2], "broken \udcff byte"

    edit(workdir / "metrics.json", spoil_metrics)
    edit(workdir / "config.json", spoil_config)
    page = read_page(workdir)
    assert "script" not in [tag for tag, _ in page.elements]
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert len(page.sources("png")) == len([1 for tag, _ in page.elements if tag == "img"])
    assert all(text in page.text for text in (*hostile, *others))


def test_clips_that_cannot_be_shown_have_a_reason_and_keep_their_attention(simulated, tmp_path):
    root = shutil.copytree(simulated[1], tmp_path / "root")
    (root / "clips/clip-01.mp4").unlink()
    (root / "clips/clip-02.mp4").write_bytes(b"no video at all")
    page = read_page(simulated[0], root)
    notes = [e for _, e in page.elements if e.get("class") == "placeholder"]
    assert len(notes) == page.text.count("The clip cannot be shown") == 2
    assert str(tmp_path) not in page.text, "reasons must not name local folders"
    assert len(page.sources("jpeg")) == (NUM_CLIPS - 3) * NUM_FRAMES + 5
    assert len([p for p in page.sources("png") if p.size == (8, 8)]) == 2 * NUM_FRAMES
    video, user = Video("other", "", "u", ("cat",), None), User("u", "", None, "", ())
    write_raw_dataset(tmp_path, [video], [user])
    for root, reason in ((tmp_path, "no longer lists it"), (tmp_path / "x", "cannot be shown")):
        assert read_page(simulated[0], root).text.count(reason) == NUM_CLIPS


def test_real_features_without_videos_and_one_seed(tmp_path):
    workdir, root = make_run(tmp_path, simulated=False, num_seeds=1, videos=False)
    for page in (read_page(workdir, root), read_page(workdir)):
        assert not page.sources("jpeg") and "cannot be shown" not in page.text
        assert {picture.size for picture in page.sources("png")} == {(8, 8)}, "only the maps"
    assert {row for row, column in page.cells() if column == "P@10"} >= {"Popularity", "UHMAN"}
    assert "Real data" in page.text and "the best possible ranking is unknown" in page.text
    assert "The whisker is the 95 % interval over clips." in page.text
    for text in ("Oracle", "Does it look", "over seeds", "Every seed", "Seed 0", "nsemble"):
        assert text not in page.text


def test_page_stays_small_even_for_noise(tmp_path):
    workdir, root = make_run(tmp_path, videos=True)
    images = list(np.random.default_rng(0).integers(0, 256, (16, 640, 360, 3), np.uint8))
    times = [125 * t for t in range(16)]
    noise = clips.write_clip(tmp_path / "noise.mp4", images, times, "libx264", preset="ultrafast")
    for v in range(NUM_CLIPS):
        shutil.copy(noise, root / f"clips/clip-{v:02d}.mp4")
    assert write_report(workdir, root).stat().st_size < 3_000_000


def test_heat_peaks_where_the_attention_is():
    regions_FM = np.full((1, 64), 0.5 / 63)
    regions_FM[0, 2 * 8 + 5] = 0.5  # row 2, column 5
    levels_FYX = heat_levels(regions_FM)
    assert levels_FYX[0, 2, 5] == levels_FYX.max() == 1
    assert levels_FYX[0, 0, 0] == 0, "less than an even share is no heat"
    uri = heat_png(levels_FYX[0], smooth=True).removeprefix("data:image/png;base64,")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGBA"))
    y, x = np.unravel_index(picture[..., 3].argmax(), (32, 32))
    assert 8 <= y < 12 and 20 <= x < 24
    assert picture[0, 0, 3] == 0
    assert not heat_levels(np.full((3, 64), 1 / 64)).any()
    assert heat_levels(np.array([[2.0] + [62 / 63] * 63]) / 64).max() == pytest.approx(1 / 3)


def test_report_does_not_change_matplotlib_and_imports_no_slow_library():
    code = """if True:
        import sys
        import matplotlib
        before = matplotlib.rcParams.copy()
        import uhman_jax.report
        from uhman_jax.report.plots import loss_curve, score_curve
        entry = {"step": 1, "loss": [1.0], "validation/P@10": [0.5]}
        loss_curve([entry]), score_curve([entry], "P@10")
        print({"matplotlib.pyplot", "tensorflow", "jax"} & set(sys.modules))
        keys = set(before) - {"backend"}  # asking for the backend sets it
        print({key for key in keys if matplotlib.rcParams[key] != before[key]})
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.split() == ["set()", "set()"], result.stderr


@pytest.mark.parametrize(
    "name",
    "config.json metrics.json metrics.jsonl examples.npz view.npz predictions.parquet".split(),
)
def test_missing_or_damaged_file_is_named(simulated, tmp_path, name):
    workdir = tmp_path / "run"
    shutil.copytree(simulated[0], workdir, ignore=shutil.ignore_patterns(name, "report.html"))
    with pytest.raises(UserError, match=f"must have {re.escape(name)}, .* train and evaluate"):
        write_report(workdir)
    (workdir / name).write_bytes(b"{]\n{]\n")
    with pytest.raises(UserError, match=re.escape(name)):
        write_report(workdir)
    assert not (workdir / "report.html").exists()


def test_missing_and_infinite_values():
    known = {"step": 1, "epoch": 1, "loss": [float("nan"), 1.0], "validation/P@10": [None, 0.5]}
    for entry in (known, {"step": 3}):
        assert "svg" in loss_curve([entry]) and "svg" in score_curve([entry], "P@10")
    assert number(None) == number(float("nan")) == number("x") == "–"

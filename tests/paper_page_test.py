"""Tests of the study's tables, figures and page, from synthetic cells."""

import re

import numpy as np
import pytest
import tiny_world
from fake_study import LEVELS, NUM_SEEDS, SYSTEMS, make_cell, make_study, plain
from html_page import Page
from PIL import Image

from experiments.paper import breakdowns, drawing, figures, layout, page, tables
from uhman_jax.config import Distribution

PLUS = {"world": "selection", "recipe": "plus"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Cells and the folder that `write_all` filled from them."""
    folder = tmp_path_factory.mktemp("study")
    cells = make_study(folder)
    page.write_all(cells, folder)
    return cells, folder


# Tables


def parse(text):
    """Returns the rows of the first Markdown table as {first column: {column: text}}."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1, "every row has every column"
    return {row[0].strip("*"): dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[2:]}


def rows_of(table):
    return parse(layout.markdown(table))


def main_table(cells, folder, **where):
    return tables.build_main(cells, **PLUS | {"view": "natural", "results": folder} | where)


def test_main_table_by_hand(tmp_path):
    cells = [
        plain([0.1, 0.2], system="BL", seeds=2),
        plain([0.3, 0.3], system="UHMAN", seeds=2),
        plain([0.1, 0.1], system="3WM", seeds=2) | {"failed": "the loss | is not finite"},
    ]
    table = main_table(cells, tmp_path)
    rows = rows_of(table)
    # One degree of freedom: 12.706 * 0.05 = 0.6353.
    assert rows["BL"]["P@10"] == "0.1500 ±\u202f0.6353"
    assert rows["BL"]["*paper P@10*"] == "*0.0650*"
    assert rows["3WM"]["*paper F1@10*"] == "*0.113*", "as printed"
    assert rows["BL"]["P@10, % of oracle"].startswith("51.5\u202f%")  # 0.15 / 0.291
    assert rows["BL"]["p, UHMAN − row"] == "– +0.1500"
    assert set(rows["UA"].values()) >= {"–"} and rows["UA"]["P@10"] == "–"
    assert rows["3WM"]["P@10"] == "–" and rows["BL"]["R@50"] == "–"
    assert rows["UHMAN"]["p, UHMAN − row"] == ""
    assert rows["Observable oracle"]["P@10"] == "0.2790"
    assert rows["Oracle"]["P@10, % of oracle"] == "100.0\u202f%"
    notes = " ".join(table.notes)
    assert "Failed: 3WM, world seed 0: the loss | is not finite" in notes
    assert "1 dataset, 2 seeds each" in notes and "another dataset" in notes


def test_shares_are_computed_within_a_dataset_and_rows_name_missing_datasets(tmp_path):
    cells = [plain([0.1, 0.2]), plain([0.3, 0.3], world_seed=1), plain([0.1], system="BL")]
    cells[0]["references"] = {"oracle": {"P@10": 0.5}, "popularity": {"P@10": 0.1}}
    cells[1]["references"] = {"oracle": {"P@10": 0.6}}
    rows = rows_of(main_table(cells[:2], tmp_path))
    assert rows["UHMAN"]["P@10, % of oracle"].startswith("40.0\u202f%")  # (0.15 / 0.5 + 0.5) / 2
    assert rows["Popularity"]["P@10, % of oracle"] == "20.0\u202f%"
    assert rows["UHMAN"]["% of observable oracle"] == "–"
    assert rows["Oracle"]["P@10"] == "0.5500"
    assert "BL (1 of 2 datasets)" in rows_of(main_table(cells, tmp_path))


def test_tables_of_the_synthetic_study(study):
    cells, folder = study
    rows = rows_of(main_table(*study, view="balanced"))
    assert list(rows)[:4] == ["BL", "UA", "3WM", "UHMAN"]
    assert rows["UHMAN"]["*paper P@10*"] == "*0.0507*"
    assert rows["3WM"]["p, UHMAN − row"].startswith("0.0003 +0.0")
    rows = rows_of(main_table(*study, systems=tables.ABLATION))
    assert list(rows) == list(tables.ABLATION) and "P@50" not in rows["UHMAN"]
    assert rows["UHMAN(a)"]["*paper R@10*"] == "*0.1973*"
    assert rows["UHMAN(a)"]["p, UHMAN − row"].startswith("0.0003 "), "Holm over three"
    overview = rows_of(breakdowns.build_overview(cells)[0])
    assert list(overview)[:4] == [
        f"selection, {view}, plus" for view in ("natural", "balanced", "temporal", "cold_user")
    ]
    assert list(overview)[-1] == "everything, natural, paper" and len(overview) == 11
    row = overview["selection, natural, plus"]
    assert list(row) == [*SYSTEMS, "Observable oracle", "Oracle", "Popularity"]
    assert row["UHMAN(b)"] == rows["UHMAN(b)"]["P@10"]
    assert row["Oracle"].startswith("0.2910")
    assert overview["selection, temporal, plus"]["UHMAN(a)"] == "–"
    rows = rows_of(main_table(*study, view="cold_user"))
    assert not any(name.startswith("*paper") for name in rows["UHMAN"])
    assert "Nothing" in main_table(*study, world="additive", view="temporal").notes[0]


def test_differences_to_uhman():
    scores = {("BL", 0): 0.1, ("BL", 1): 0.2, ("UHMAN", 0): 0.15, ("UHMAN", 1): 0.3}
    scores[("UHMAN", 2)] = 0.9  # in a world without BL
    cells = [plain([score], system=name, world_seed=w) for (name, w), score in scores.items()]
    for some, text in ((cells, "+0.0750"), (cells[:2], "–")):
        _, gaps = breakdowns.build_overview(some)
        assert rows_of(gaps) == {"selection, natural, plus": {"BL": text}}


def test_attention_and_slices(study):
    cells, _ = study
    rows = rows_of(breakdowns.build_attention(cells, recipe="plus"))
    assert rows["UHMAN(a), selection"]["Regions with any object"] == "–"
    assert rows["UHMAN, selection"]["Regions with any object"].endswith("(23.7\u202f%)")
    assert "BL, selection" not in rows
    table = breakdowns.build_slices(cells, view="natural", **PLUS)
    assert [name.split(",")[0] for name in table.columns] == [
        "no history", "missing attributes", "history and all attributes", "rare", "medium",
        "frequent",
    ]  # fmt: skip
    level = LEVELS["UHMAN"] * (1 + 1.02) / 2  # of two worlds
    assert rows_of(table)["UHMAN"]["no history, P@10 (61 clips)"] == f"{0.7 * level:.4f}"


def test_choices_of_the_recipe(study):
    cells, _ = study
    rows = rows_of(breakdowns.build_recipe(cells, **PLUS))
    assert list(rows) == ["the recipe", "without history dropout", "without weight decay"]
    worse = rows["without history dropout"]["worse by, validation"]
    assert worse.startswith("+0.01") and "±" in worse
    assert abs(float(rows["without weight decay"]["worse by, test"].split()[0][1:])) < 0.005
    assert rows["the recipe"]["worse by, test"] == ""
    assert not breakdowns.build_recipe(cells, world="additive", recipe="plus").rows


def test_markdown_has_claims_first_and_every_row_of_every_table_is_whole(study):
    _, folder = study
    text = (folder / "tables.md").read_text("utf-8")
    titles = re.findall(r"^### (.*)$", text, re.M)
    assert titles[:2] == ["The paper's claims", "P@10 of every system"]
    assert titles[3].startswith("Claims in numbers")
    assert sum(title.startswith("Table 1") for title in titles) == 6
    assert sum(title.startswith("Table 2") for title in titles) == 3, "none that has no cells"
    for part in text.split("### ")[1:]:
        parse(part)


# Figures


def test_every_figure_is_drawn_and_the_same_bytes_again(study, tmp_path):
    cells, folder = study
    for name in figures.FIGURES:
        with Image.open(folder / f"{name}.png") as image:
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert image.width > 700
    assert not (folder / "figure3.svg").exists(), "no run left its view"
    counts = np.array([3, 900, 40, 11]), np.array([3, 11, 12])
    paths = figures.write_figures(
        [cell for cell in cells if "-K" in cell["cell"]], counts, tmp_path
    )
    names = [f"{name}.{kind}" for name in ("figure3", "figure4a") for kind in ("png", "svg")]
    assert [path.name for path in paths] == names
    assert "entropy" in paths[1].read_text("utf-8")
    for path in paths[2:]:
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_a_figure_without_cells_is_not_drawn(tmp_path):
    assert figures.write_figures([], None, tmp_path) == []
    cells = [plain([0.1], suffix="-K8"), make_cell(np.random.default_rng(0), system="BL")]
    assert {path.stem for path in figures.write_figures(cells, None, tmp_path)} == {"systems"}
    assert {path.stem for path in tmp_path.iterdir()} == {"systems"}


def test_sample_sizes_are_compared_over_the_same_worlds():
    cells = [
        plain([0.2], world_seed=0), plain([0.9], world_seed=1),
        plain([0.1], world_seed=0, data_share=0.5),
    ]  # fmt: skip
    groups = figures._same_worlds(cells)
    assert [[cell["test"]["P@10"] for cell in group] for group in groups] == [[[0.1]], [[0.2]]]


def test_every_colour_of_the_figures_has_one_for_the_dark():
    used = {*drawing.SYSTEM_COLORS.values(), *drawing.WORLD_COLORS.values()}
    used |= set(drawing.VIEW_COLORS.values())
    used |= {color for color, _ in drawing.REFERENCE_LINES.values()}
    assert used <= set(drawing.COLORS)


# The page


def test_page_is_whole_self_contained_and_begins_with_the_claims(study):
    cells, folder = study
    text = (folder / "study.html").read_text("utf-8")
    parsed = Page(text)
    parsed.assert_self_contained()
    assert parsed.ids
    assert parsed.text.index("Does it hold?") < parsed.text.index("Tables 1 to 3")
    expected = "Simulated data,does not,P@10 of every system,Fig. 4a,How to read,Settings"
    assert all(words in parsed.text for words in expected.split(","))
    assert "in: selection and everything; one of them beats it in: additive." in parsed.text
    assert text.count("<svg") == 5 and "var(--ink)" in text
    trained = NUM_SEEDS * len(cells)
    assert f"{trained} trained models" in parsed.text.replace("\u202f", "")


def test_page_escapes_text_and_names_real_data(tmp_path):
    rng = np.random.default_rng(0)
    evil = "<script>alert(1)</script>"
    cells = [make_cell(rng, world="data", system=name, references={}) for name in SYSTEMS]
    for cell in cells:
        cell["config"] = {"data.note": evil}
        cell["slices"] = [{"by": "user", "name": evil, "num_videos": 2, "P@10": 0.1}]
    cells[1]["failed"] = evil
    page.write_all(cells, tmp_path)
    text = (tmp_path / "study.html").read_text("utf-8")
    assert evil not in text and "Real data" in Page(text).text and "1 cell failed" in text
    assert text.count("&lt;script&gt;alert") == 4, "a setting, a group, a failure in two tables"


def test_a_page_without_cells(tmp_path):
    folder = tmp_path / "new" / "folder"
    written = page.write_all([], folder)
    assert [path.name for path in written] == ["tables.md", "study.html"]
    text = Page((folder / "study.html").read_text("utf-8")).text
    assert "No claim of the paper can be judged yet." in text


def test_figure_3_comes_from_the_views_of_the_runs(tmp_path):
    root = tiny_world.write_dataset(tmp_path / "data")
    config, cells, counts = tiny_world.make_config(root), [], []
    for view in ("natural", "balanced"):
        config.view.distribution, config.view.balanced_top = Distribution(view), 2
        built, _ = tiny_world.load(root, config)
        cells.append(plain([0.1], view=view, fingerprint="0123"))
        run = tmp_path / "runs" / cells[-1]["cell"] / "0123"
        run.mkdir(parents=True)
        built.save(run / "view.npz")
        counts.append(built.counts_T)
    found = page.hashtag_counts(cells, tmp_path)
    np.testing.assert_array_equal(found[0], counts[0])
    np.testing.assert_array_equal(found[1], counts[1])
    assert page.hashtag_counts(cells[:1], tmp_path) is None
    assert page.hashtag_counts(cells, tmp_path / "data") is None
    names = {path.name for path in page.write_all(cells, tmp_path)}
    assert {"figure3.svg", "figure3.png"} <= names
    # A later page keeps the figure, though the runs are gone.
    *_, path = page.write_all(cells, tmp_path, results=tmp_path / "data")
    assert "Fig. 3" in path.read_text("utf-8")

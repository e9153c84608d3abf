"""The generator of `experiments/real_tags`, on small packages that the tests write."""

import collections
import json
import pathlib

import av
import numpy as np
import pytest
from PIL import Image

from experiments.real_tags import clips, dataset, pictures
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.runtime.errors import UserError

SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:cc="http://web.resource.org/cc/"
 xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><metadata><rdf:RDF><cc:Work>
<dc:creator><cc:Agent><dc:title>{artist}</dc:title></cc:Agent></dc:creator>
<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject><dc:date>{date}</dc:date>
</cc:Work></rdf:RDF></metadata></svg>"""
COLOURS = [(220, 30, 30), (30, 160, 40), (40, 60, 220), (160, 40, 160), (20, 20, 20)]
COLOURS += [(230, 120, 0), (0, 140, 140), (120, 80, 20)]


def image(colour, size=(40, 40)):
    """Returns a rectangle of one colour, without margin."""
    return Image.new("RGBA", size, (*colour, 255))


def add(root, name, keywords="sea", artist="ann", picture=None, date="2010-03-01"):
    """Writes the SVG and, unless it is False, the PNG of one picture; `keywords` has commas."""
    picture = image(COLOURS[0]) if picture is None else picture
    share = root / "usr" / "share" / "openclipart"
    items = "".join(f"<rdf:li>{word}</rdf:li>" for word in keywords.split(","))
    for kind in ("svg", "png"):
        (share / kind / name).parent.mkdir(parents=True, exist_ok=True)
    text = SVG.format(artist=artist, items=items, date=date)
    (share / "svg" / f"{name}.svg").write_text(text)
    if picture:
        picture.save(share / "png" / f"{name}.png")


def picture_of(name, artist, colour, size=(40, 40)):
    return pictures.Picture(name, artist, (name,), "", lambda: image(colour, size), name)


def frames_of(path):
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in file.decode(video=0)]


def test_keywords_artists_and_dates(tmp_path, monkeypatch):
    add(tmp_path, "animals/cat", "Wild Cat,hash,PET,wildcat,,#pet", "Jean B. (jb@example.org)")
    add(tmp_path, "animals/dog", "dog", "JEAN B.", date="soon")
    add(tmp_path, "animals/star", "star", "codifiedivining")
    add(tmp_path, "food/none", "hash, ", "eve")
    add(tmp_path, "food/nobody", "bread", "")
    add(tmp_path, "food/unrendered", "bread", "eve", picture=False)
    add(tmp_path, "food/huge", "bread", "eve", image(COLOURS[1], (100, 41)))
    add(tmp_path, "food/large", "bread", "eve", image(COLOURS[1], (100, 40)))
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 4000)
    found = {picture.name: picture for picture in pictures.openclipart(tmp_path)}
    assert list(found) == ["animals/cat", "animals/dog", "food/large"]
    assert found["animals/cat"].keywords == ("wildcat", "pet")
    assert found["animals/cat"].artist == found["animals/dog"].artist == "jean b"
    assert [picture.date for picture in found.values()] == ["2010-03-01", "", "2010-03-01"]
    assert found["food/large"].open().size == (100, 40)


def test_a_folder_without_the_collection_is_named(tmp_path):
    for folder, collection, inner in (
        (tmp_path, "openclipart", "svg/animals"),
        (tmp_path / "absent", "openmoji", "data/openmoji.json"),
    ):
        with pytest.raises(UserError, match=f"must name a folder that holds {inner} .*unpack"):
            pictures.read(collection, folder)


def test_an_artist_has_at_most_150_pictures(tmp_path):
    for number in range(155):
        add(tmp_path, f"animals/p{number:03}", artist="many")
    add(tmp_path, "animals/a", artist="few")
    found = pictures.read("openclipart", tmp_path)
    assert collections.Counter(picture.artist for picture in found) == {"many": 150, "few": 1}
    names = [picture.name for picture in found]
    assert names == sorted(names)
    left_out = {f"animals/p{number:03}" for number in range(155)} - set(names)
    assert left_out != {f"animals/p{number:03}" for number in range(150, 155)}, "not the last"


def test_near_copies_have_one_group(tmp_path):
    """Checks chains too: each is near the one before; the first and the last are not near."""
    square = image(COLOURS[0])
    framed = Image.new("RGBA", (90, 60))
    framed.paste(square, (20, 5))  # a transparent margin does not count
    retouched = square.copy()
    retouched.paste((0, 0, 0, 255), (0, 0, 16, 16))
    further = retouched.copy()
    further.paste((0, 0, 0, 255), (16, 0, 32, 16))
    for name, picture in dict(
        z1=square, z2=framed, z3=retouched, z4=further, a=image(COLOURS[1]), b=image(COLOURS[2])
    ).items():
        add(tmp_path, f"animals/{name}", artist=name, picture=picture)
    found = pictures.read("openclipart", tmp_path)
    groups = {p.name.removeprefix("animals/"): p.group.removeprefix("animals/") for p in found}
    assert groups == {"a": "a", "b": "b", "z1": "z1", "z2": "z1", "z3": "z1", "z4": "z1"}
    without_z3 = pictures._with_groups([p for p in found if p.name != "animals/z3"])
    assert {p.name: p.group for p in without_z3}["animals/z4"] == "animals/z4"


@pytest.fixture
def collection(tmp_path):
    """Twelve pictures of six artists; p00 and p01 are near copies by two of them."""
    for n in range(12):
        colour = COLOURS[max(n - 1, 0) % 8]
        picture = image(colour, (40, 40 if n < 9 else 20))
        artist, date = f"artist {n % 6}", f"2011-01-{n + 1:02}" if n else "2011-02-31"
        add(tmp_path, f"animals/p{n:02}", f"tag{n},all", artist, picture, date)
    return pictures.read("openclipart", tmp_path)


def test_single_clips_are_a_dataset_with_near_copies_as_groups(collection, tmp_path):
    dataset.make(tmp_path / "data", collection)
    raw = read_raw_dataset(tmp_path / "data", strict=True)  # finds all clips
    assert [video.hashtags for video in raw.videos] == [(f"tag{n}", "all") for n in range(12)]
    assert [video.user_id for video in raw.videos] == [f"artist {n % 6}" for n in range(12)]
    numbers = [0, 0, *range(2, 12)]  # of the first near copy
    assert [video.group for video in raw.videos] == [f"animals/p{n:02}" for n in numbers]
    times = [video.timestamp for video in raw.videos]
    assert times[0] is None and times[1] == 1_293_926_400 and times[11] == times[1] + 10 * 86_400
    frames = frames_of(tmp_path / "data" / raw.videos[4].path)
    assert len(frames) == 10 and frames[0].shape == (320, 320, 3)
    for frame in (frames[0], frames[-1]):
        np.testing.assert_allclose(frame[160, 160], COLOURS[3], atol=20)
        np.testing.assert_allclose(frame[2, 2], 255, atol=8)
    clip = tmp_path / "data" / raw.videos[0].path
    clip.write_bytes(b"kept")
    dataset.make(tmp_path / "data", collection)
    assert clip.read_bytes() == b"kept", "clips that exist are not drawn again"


def test_composites_have_three_artists_of_one_block(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_BLOCK", 6)
    monkeypatch.setattr(dataset, "_render", lambda tasks: [task() for task in tasks])
    dataset.make(tmp_path, collection, composites=True)
    videos = read_raw_dataset(tmp_path, strict=True).videos
    by_name = {picture.name: picture for picture in collection}
    block = dict(zip(sorted(by_name), [video.group for video in videos], strict=True))
    assert set(block.values()) == {"block 0", "block 1"}
    assert block["animals/p00"] == block["animals/p01"], "near copies"
    places = clips.Places(tmp_path).paths
    assert sorted(places) == [video.video_id for video in videos]
    for number, video in enumerate(videos):
        ways = places[video.video_id]
        assert ways[0].name == f"animals/p{number:02}" and len(ways) == 3
        assert video.hashtags == by_name[ways[0].name].keywords
        artists = [by_name[way.name].artist for way in ways]
        assert len(set(artists)) == 3 and artists[0] == video.user_id
        assert {block[way.name] for way in ways} == {video.group}
    chosen = collections.Counter(way.name for ways in places.values() for way in ways[1:])
    assert len(chosen) > 6, "not always the same others"


def test_too_few_artists_are_an_error():
    own = picture_of("a", "ann", COLOURS[0])
    block = [own, picture_of("b", "bob", COLOURS[1]), picture_of("c", "bob", COLOURS[2])]
    with pytest.raises(ValueError, match="pictures of three artists, got fewer around a"):
        clips.choose_others(own, block)


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_places_are_where_the_pictures_are_drawn(tmp_path, name):
    sizes = [(40, 40), (40, 24), (40, 40)]
    shown = [
        picture_of(f"{name}{n}", f"artist{n}", COLOURS[n], size) for n, size in enumerate(sizes)
    ]
    plan = clips.plan_composite(name, shown[0], shown[1:])
    clips.write_places(tmp_path, {"v": plan})
    read = clips.Places(tmp_path).paths["v"]
    assert [way.name for way in read] == [picture.name for picture in shown]
    clips.render_composite(tmp_path / "v.mp4", name, plan, shown)
    frames = frames_of(tmp_path / "v.mp4")
    assert len(frames) == 30
    visible = np.zeros((30, 3), bool)
    for index, frame in enumerate(frames):
        background = np.median(frame.reshape(-1, 3), axis=0)
        expected = np.broadcast_to(background, frame.shape).copy()
        certain = np.ones((320, 320), bool)  # not within five pixels of an edge, which blur
        for n, way in enumerate(read):
            box = way.box(index / 29)
            visible[index, n] = box is not None
            if box is None:
                continue
            assert min(box) >= 0 and max(box) <= 1
            x0, y0, x1, y1 = (np.array(box) * 320).round().astype(int)
            margin = round((y1 - y0) * (1 - sizes[n][1] / 40) / 2)
            y0, y1 = y0 + margin, y1 - margin
            certain[max(y0 - 5, 0) : y1 + 5, max(x0 - 5, 0) : x1 + 5] = False
            certain[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5] = True
            expected[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5] = COLOURS[n]
        difference = np.abs(frame - expected).max(axis=2)
        assert np.quantile(difference[certain], 0.999) < 25, index
    assert visible.any(axis=1).all() and (abs(visible.sum(axis=0) - 18) <= 1).all()
    mask_FOM = clips.Places(tmp_path).region_masks("v", np.arange(30) / 10, 64)
    assert np.array_equal(mask_FOM.any(axis=2), visible)
    for index, n in np.argwhere(visible):
        x0, y0, x1, y1 = read[n].box(index / 29)
        column, line = int((x0 + x1) / 2 * 8), int((y0 + y1) / 2 * 8)  # of the picture's centre
        assert mask_FOM[index, n, 8 * line + column]
        assert mask_FOM[index, n].sum() == pytest.approx((x1 - x0) * (y1 - y0) * 64, abs=5)
    quarters = {(way.centres[0][0] > 0.5, way.centres[0][1] > 0.5) for way in plan}
    assert len(quarters) == 3 and len({way.shown for way in plan}) == 3


def test_a_set_made_again_has_the_same_bytes(collection, tmp_path, monkeypatch):
    """Encodes without B-frames: with them, x264's macroblock tree differs from call to call."""
    monkeypatch.setattr(dataset, "_BLOCK", 6)
    monkeypatch.setattr(dataset, "_render", lambda tasks: [task() for task in tasks[:3]])
    found = collections.defaultdict(list)
    for root in (tmp_path / "one", tmp_path / "two"):
        for composites in (False, True):
            dataset.make(root / str(composites), collection, composites=composites)
        for path in filter(pathlib.Path.is_file, root.rglob("*")):
            found[path.relative_to(root).as_posix()].append(path.read_bytes())
    assert {name: len(set(contents)) for name, contents in found.items()} == dict.fromkeys(found, 1)
    assert {"False/videos.csv", "True/places.json"} < set(found)
    drawn = [contents[0] for name, contents in found.items() if name.endswith(".mp4")]
    assert len(drawn) == len(set(drawn)) == 6 and all(len(c) == 2 for c in found.values())


def test_openmoji_is_read_and_rendered(tmp_path):
    pytest.importorskip("resvg_py", reason="the extra real_tags is not installed")
    folder = tmp_path / "package"
    (folder / "data").mkdir(parents=True)
    (folder / "color" / "svg").mkdir(parents=True)
    entries = []
    for code, skin, author in (
        ("1F600", "", "Emily J (e@example.org)"),
        ("1F44B-1F3FB", "1", "Emily J"),  # a skin tone
        ("1F601", "", ""),  # nobody's
        ("1F602", "", "Ada"),  # without a file
    ):
        tags = {"tags": "happy face, smile", "openmoji_tags": "smile"}
        who = {"openmoji_author": author, "openmoji_date": "2018-04-18", "skintone": skin}
        entries.append({"hexcode": code, **tags, **who})
        shape = '<rect x="18" y="18" width="36" height="36" fill="#28a028"/>'
        text = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">{shape}</svg>'
        if code != "1F602":
            (folder / "color" / "svg" / f"{code}.svg").write_text(text)
    (folder / "data" / "openmoji.json").write_text(json.dumps(entries))
    (found,) = pictures.read("openmoji", tmp_path)
    assert (found.name, found.artist, found.date) == ("1F600", "emily j", "2018-04-18")
    assert found.keywords == ("happyface", "smile") and found.group == "1F600"
    rendered = np.asarray(found.open()).astype(int)
    assert rendered.shape == (288, 288, 4)
    np.testing.assert_array_equal(rendered[144, 144], (40, 160, 40, 255))
    assert rendered[10, 10, 3] == 0

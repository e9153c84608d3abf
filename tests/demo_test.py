"""The web page in Debian's Chromium, served by the command."""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.request

import clips
import pytest
import small_run

from uhman_jax.demo.server import examples_of, launch
from uhman_jax.runtime.errors import UserError

CODE = small_run.code("uhman_jax.demo")
WAIT = 60_000  # milliseconds for an answer, on the busiest machine


def serve(trained, *arguments, **environment):
    command = [sys.executable, "-c", CODE, f"--run={trained / 'run'}", "--port=0", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    """A server with small limits, its `.address`, and the `.folder` of its temporary files."""
    pytest.importorskip("gradio", reason="the page needs gradio, which is not installed")
    folder = tmp_path_factory.mktemp("uploads")
    process = serve(trained, "--max_megabytes=0.2", "--max_seconds=20", TMPDIR=str(folder))
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"Open (\S+?)/? ", line):
            break
    else:
        pytest.fail("the server did not start: " + "".join(lines))
    reader = threading.Thread(target=process.stdout.read)  # its pipe must not fill up
    reader.start()
    process.address, process.folder = found[1], folder
    yield process
    process.terminate()
    assert process.wait(30) == 0
    reader.join()
    process.stdout.close()
    assert not list(folder.glob("**/*.mp4"))  # uploads are gone with the server


@pytest.fixture
def page(server, browser):
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(server.address)
    opened.wait_for_selector("#go", timeout=WAIT)
    yield opened
    opened.close()


def upload(page, path):
    page.locator("#clip input[type=file]").set_input_files(str(path))


def listed(page, number=0):
    """Hashtags of a list on the page."""
    return page.locator("#shown .list").nth(number).locator("bdi").all_inner_texts()


@pytest.mark.slow
def test_a_clip_a_profile_and_another_one(page, trained):
    upload(page, trained / "c00.mp4")
    page.wait_for_selector("#clip video", timeout=WAIT)
    page.locator("#go").click()
    page.wait_for_selector("#shown .list", timeout=WAIT)
    hashtags = listed(page)
    assert sorted(hashtags) == ["#bright", "#dark", "#w"]
    assert page.locator("#copy textarea").input_value() == " ".join(hashtags)
    assert page.locator("#shown .strip .frame").count() >= 2
    assert page.locator("#shown .carried article").count() == 3

    # The same clip for a man, compared with a woman: her #w comes first.
    page.get_by_label("Gender").first.click()
    page.get_by_role("option", name="male", exact=True).first.click()
    page.get_by_label("Compare with another profile").check()
    page.get_by_label("Gender").nth(1).click()
    page.get_by_role("option", name="female", exact=True).last.click()
    page.locator("#go").click()
    page.wait_for_selector("#shown .duo .card:nth-child(2) .list", timeout=WAIT)
    man, woman = listed(page, 0), listed(page, 1)
    assert woman.index("#w") == 0 and man.index("#w") == 2
    assert page.locator("#shown h3").first.inner_text() == "male"


def test_mistakes_have_messages_on_the_page(page, trained, tmp_path):
    page.locator("#go").click()
    page.wait_for_selector("#shown .trouble", timeout=WAIT)
    assert "a clip must be given first" in page.locator("#shown").inner_text()

    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    upload(page, bad)
    page.wait_for_timeout(500)
    page.get_by_label("Age").first.fill("many")
    page.locator("#go").click()
    page.get_by_text("age must be a number of years").wait_for(timeout=WAIT)
    page.get_by_label("Age").first.fill("")
    page.locator("#go").click()
    page.get_by_text("a clip must have a frame that can be read").wait_for(timeout=WAIT)
    shown = page.locator("#shown").inner_text()
    assert "got 'bad.mp4'" in shown and "Traceback" not in shown


def test_a_large_clip_is_refused_before_it_is_stored(page, server, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(b"\0" * 400_000)
    upload(page, large)
    refused = page.get_by_text(re.compile("too large|exceeds|maximum", re.IGNORECASE))
    refused.first.wait_for(timeout=WAIT)
    assert not list(server.folder.glob("**/large.mp4"))


def test_two_users_at_once_one_of_them_with_a_phone(page, server, trained):
    """A phone scrolls one way."""
    page.set_viewport_size({"width": 360, "height": 740})
    upload(page, trained / "c01.mp4")
    page.wait_for_selector("#clip video", timeout=WAIT)
    page.locator("#go").click()
    answers = [call(server, trained / name, "", "", "", "", 3) for name in ("c02.mp4", "c01.mp4")]
    page.wait_for_selector("#shown .list", timeout=WAIT)
    other, same = ([f"#{s['hashtag']}" for s in answer["suggestions"]] for answer in answers)
    assert listed(page) == same != other
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def call(server, clip, *values):
    """Sends the three requests of the API."""
    boundary = "x" * 20
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{clip.name}"\r\n'
        "Content-Type: video/mp4\r\n\r\n"
    ).encode() + clip.read_bytes()
    body += f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    (path,) = json.loads(fetch(f"{server.address}/gradio_api/upload", body, kind))
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = events(server, file, *values)
    assert "event: complete" in answer, answer  # before it, a slow answer has heartbeats
    return json.loads(answer.split("event: complete\ndata: ", 1)[1])[0]


def events(server, file, *values):
    """Returns the events that answer a question about a file."""
    question = json.dumps({"data": [file, *values]}).encode()
    asked = f"{server.address}/gradio_api/call/suggest"
    identity = json.loads(fetch(asked, question, {"Content-Type": "application/json"}))["event_id"]
    return fetch(f"{asked}/{identity}")


def fetch(address, data=None, headers=None):
    request = urllib.request.Request(address, data, headers or {})
    with urllib.request.urlopen(request, timeout=WAIT / 1000) as reply:
        return reply.read().decode()


def test_the_api_answers_as_documented(server, trained):
    answer = call(server, trained / "c03.mp4", "F", "30 years", "unknown", '["#Dark", "never"]', 2)
    assert [set(s) for s in answer["suggestions"]] == [{"hashtag", "score", "confidence"}] * 2
    assert answer["notes"] == ["not in the vocabulary, so not used: #never"]
    answer = call(server, trained / "c03.mp4", "other", 21, "US", "", 1)
    assert len(answer["suggestions"]) == 1 and any("'other'" in note for note in answer["notes"])


def test_no_other_file_of_the_machine_is_readable(server, trained):
    file = {"path": str(trained / "c00.mp4"), "meta": {"_type": "gradio.FileData"}}
    assert "event: error" in events(server, file, "", "", "", "", 3)


def test_an_address_that_cannot_be_used_is_named(server):
    port = int(server.address.rsplit(":", 1)[1])

    class Taken:  # as Gradio, which needs the port of 127.0.0.1 too
        def launch(self, **_):
            raise OSError("Cannot find empty port")

    with pytest.raises(UserError, match=f"--port must be free on 127.0.0.2, got {port}"):
        launch(Taken(), "127.0.0.2", port, "", 1.0)
    for host, message in (
        ("256.1.1.1", "--host must be an address of this machine, got '256.1.1.1'"),
        ("127.0.0.1", f"--port must be free on 127.0.0.1, got {port}"),
    ):
        with pytest.raises(UserError, match=message):
            launch(None, host, port, "", 1.0)


def test_a_mistake_at_the_command_line_is_one_sentence(trained):
    process = serve(trained, "surplus")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and output.count("\n") == 1
    assert output.startswith("error: settings are given as --flag=value, got 'surplus'")


def test_examples_of_any_name_have_an_address(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "page").mkdir()
    for name in (b"caf\xe9.mp4", b"two\nlines.mp4", "日本.mp4".encode()):
        clips.write_named(tmp_path / "clips", name, name)
    copies = examples_of(None, str(tmp_path / "page"), str(tmp_path / "clips"))
    names = {os.path.basename(copy) for copy in copies}
    assert names == {"caf_udce9.mp4", "two_nlines.mp4", "日本.mp4"}
    assert all(pathlib.Path(copy).read_bytes().endswith(b".mp4") for copy in copies)
    with pytest.raises(UserError, match="--examples must be a folder of clips, got 'absent'"):
        examples_of(None, str(tmp_path), "absent")

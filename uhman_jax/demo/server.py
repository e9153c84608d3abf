"""Builds and serves the page of one loaded run."""

import errno
import functools
import html
import os
import pathlib
import shutil
import socket
import threading
from collections.abc import Sequence
from typing import Any

from uhman_jax.dataset.attributes import UNKNOWN
from uhman_jax.dataset.raw import read_raw_dataset
from uhman_jax.dataset.view import TEST, View
from uhman_jax.prepare import dataset_root
from uhman_jax.preprocess.find_videos import files_below
from uhman_jax.recommend import page
from uhman_jax.recommend.explain import frames_of, side_of
from uhman_jax.recommend.occlusion import Explainer
from uhman_jax.recommend.profile import Profile
from uhman_jax.recommend.recommender import Recommender
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

TITLE = "Hashtags for a clip"
_NUM_EXAMPLES = 4
_CACHED = 8  # number of clips whose features are cached, for requests with other profiles
_KEEP = 600  # seconds until an upload is deleted
_EMPTY = "<p style='opacity:.65'>The suggestions and their explanation appear here.</p>"
_CSS = """
footer{display:none!important}
.gradio-container{max-width:1180px!important;width:100%!important;margin:0 auto!important}
.gradio-container .app,.gradio-container .wrap,.gradio-container .contain{width:100%}
#go{min-height:48px}
@media (max-width:640px){.gradio-container .app{padding:14px!important}}
"""


class Answers:
    """Answers the requests of the page and the API, one at a time."""

    def __init__(self, recommender: Recommender):
        self._recommender = recommender
        self._turn = threading.Lock()
        self._read = functools.lru_cache(_CACHED)(self._features_and_frames)
        try:
            self._explainer: Explainer | None = Explainer(recommender.model)
        except UserError:  # a baseline without attention
            self._explainer = None

    def suggest(
        self, clip: str | None, gender: str, age: Any, country: str, history: str, top_k: Any
    ) -> dict[str, Any]:
        """Returns the suggestions as JSON values, for the API; bad input raises gradio.Error."""
        try:
            if not clip or top_k is None:
                raise UserError("a clip and a number of suggestions must be given; see the README")
            profile = Profile.parse(gender, age, country, history)
            with self._turn:
                record, _ = self._read(clip)
                (found,) = self._recommender.suggest(record, [profile], int(top_k))
                notes = list(self._recommender.notes)
        except UserError as error:
            import gradio as gr

            raise gr.Error(_plain(error, clip), print_exception=False) from error
        return {"suggestions": [suggestion._asdict() for suggestion in found], "notes": notes}

    def show(self, clip: str | None, *values: Any) -> tuple[str, str]:
        """Returns the answer as HTML, and the hashtags of the first profile as text.

        For bad input the HTML is an error message.

        Args:
            clip: path of the clip; None if there is none yet.
            *values: gender, age, country and history; whether to compare; these four of the other
                profile; number of suggestions.
        """
        compare, top_k = values[4], int(values[9])
        try:
            if not clip:
                raise UserError("a clip must be given first; drop one, or pick one to try")
            profiles = [values[:4], values[5:9]] if compare else [values[:4]]
            users = [Profile.parse(*profile) for profile in profiles]
            with self._turn:
                record, images = self._read(clip)
                asked = self._recommender, self._explainer, record
                sides = [side_of(*asked, user, top_k=top_k) for user in users]
        except UserError as error:
            return f"<p class='trouble' role='alert'>{html.escape(_plain(error, clip))}</p>", ""
        shown = page.render(None, record.times_F, images, sides, self._recommender.metrics)
        return shown, " ".join(f"#{suggestion.hashtag}" for suggestion in sides[0].suggestions)

    def _features_and_frames(self, clip: str) -> tuple[Any, list[Any]]:
        record = self._recommender.features(clip)
        return record, frames_of(self._recommender, pathlib.Path(clip), record)


def _plain(error: UserError, clip: str | None) -> str:
    """Returns a message with the name of the clip instead of its path."""
    return str(error).replace(clip, os.path.basename(clip)) if clip else str(error)


def build(answers: Answers, view: View, examples: Sequence[str], simulated: bool) -> Any:
    """Returns the page, a gradio.Blocks.

    Args:
        answers: answers the requests.
        view: values of the attributes to choose from.
        examples: paths of example clips.
        simulated: whether the run was trained on simulated data.
    """
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, _KEEP)) as blocks:
        warning = " **Trained on simulated clips.**" if simulated else ""
        gr.Markdown(f"# {TITLE}\nDrop a short video and describe the user who posts it.{warning}")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                clip = gr.Video(sources=["upload"], label="Clip", height=330, elem_id="clip")
                first = _profile_inputs(view)
                compare = gr.Checkbox(label="Compare with another profile", value=False)
                with gr.Column(visible=False) as other:
                    gr.Markdown("**The other profile**")
                    second = _profile_inputs(view)
                top_k = gr.Slider(1, 30, value=10, step=1, label="Suggestions")
                go = gr.Button("Suggest hashtags", variant="primary", elem_id="go")
                if examples:
                    gr.Examples([[name] for name in examples], [clip], label="Clips to try")
            with gr.Column(scale=3, min_width=280):
                copy = gr.Textbox(
                    label="To copy", buttons=["copy"], interactive=False, lines=2, elem_id="copy"
                )
                shown = gr.HTML(_EMPTY, elem_id="shown")
        private: dict[str, Any] = {"api_visibility": "private"}
        compare.change(lambda on: gr.Column(visible=on), compare, other, queue=False, **private)
        one_at_a_time: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        inputs = [clip, *first, compare, *second, top_k]
        go.click(answers.show, inputs, [shown, copy], **private, **one_at_a_time)
        hidden, asked = gr.JSON(visible=False), [clip, *first, top_k]
        button = gr.Button(visible=False)
        button.click(answers.suggest, asked, hidden, api_name="suggest", **one_at_a_time)
    return blocks


def _profile_inputs(view: View) -> list[Any]:
    """Adds the inputs of a profile to the page; other values than the listed count as unknown."""
    import gradio as gr

    def choice(label: str, names: Sequence[str]) -> Any:
        choices = [("–", UNKNOWN), *((name, name) for name in names[1:])]
        how = {"value": UNKNOWN, "label": label, "min_width": 80, "allow_custom_value": True}
        return gr.Dropdown(choices, **how)

    with gr.Row():
        gender = choice("Gender", view.genders)
        age = gr.Textbox(label="Age", placeholder="years", min_width=60)
        country = choice("Country", view.countries)
    history = gr.Textbox(label="Hashtags used before", placeholder="#dance #ootd")
    return [gender, age, country, history]


_BUSY = "--port must be free on {host}, got {port}; use another"


def launch(blocks: Any, host: str, port: int, folder: str, max_megabytes: float) -> str:
    """Starts the server in threads and returns its address.

    Args:
        blocks: the page.
        host: address to listen on.
        port: port to listen on; 0: any free port.
        folder: only files of this folder may be served.
        max_megabytes: larger uploads are refused.

    Raises:
        UserError: the port is in use, or the address does not belong to this machine.
    """
    import gradio as gr

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    options = {"theme": gr.themes.Base(primary_hue="indigo", **fonts), "css": _CSS}
    options |= {"quiet": True, "share": False, "ssr_mode": False, "prevent_thread_lock": True}
    options |= {"max_file_size": int(max_megabytes * 2**20), "allowed_paths": [folder]}
    try:
        with socket.create_server((host, port)) as free:
            port = free.getsockname()[1]  # Gradio does not accept port 0
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(
                f"--host must be an address of this machine, got {host!r}; use 127.0.0.1 or 0.0.0.0"
            ) from error
        raise UserError(_BUSY.format(host=host, port=port)) from error
    try:
        _, address, _ = blocks.launch(server_name=host, server_port=port, **options)
    except OSError as error:  # Gradio needs the port of 127.0.0.1 too
        raise UserError(_BUSY.format(host=host, port=port)) from error
    return address


def examples_of(recommender: Any, folder: str, given: str) -> list[str]:
    """Copies clips of the folder `given`, or else test clips, to `folder`; returns their paths."""
    if given:
        root = pathlib.Path(given)
        if not root.is_dir():
            raise UserError(
                f"--examples must be a folder of clips, got {given!r}; correct the path"
            )
        paths = [root / name for name in files_below(root)]
    else:
        try:
            root = dataset_root(recommender.trained.located)
            raw = read_raw_dataset(root, strict=False, check_files=False)
        except UserError:
            return []
        known = {video.video_id: root / video.path for video in raw.videos}
        view = recommender.view
        names = [view.video_ids[row] for row in view.rows(TEST)[:_NUM_EXAMPLES]]
        paths = [known[name] for name in names if name in known]
    copies = []
    for index, path in enumerate(paths[:_NUM_EXAMPLES]):
        if path.is_file():
            subfolder = os.path.join(folder, str(index))  # clips may have equal names
            os.mkdir(subfolder)
            with storage.temporary_copy(path) as local:
                name = storage.escape_name(path.name).replace("\\", "_")  # for its URL
                copies.append(shutil.copy(local, os.path.join(subfolder, name)))
    return copies

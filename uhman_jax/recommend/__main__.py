r"""Suggests hashtags for clips.

    python -m uhman_jax.recommend --run=runs/natural --video=clip.mp4 \
        --gender=female --age=21 --country=US --history="#dance #ootd"

Every attribute is optional. With --user=ID, values that are not given are those of a user of the
run. --video may be a folder and may be repeated, and further clips may follow the flags.
--explain=why.html (or .png) explains the suggestions; with --versus="gender=male, age=40,
history=#football" it compares two profiles. Exit status: 0 success; 2 bad input, or no readable
clip; 75 stopped by a signal; 141 output pipe closed.
"""

import csv
import dataclasses
import json
import sys
from typing import Any

from absl import flags, logging

from uhman_jax.dataset.view import View
from uhman_jax.preprocess.find_videos import clips_of
from uhman_jax.recommend.profile import Profile, profile_of
from uhman_jax.recommend.start import check_choice, check_output, start_extractor
from uhman_jax.run_directory import VIEW, require
from uhman_jax.runtime import signals, storage
from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.storage import escape_name
from uhman_jax.runtime.streams import is_utf8, run_app

_RUN = flags.DEFINE_string("run", None, "Directory of a trained run.", required=True)
_VIDEO = flags.DEFINE_multi_string("video", [], "A clip, or a folder of clips.")
_FEATURES = flags.DEFINE_string(
    "features",
    "",
    "Features folder of the run, which has the extractor; default: as in the run's config.",
)
_SEED = flags.DEFINE_integer("seed", None, "Seed of the model; default: the first.")
_USER = flags.DEFINE_string("user", "", "Id of a user of the run, for the values not given here.")
_PROFILE = {
    "gender": flags.DEFINE_string("gender", "", "Gender, e.g. female or F."),
    "age": flags.DEFINE_string("age", "", "Age in years."),
    "country": flags.DEFINE_string("country", "", "Name or ISO code of the country, e.g. US."),
    "history": flags.DEFINE_string("history", "", 'Hashtags used before, e.g. "#dance #ootd".'),
}
_TOP_K = flags.DEFINE_integer("top_k", 10, "Maximum number of suggestions per clip.")
_EXCLUDE = flags.DEFINE_multi_string("exclude", [], 'Hashtags not to suggest, e.g. "#fyp #viral".')
_MIN_CONFIDENCE = flags.DEFINE_float(
    "min_confidence", 0.0, "Minimum confidence of a suggestion, 0 to 1."
)
_JSON = flags.DEFINE_bool("json", False, "Prints one line per clip, a JSON object.")
_CSV = flags.DEFINE_bool("csv", False, "Prints CSV: video,rank,hashtag,score,confidence.")
_EXPLAIN = flags.DEFINE_string(
    "explain", "", "Explanation to write: a page (.html) or a picture (.png)."
)
_VERSUS = flags.DEFINE_string(
    "versus", "", 'Profile to compare in --explain, e.g. "gender=male, age=40, history=#a #b".'
)


def run(rest: list[str]) -> bool:
    """Prints the suggestions and returns whether a clip could be read.

    Raises:
        UserError: a flag or a file is wrong.
    """
    if _JSON.value + _CSV.value + bool(_EXPLAIN.value) > 1:
        raise UserError("output must be one of --json, --csv and --explain, got several; use one")
    profile = _profile()
    check_choice(_TOP_K.value, _MIN_CONFIDENCE.value)
    clips = clips_of([*_VIDEO.value, *rest])
    if _VERSUS.value and not _EXPLAIN.value:
        raise UserError("--versus needs --explain, got none; add e.g. --explain=why.html")
    choice = {"exclude": _EXCLUDE.value, "min_confidence": _MIN_CONFIDENCE.value}
    if _EXPLAIN.value:
        return _run_explain(clips, profile, choice)
    from uhman_jax.runtime.progress import progress_bar

    answered = 0
    with _load(clips) as recommender:
        recommender.compile(profile, _TOP_K.value, _EXCLUDE.value)
        for note in recommender.notes:
            print(f"note: {note}", file=sys.stderr)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if _CSV.value:
            writer.writerow(("video", "rank", "hashtag", "score", "confidence"))
        answers = recommender.recommend_many(clips, profile, _TOP_K.value, **choice)
        bar = progress_bar(answers, total=len(clips), unit="clip", disable=len(clips) < 2)
        for answer in bar:
            clip = clips[answer.index]
            answered += answer.readable
            if answer.problem:
                bar.write(escape_name(f"{clip}: {answer.problem}"), file=sys.stderr)
            if _JSON.value:
                suggestions = [suggestion._asdict() for suggestion in answer.suggestions]
                values = {"video": clip, "suggestions": suggestions, "problem": answer.problem}
                print(json.dumps(values, ensure_ascii=not is_utf8()))
            elif _CSV.value:
                for rank, suggestion in enumerate(answer.suggestions, start=1):
                    writer.writerow((clip, rank, *suggestion))
            elif answer.readable:
                print(_as_table(clip, profile, answer.suggestions), flush=True)
    return answered > 0


def _profile() -> Profile:
    """Returns the profile that the flags give; with --user, the other values are of this user."""
    texts = {name: flag.value for name, flag in _PROFILE.items()}
    profile = Profile.parse(**texts)
    if not _USER.value:
        return profile
    known = profile_of(View.load(require(storage.path(_RUN.value) / VIEW)), _USER.value)
    return dataclasses.replace(
        known, **{name: getattr(profile, name) for name in texts if texts[name]}
    )


def _load(videos: list[str]) -> Any:
    """Returns the Recommender; its extractor starts before JAX is imported."""
    clips = start_extractor(_RUN.value, _FEATURES.value, first=videos, seed=_SEED.value)
    from uhman_jax.recommend.recommender import Recommender

    return Recommender.load(_RUN.value, seed=_SEED.value, clips=clips)


def _run_explain(clips: list[str], profile: Profile, choice: dict[str, Any]) -> bool:
    """Writes the explanation of one clip, and prints its suggestions."""
    if len(clips) != 1:
        raise UserError(f"--explain takes one clip, got {len(clips)}; name one with --video")
    profiles = [profile, Profile.parse_line(_VERSUS.value)] if _VERSUS.value else [profile]
    output = check_output(_EXPLAIN.value)
    with _load(clips) as recommender:
        from uhman_jax.recommend.explain import explain

        sides = explain(recommender, clips[0], profiles, output, top_k=_TOP_K.value, **choice)
    for side in sides:
        for note in side.notes:
            print(f"note: {note}", file=sys.stderr)
        print(_as_table(clips[0], side.profile, side.suggestions))
    print(f"\nExplanation: {escape_name(str(output))}")
    return True


def _as_table(clip: str, profile: Profile, suggestions: list[Any]) -> str:
    """Formats rank, hashtag, confidence and score of the suggestions."""
    lines = [escape_name(f"{clip} ({profile.describe()})")]
    width = max((len(suggestion.hashtag) for suggestion in suggestions), default=0) + 1
    for rank, (hashtag, score, confidence) in enumerate(suggestions, start=1):
        percent = "     -" if confidence is None else f"{100 * confidence:4.0f} %"
        lines.append(f"{rank:4d}  {'#' + hashtag:{width}s}  {percent}  {score:8.3f}")
    if not suggestions:
        lines.append("      no suggestions")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Runs the command line; a user error prints one sentence and gives exit status 2."""
    logging.set_verbosity(logging.ERROR)
    only_prints = not _EXPLAIN.value
    with exit_on_user_error("error: "), signals.exit_on_signal(for_reader=only_prints):
        if not run(argv[1:]):
            sys.exit(2)


if __name__ == "__main__":
    run_app(main, positional=True)

"""Describes a user by a profile, and encodes profiles as the input of a model."""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from uhman_jax.dataset.attributes import (
    AGE_BUCKETS,
    UNKNOWN,
    age_bucket,
    fold_country,
    fold_gender,
    is_unknown,
)
from uhman_jax.dataset.field_checks import MAX_AGE, parse_age
from uhman_jax.dataset.hashtags import Hashtags, read_hashtags, split_hashtags
from uhman_jax.dataset.view import Ragged, View
from uhman_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from uhman_jax.models.layers import UserInput


@dataclasses.dataclass(frozen=True)
class Profile:
    """A user, as entered; every field is optional.

    Gender and country may have any spelling that `dataset.attributes` accepts: `ProfileEncoder`
    normalises them as in the training data.
    """

    gender: str = ""
    age: int | str | None = None  # in years, or one of `AGE_BUCKETS`
    country: str = ""
    history: tuple[str, ...] = ()  # hashtags used before; one text may list several

    @classmethod
    def parse(
        cls,
        gender: str | None = "",
        age: str | float | None = "",
        country: str | None = "",
        history: str | Sequence[str] | None = "",
    ) -> "Profile":
        """Parses a profile from typed values.

        >>> Profile.parse(age="21", history="#Dance #ootd")
        Profile(gender='', age=21, country='', history=('#Dance #ootd',))

        Raises:
            UserError: the age is not a number of years.
        """
        text = str("" if age is None else age)
        try:
            years = parse_age(text)
        except ValueError:
            raise UserError(
                f"age must be a number of years from 1 to {MAX_AGE}, got {text.strip()!r}; "
                "leave it empty if it is not known"
            ) from None
        texts = history if isinstance(history, (list, tuple)) else [history]
        used = tuple(str(text).strip() for text in texts if text and str(text).strip())
        return cls(str(gender or "").strip(), years, str(country or "").strip(), used)

    @classmethod
    def parse_line(cls, text: str) -> "Profile":
        """Parses a profile from one line.

        >>> Profile.parse_line("gender=male, history=#ball, #goal")
        Profile(gender='male', age=None, country='', history=('#ball, #goal',))

        Raises:
            UserError: a part is not of the form attribute=value, or the age is wrong.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        values: dict[str, str] = {}
        name = ""
        for part in filter(None, (part.strip() for part in text.split(","))):
            if "=" not in part and name == "history":
                values[name] += f", {part}"
                continue
            name, equals, value = part.partition("=")
            name = name.strip()
            if not equals or name not in names:
                raise UserError(
                    f"a profile must be written as {', '.join(f'{n}=...' for n in names)}, "
                    f"got {part!r}; leave out unknown parts"
                )
            values[name] = value
        return cls.parse(**values)

    def describe(self) -> str:
        """Returns the profile as a phrase.

        >>> Profile(age=21, history=("dance",)).describe()
        'age 21, used #dance before'
        """
        gender, country = ("" if is_unknown(text) else text for text in (self.gender, self.country))
        parts = [gender, "" if self.age is None else f"age {self.age}", country]
        if used := read_hashtags(*self.history).spellings:
            parts.append(f"used {' '.join(f'#{name}' for name in used)} before")
        return ", ".join(filter(None, parts)) or "nothing known"


def profile_of(view: View, user_id: str) -> Profile:
    """Returns the profile of a user of a run, as a further clip of this user would have it.

    The attributes are those of the training data, so the age is a bucket of years. The history has
    the hashtags of the user's training clips and of their list in users.csv, most used first.

    Raises:
        UserError: no clip of the view is by this user.
    """
    try:
        row = view.user_ids.index(user_id)
    except ValueError:
        ids = {name.casefold(): name for name in sorted(view.user_ids)}
        near = difflib.get_close_matches(user_id.casefold(), ids, n=3)
        names = ", ".join(repr(ids[name]) for name in near or list(ids)[:5])
        raise UserError(
            f"a known user must have a clip in the run, got {user_id!r}, and "
            f"{'similar' if near else 'some of its'} ids are {names}; use an id of the run, or "
            "describe the user by gender, age, country and history"
        ) from None

    def value(names: Sequence[str], ids_V: np.ndarray) -> str:
        return names[ids_V[row]] if ids_V[row] else ""  # 0: unknown

    return Profile(
        value(view.genders, view.gender_V),
        value(view.ages, view.age_V) or None,
        value(view.countries, view.country_V),
        tuple(view.spellings[t] for t in view.next_history(user_id)),
    )


def read_list(texts: str | Iterable[str], rules: int) -> Hashtags:
    """Parses the hashtags of one text or several.

    Args:
        texts: lists of hashtags in any notation.
        rules: version of the run's rules for reading hashtags, see `dataset.rules`.
    """
    texts = [texts] if isinstance(texts, str) else texts
    if rules > 1:
        return read_hashtags(*texts)
    keys = split_hashtags(" ".join(texts), rules)
    return Hashtags(keys, keys, ())


def _bucket(age: int | str | None) -> str:
    return age if age in AGE_BUCKETS else age_bucket(age)  # type: ignore[bad-argument-type]


class ProfileEncoder:
    """Turns profiles into the input of a run's model.

    Attributes:
        notes: one sentence for each value in the last call of `encode` that the model cannot use.
    """

    def __init__(self, view: View):
        self.notes: list[str] = []
        self._view = view
        self._hashtags = {name: t for t, name in enumerate(view.hashtags)}

    def encode(self, profiles: Sequence[Profile]) -> "UserInput":
        """Returns one row per profile.

        A value that is not in the training data counts as unknown, as in training and evaluation.
        A history is cut to its first `max_history` hashtags of the vocabulary.
        """
        from uhman_jax.input_pipeline import pad  # imports JAX, which parsing does not need
        from uhman_jax.models.layers import UserInput

        self.notes = []
        view = self._view
        histories = [self._history(profile.history) for profile in profiles]
        offsets = np.cumsum([0, *map(len, histories)])
        ragged = Ragged(np.array(sum(histories, []), np.int32), offsets)

        def ids(kind, values, names):
            return np.array([self._id(kind, value, names) for value in values], np.int32)

        return UserInput(
            ids("gender", [profile.gender for profile in profiles], view.genders),
            ids("age", [_bucket(profile.age) for profile in profiles], view.ages),
            ids("country", [profile.country for profile in profiles], view.countries),
            *pad(ragged, np.arange(len(profiles)), view.max_history),
        )

    def _history(self, history: str | Sequence[str]) -> list[int]:
        """Returns the ids of the hashtags that the model can use."""
        used, most = read_list(history, self._view.rules), self._view.max_history
        ids = [self._hashtags[name] for name in used.keys if name in self._hashtags]
        pairs = zip(used.keys, used.spellings, strict=True)
        missing = [f"#{spelling}" for name, spelling in pairs if name not in self._hashtags]
        rejected = [repr(text) for text in used.rejected]
        for reason, texts in (("not in the vocabulary", missing), ("not a hashtag", rejected)):
            if texts:
                more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
                self.notes.append(f"{reason}, so not used: {' '.join(texts[:5])}{more}")
        if len(ids) > most:
            self.notes.append(f"only the first {most} hashtags of the history are used")
        return ids[:most]

    def _id(self, kind: str, value: str, names: Sequence[str]) -> int:
        """Returns the index of a value, in any spelling, among `names`; 0 if it is not there."""
        if value in names:
            return names.index(value)
        folds = {"gender": fold_gender, "country": fold_country} if self._view.rules > 1 else {}
        fold = folds.get(kind, str.casefold)
        folded = fold(value)
        if folded in ("", UNKNOWN):
            return 0
        index = next((i for i, name in enumerate(names) if i and fold(name) == folded), 0)
        if not index:
            known = ", ".join(names[1:6]) + (", ..." if len(names) > 6 else "") or "none"
            self.notes.append(
                f"{kind} {value!r} is not in the training data ({known}) and counts as unknown"
            )
        return index

"""Who posts: what a person says of themselves, and the numbers that a model takes."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uhman_jax.dataset.attributes import UNKNOWN, age_bucket
from uhman_jax.dataset.checks import MAX_AGE
from uhman_jax.dataset.hashtags import read_hashtags
from uhman_jax.dataset.view import View
from uhman_jax.errors import UserError

if TYPE_CHECKING:
    from uhman_jax.layers import UserInput


@dataclasses.dataclass(frozen=True)
class Profile:
    """A user as the model knows users; every field may be left out.

    Attributes:
        gender: as written in the training data.
        age: years.
        country: as written in the training data.
        history: hashtags used before, in any spelling.
    """

    gender: str = ""
    age: int | None = None
    country: str = ""
    history: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls, gender: str = "", age: str | float | None = "", country: str = "", history: str = ""
    ) -> "Profile":
        """A profile from what a person types.

        >>> Profile.parse(age="21", history="#Dance #ootd")
        Profile(gender='', age=21, country='', history=('Dance', 'ootd'))

        Raises:
            UserError: the age is no number of years.
        """
        text = str("" if age is None else age).strip()
        try:
            years = int(float(text)) if text else None
            if years is not None and not 0 <= years <= MAX_AGE:
                raise ValueError
        except (ValueError, OverflowError):
            raise UserError(
                f"age must be a number of years from 0 to {MAX_AGE}, got {text!r}; "
                "leave it empty if it is not known"
            ) from None
        return cls(gender.strip(), years, country.strip(), typed_hashtags(history))

    @classmethod
    def parse_line(cls, text: str) -> "Profile":
        """A profile in one field.

        >>> Profile.parse_line("gender=male, history=#ball #goal")
        Profile(gender='male', age=None, country='', history=('ball', 'goal'))

        Raises:
            UserError: something else than the four attributes.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        values: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = part.partition("=")
            if not equals or name.strip() not in names:
                raise UserError(
                    f"a profile must be written as {', '.join(f'{n}=...' for n in names)}, "
                    f"got {part!r}; leave out what is not known"
                )
            values[name.strip()] = value
        return cls.parse(**values)

    def describe(self) -> str:
        """In a line, for people.

        >>> Profile(age=21, history=("dance",)).describe()
        'age 21, used #dance before'
        """
        parts = [part for part in (self.gender, self.country) if part]
        if self.age is not None:
            parts.insert(1 if self.gender else 0, f"age {self.age}")
        if self.history:
            parts.append(f"used {' '.join(f'#{name}' for name in self.history)} before")
        return ", ".join(parts) or "nothing known"


def typed_hashtags(text: str) -> tuple[str, ...]:
    """The hashtags that a person typed, as they wrote them; `View.find` matches them.

    What cannot be a hashtag is kept, at the end, so that a note can name it.

    >>> typed_hashtags("#LoveIsland, C++, #Straße #strasse")
    ('LoveIsland', 'Straße', 'C++')
    """
    found = read_hashtags(text)
    return found.spellings + found.rejected


class ProfileEncoder:
    """Turns profiles into the input of a run's model.

    Attributes:
        notes: after each call of `encode`: what the model can't use and why, a sentence each.
    """

    def __init__(self, view: View):
        """Takes over a view's attribute values and hashtags."""
        self.notes: list[str] = []
        self._genders, self._ages, self._countries = view.genders, view.ages, view.countries
        self._width = view.max_history
        self._find = view.find

    def encode(self, profiles: Sequence[Profile]) -> "UserInput":
        """One row per profile.

        A value that the training data lack counts as unknown, as in training and evaluation; of a
        history only the hashtags of the vocabulary are used, the first `max_history` of them.
        """
        from uhman_jax.layers import UserInput  # JAX: not for those who only parse a profile

        self.notes = []
        history_BR = np.zeros((len(profiles), self._width), np.int32)
        mask_BR = np.zeros(history_BR.shape, bool)
        for b, profile in enumerate(profiles):
            found = {name: self._find(name) for name in profile.history}
            if missing := [name for name in profile.history if found[name] is None]:
                listed = " ".join(f"#{name}" for name in missing[:5])
                more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                self.notes.append(f"not in the vocabulary, so not used: {listed}{more}")
            known = list(dict.fromkeys(t for t in found.values() if t is not None))
            if len(known) > self._width:
                self.notes.append(f"of the history the first {self._width} hashtags are used")
            ids = known[: self._width]
            history_BR[b, : len(ids)] = ids
            mask_BR[b, : len(ids)] = True

        def numbers(kind, values, names):
            return np.array([self._number(kind, value, names) for value in values], np.int32)

        return UserInput(
            numbers("gender", [profile.gender for profile in profiles], self._genders),
            numbers("age", [age_bucket(profile.age) for profile in profiles], self._ages),
            numbers("country", [profile.country for profile in profiles], self._countries),
            history_BR,
            mask_BR,
        )

    def _number(self, kind: str, value: str, names: Sequence[str]) -> int:
        """Place of a value among those of the training data, in any case; 0 where it is not."""
        wanted = value.casefold()
        if wanted in ("", UNKNOWN):
            return 0
        exact = names.index(value) if value in names else 0
        place = exact or next((i for i, name in enumerate(names) if name.casefold() == wanted), 0)
        if not place:
            known = ", ".join(names[1:6]) + (", ..." if len(names) > 6 else "") or "none"
            self.notes.append(f"{kind} {value!r} is not in the training data ({known}): unknown")
        return place

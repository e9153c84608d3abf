"""Which posters of a folder are the same person: one person is one user."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from uhman_jax.dataset.raw import User


class Poster(NamedTuple):
    """The ids of the person who posted a clip; "" is unknown.

    Attributes:
        site: as yt-dlp names it.
        channel: `channel_id`, which does not change.
        uploader: `uploader_id`, on some sites a handle that its user can change.
        handle: `uploader`, a handle or a name that others may have too.
    """

    site: str
    channel: str
    uploader: str
    handle: str


def users_of(posters: Sequence[Poster]) -> list[str]:
    """Returns one user id for each clip, such that one person is one user.

    The id is `channel_id`, else `uploader_id`, else the handle. A clip without `channel_id` belongs
    to the user of the same site who has its other ids on another clip, unless several users have
    them. Handles differ neither by case nor by '@'.

    >>> users_of([Poster("", "UC1", "@ana", "Ana"), Poster("", "", "Ana", ""),
    ...           Poster("", "", "", "jo"), Poster("", "", "", "@Jo")])
    ['UC1', 'UC1', 'jo', 'jo']
    """
    users = [poster.channel for poster in posters]
    ids: dict[tuple[str, str], dict[str, None]] = {}  # users by site and channel or uploader
    names: dict[tuple[str, str], dict[str, None]] = {}  # users by site and handle

    def claim(index: int) -> None:
        site, channel, uploader, handle = posters[index]
        for owners, name in ((ids, channel), (ids, uploader), (names, handle)):
            if name:
                owners.setdefault((site, folded(name)), {})[users[index]] = None

    for index, user in enumerate(users):
        if user:
            claim(index)
    without = [index for index, user in enumerate(users) if not user]
    for with_uploader in (True, False):
        # Clips of one pass do not see the claims of each other.
        first: dict[tuple[str, str], str] = {}
        resolved = []
        for index in without:
            site, _, uploader, handle = posters[index]
            if bool(uploader) != with_uploader:
                continue
            key = (site, folded(uploader or handle))
            owners = ids.get(key, {}) if with_uploader else ids.get(key, {}) | names.get(key, {})
            own = first.setdefault(key, uploader or handle)
            users[index] = next(iter(owners)) if len(owners) == 1 else own
            resolved.append(index)
        for index in resolved:
            claim(index)
    return users


def folded(name: str) -> str:
    """Returns an id for comparisons: handles differ neither by case nor by '@'."""
    return name.removeprefix("@").casefold()


def attributes_of(
    posters: Sequence[Poster], users: Sequence[str], table: Mapping[str, User]
) -> dict[str, User]:
    """Returns the row of a table of users for each user that has one, under any of their ids.

    An id of several users is ignored. Of several rows the first with attributes counts, in the
    order channel, uploader, handle.

    Args:
        posters: of each clip.
        users: ids from `users_of`, of each clip.
        table: rows by id, which may be one of an earlier import.
    """
    ids: dict[str, dict[str, None]] = {user: {user: None} for user in users}
    for field in ("channel", "uploader"):
        for poster, user in zip(posters, users, strict=True):
            ids[user][getattr(poster, field)] = None
    handles: dict[str, dict[str, None]] = {user: {} for user in users}
    for poster, user in zip(posters, users, strict=True):
        handles[user][poster.handle] = None
    of_ids = _counts(ids.values())
    of_any = _counts(ids[user] | handles[user] for user in ids)
    by_fold: dict[str, list[User]] = collections.defaultdict(list)
    for row in table.values():
        by_fold[folded(row.user_id)].append(row)
    found = {}
    for user in ids:
        rows = [table[user]] if user in table else []
        for names, counts in ((ids[user], of_ids), (handles[user], of_any)):
            for name in names:
                same = by_fold.get(folded(name), [])
                if name and counts[folded(name)] == 1:
                    rows += [row for row in same if row.user_id == name or len(same) == 1]
        if rows:
            found[user] = next(filter(has_attributes, rows), rows[0])
    return found


def _counts(names: Iterable[Iterable[str]]) -> collections.Counter[str]:
    """Returns the number of users with each name."""
    return collections.Counter(name for own in names for name in set(map(folded, own)))


def has_attributes(user: User) -> bool:
    """Returns whether anything is known of a user."""
    return user != User(user.user_id)

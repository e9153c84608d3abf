"""Resolves the posters of clips to users: one person is one user."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from uhman_jax.dataset.raw import User


class Poster(NamedTuple):
    """The ids of the person who posted a clip; "" is unknown."""

    site: str  # as yt-dlp names it
    channel: str  # `channel_id`, which does not change
    uploader: str  # `uploader_id`, on some sites a handle that its user can change
    handle: str  # `uploader`, a handle or a name that several people may have


def users_of(posters: Sequence[Poster]) -> list[str]:
    """Returns a user id for each clip, such that one person is one user.

    The id is `channel_id`, else `uploader_id`, else the handle. A clip without `channel_id` belongs
    to the user of the same site who has its other ids on another clip, unless several users have
    them. Case and a leading '@' of a handle are ignored.

    >>> users_of([Poster("", "UC1", "@ana", "Ana"), Poster("", "", "Ana", ""),
    ...           Poster("", "", "", "jo"), Poster("", "", "", "@Jo")])
    ['UC1', 'UC1', 'jo', 'jo']
    """
    users = [poster.channel for poster in posters]
    ids: dict[tuple[str, str], set[str]] = collections.defaultdict(set)  # by site and first ids
    names: dict[tuple[str, str], set[str]] = collections.defaultdict(set)  # by site and handle

    def claim(indices: Iterable[int]) -> None:
        for index in indices:
            site, channel, uploader, handle = posters[index]
            for owners, name in ((ids, channel), (ids, uploader), (names, handle)):
                if name:
                    owners[site, folded(name)].add(users[index])

    without = [index for index, user in enumerate(users) if not user]
    claim(index for index, user in enumerate(users) if user)
    for with_uploader in (True, False):
        chosen = [i for i in without if bool(posters[i].uploader) == with_uploader]
        first: dict[tuple[str, str], str] = {}
        for index in chosen:
            site, _, uploader, handle = posters[index]
            key = (site, folded(uploader or handle))
            owners = ids[key] if with_uploader else ids[key] | names[key]
            own = first.setdefault(key, uploader or handle)
            users[index] = next(iter(owners)) if len(owners) == 1 else own
        claim(chosen)  # after the pass, so that the order of its clips does not matter
    return users


def folded(name: str) -> str:
    """Returns an id for comparisons, without case and leading '@'."""
    return name.removeprefix("@").casefold()


def attributes_of(
    posters: Sequence[Poster], users: Sequence[str], table: Mapping[str, User]
) -> dict[str, User]:
    """Returns the row of a table of users for each user that has one, under any of their ids.

    An id that several users share is ignored. Of several rows, the first with attributes is taken,
    in the order channel, uploader, handle.

    Args:
        posters: poster of each clip.
        users: id of each clip's user, from `users_of`.
        table: rows by id, for example of an earlier import.
    """
    pairs = list(zip(posters, users, strict=True))
    ids: dict[str, dict[str, None]] = {user: {user: None} for user in users}  # ordered sets
    handles: dict[str, dict[str, None]] = {user: {} for user in users}
    for names, field in ((ids, "channel"), (ids, "uploader"), (handles, "handle")):
        for poster, user in pairs:
            names[user][getattr(poster, field)] = None
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
    """Returns whether an attribute or the history of a user is known."""
    return user != User(user.user_id)

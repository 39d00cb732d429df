"""Folds and held-out parts in which no group is ever torn apart.

A text that a model was trained on must not come back in validation, nor may the
same audio file under the name of another listening test. So a group is a set of
clips connected by a shared key (their sentence, say) or a shared path.
"""

import random
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from voxpanel.errors import ConfigError, DataError
from voxpanel.records import Clip

GROUPINGS = ("sentence", "system", "path", "test")


def group_keys(clips: Sequence[Clip], by: str) -> list[str]:
    """Name each clip's group.

    Clips that share the key or the audio file are in one group, and so are clips
    connected through others. A clip without the key is grouped by its file alone.

    Args:
        clips: N clips.
        by: one of `GROUPINGS`.

    Returns:
        N names: the key (or the path) of the group's first clip.

    Raises:
        ConfigError: `by` is none of these.
    """
    if by not in GROUPINGS:
        raise ConfigError(f"cannot group clips by {by!r}; use {', '.join(GROUPINGS)}")
    keys = [None if (key := getattr(clip, by)) is None else str(key) for clip in clips]
    paths = [str(clip.path) for clip in clips]
    first = connect(keys, paths)
    return [keys[i] or paths[i] for i in first]


def connect(keys: Sequence[str | None], paths: Sequence[str]) -> list[int]:
    """Return for each item the first item that it is connected with.

    >>> connect(["a", "b", None, "b", None], ["1", "1", "2", "3", "4"])
    [0, 0, 2, 0, 4]
    """
    parents = list(range(len(paths)))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    seen: dict[tuple[str, str], int] = {}
    for item, (key, path) in enumerate(zip(keys, paths, strict=True)):
        links = [("path", path)] if key is None else [("path", path), ("key", key)]
        for link in links:
            one, other = root(seen.setdefault(link, item)), root(item)
            parents[max(one, other)] = min(one, other)  # the first item stays the root
    return [root(item) for item in range(len(paths))]


def folds(groups: Sequence[str | None], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Deal groups out to folds of about equal size.

    The largest group goes first, each to the fold that is smallest so far; equally
    large groups come in an order drawn by the seed.

    Args:
        groups: N names; None is a group of its own.
        n_folds: at least 2.
        seed: of the order of equally large groups.

    Returns:
        N fold numbers, from 0; no fold is empty.

    Raises:
        ConfigError: fewer than two folds, or fewer groups than folds.
    """
    members = members_by_group(groups)
    if n_folds < 2:
        raise ConfigError(f"n_folds is {n_folds}; there have to be at least 2")
    if n_folds > len(members):
        raise ConfigError(
            f"{n_folds} folds need as many groups, and these {len(groups)} items form "
            f"{len(members)}; ask for fewer folds or group by something finer"
        )
    random.Random(seed).shuffle(members)
    members.sort(key=len, reverse=True)  # stable: ties keep the shuffled order
    sizes = [0] * n_folds
    numbers = np.empty(len(groups), dtype=np.int64)
    for items in members:
        smallest = sizes.index(min(sizes))
        numbers[items] = smallest
        sizes[smallest] += len(items)
    return numbers


def hold_out(groups: Sequence[str | None], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose groups that make up about a fraction of the items.

    Groups come in an order drawn by the seed, and one is taken if that brings the
    share nearer to the fraction. At least one group is taken and one is left.

    Args:
        groups: N names; None is a group of its own.
        fraction: between 0 and 1, both excluded.
        seed: of the order.

    Returns:
        N booleans, true where held out.

    Raises:
        ConfigError: the fraction is out of range, or there are fewer than two groups.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction}; it has to lie between 0 and 1")
    members = members_by_group(groups)
    if len(members) < 2:
        raise ConfigError(f"{len(groups)} items form {len(members)} group; holding out needs 2")
    random.Random(seed).shuffle(members)
    wanted = fraction * len(groups)
    taken: list[list[int]] = []
    n_held = 0
    for items in members:
        nearer = abs(n_held + len(items) - wanted) < abs(n_held - wanted)
        if nearer and len(taken) + 1 < len(members):
            taken.append(items)
            n_held += len(items)
    held = np.zeros(len(groups), dtype=np.bool_)
    for items in taken or [min(members, key=len)]:
        held[items] = True
    return held


def check_no_leak(groups: Sequence[str | None], parts: Sequence[Hashable]) -> None:
    """Refuse a division in which a group is in more than one part.

    Args:
        groups: N names; None is a group of its own.
        parts: N names or numbers of folds or splits.

    Raises:
        DataError: lengths differ, or a group is torn apart.

    >>> check_no_leak(["a", "a", "b"], ["train", "train", "dev"])
    """
    if len(groups) != len(parts):
        raise DataError(f"groups and parts must pair up: got {len(groups)} and {len(parts)}")
    part_of: dict[str, Hashable] = {}
    for group, part in zip(groups, parts, strict=True):
        if group is not None and part_of.setdefault(group, part) != part:
            raise DataError(
                f"group {group!r} is in {part_of[group]} and in {part}; put it in one of them"
            )


def members_by_group(groups: Sequence[str | None]) -> list[list[int]]:
    """Return each group's items, groups in order of first appearance."""
    members: dict[Hashable, list[int]] = {}
    for item, group in enumerate(groups):
        members.setdefault((item,) if group is None else group, []).append(item)
    return list(members.values())

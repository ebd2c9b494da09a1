"""Labels: which filter each value of a tensor comes from, and which filters can only go together.

Every output channel of every layer gets its own label. Labels that meet are tied: a recipe removes all of them or
none. What no recipe can remove (the input, constants, class scores) has the label `STAYS`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from popstats.arrays import IntArray

STAYS = 0


class Labels:
    """Tied labels (a union-find), and why some of them stay."""

    def __init__(self) -> None:
        self._roots: IntArray = np.zeros(1, np.int64)  # root of each label, always fully resolved
        self._why: dict[int, str] = {}

    def new(self, count: int) -> Tensor:
        """Return `count` new labels, shape (count,)."""
        first = len(self._roots)
        self._roots = np.concatenate([self._roots, np.arange(first, first + count)])
        return torch.arange(first, first + count)

    def find(self, labels: Tensor) -> Tensor:
        """Return the label that stands for each set of tied ones, in the shape given."""
        small = compact(labels)
        return torch.from_numpy(np.asarray(self._roots[small.numpy()])).expand(labels.shape)

    def tie(self, left: Tensor, right: Tensor) -> None:
        """Tie two broadcastable arrays of labels, value by value."""
        left, right = torch.broadcast_tensors(left, right)  # type: ignore[no-untyped-call]
        same = [d for d in range(left.dim()) if left.stride(d) == right.stride(d) == 0 < left.shape[d]]
        for dimension in same:
            left, right = left.narrow(dimension, 0, 1), right.narrow(dimension, 0, 1)
        pairs = np.stack([np.ravel(self._roots[left.numpy()]), np.ravel(self._roots[right.numpy()])])
        pairs = pairs[:, pairs[0] != pairs[1]]
        if pairs.size:
            keys = np.unique(pairs[0] * len(self._roots) + pairs[1])  # one number sorts faster than two
            self._merge(np.stack(np.divmod(keys, len(self._roots))))

    def _merge(self, pairs: IntArray) -> None:
        roots = self._roots
        for one, other in pairs.T.tolist():
            while one != roots[one]:
                one = roots[one]
            while other != roots[other]:
                other = roots[other]
            roots[max(one, other)] = min(one, other)
        while (roots[roots] != roots).any():
            roots = roots[roots]
        self._roots = roots

    def pin(self, labels: Tensor, reason: str) -> None:
        """Decide that nothing with these labels can be removed."""
        found = np.unique(self.find(compact(labels)).numpy())
        for label in np.flatnonzero(np.isin(self._roots, found[found != STAYS])).tolist():
            self._why.setdefault(label, reason)
        self.tie(labels, torch.tensor(STAYS))

    def reason(self, labels: Tensor) -> str:
        """Return why the first of these labels cannot be removed."""
        known = (self._why[label] for label in labels.tolist() if label in self._why)
        return next(known, "it meets a constant or what stays")

    def varies(self, labels: Tensor, dimension: int) -> bool:
        """Return whether different labels lie along a dimension."""
        small = self.find(compact(labels))
        return bool((small != small.narrow(dimension, 0, 1)).any()) if small.numel() else False

    def axes(self, labels: Tensor) -> list[int]:
        """Return the dimensions along which labels differ."""
        return [dimension for dimension in range(labels.dim()) if self.varies(labels, dimension)]

    def along(self, labels: Tensor, dimension: int) -> Tensor:
        """Tie all that shares an index of one dimension; return the labels along it, shape (size,)."""
        if not labels.numel():  # of no image: nothing says where its channels come from
            return torch.tensor(STAYS).expand(labels.shape[dimension])
        rows = compact(labels).movedim(dimension, 0).flatten(1)
        self.tie(rows, rows[:, :1])
        return self.find(rows[:, 0]).expand(labels.shape[dimension])

    def tie_across(self, labels: Tensor, dimension: int) -> None:
        """Tie what differs in its index of one dimension only."""
        if labels.shape[dimension] > 1:
            self.tie(labels, labels.narrow(dimension, 0, 1))


def compact(labels: Tensor) -> Tensor:
    """Return `labels` with size 1 where they were expanded."""
    for dimension, stride in enumerate(labels.stride()):
        if stride == 0 and labels.shape[dimension]:
            labels = labels.narrow(dimension, 0, 1)
    return labels


def spread(labels: Tensor, dimension: int, shape: Sequence[int]) -> Tensor:
    """Return labels along one dimension, shape (size,), expanded to `shape`."""
    lengths = [1] * len(shape)
    lengths[dimension] = len(labels)
    return labels.reshape(lengths).expand(*shape)

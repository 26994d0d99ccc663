"""What the training step reads from: the training split on the device, or windows of it, one at a time."""

import math
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hdc.lab import memory
from hdc.lab.data import stream
from hdc.lab.data.dataset import Dataset, Split
from hdc.lab.devices import Layout

SHARE = 4  # a data set that needs more than a quarter of the memory is streamed
_WINDOW = 16 << 20  # bytes of a window

# An epoch's order `[items]`, or `[seeds, items]`, and the key of its flips.
Order = tuple[Array, Array]


def why_streamed(asked: bool | str, dataset: Dataset) -> str | None:
    """The reason why the training split is streamed, as a line about it; None if it is kept on the device.

    Args:
        asked: `train.stream`: True, False, or "auto" for the rule, by the bytes of all three splits.
        dataset: the data set.
    """
    size, limit = dataset.nbytes, memory.limit()
    where = "of memory"
    on_device = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", math.inf)
    if on_device < limit:
        limit, where = on_device, "on the device"
    if asked is True:
        return f"streaming {len(dataset.train)} training items, as train.stream=true asks"
    if asked is False or size <= limit / SHARE:
        return None
    return (
        f"streaming {len(dataset.train)} training items: the data set needs {size / 1e9:.1f} GB, more than a "
        f"quarter of the {limit / 1e9:.1f} GB {where}; train.stream=false would load it all"
    )


class Whole:
    """The training split on the device."""

    def __init__(self, split: Split, layout: Layout):
        self.arrays = layout.everywhere((np.asarray(split.images), np.asarray(split.labels)))

    def __call__(self, order: Order, start: int, stop: int) -> Iterator[tuple[int, int, tuple]]:
        """What the steps from `start` to `stop` read: first step, step after the last, order and arrays."""
        yield start, stop, (*order, *self.arrays)


class Windows:
    """The items of the next steps on the device, in the order of the epoch, which grain reads ahead.

    The step is that of `Whole`: it gathers items `order[step * batch : (step + 1) * batch]` from the arrays.
    Here the arrays are a window of the epoch, and the order points into it. So the bits are the same, and
    resuming needs no more than epoch and step.

    Each of several processes reads a share of every window that no other process reads.
    """

    def __init__(self, split: Split, layout: Layout, batch: int, processes: int = 0):
        self._columns, self._layout, self._processes = (split.images, split.labels), layout, processes
        item = sum(math.prod(column.shape[1:]) * column.dtype.itemsize for column in self._columns)
        steps = len(split) // batch
        windows = math.ceil(steps / max(1, _WINDOW // (item * batch * layout.seeds)))
        self._steps = math.ceil(steps / windows)  # in a window
        self._last = (steps - 1) // self._steps  # window
        self._items = self._steps * batch  # in a window, for each seed
        self._used = steps * batch  # items in an epoch
        places = np.arange(len(split), dtype=np.int32) % self._items
        if layout.seeds > 1:
            places = places + np.arange(layout.seeds, dtype=np.int32)[:, None] * self._items
        self._places = layout.put(jnp.asarray(places))
        shapes = [(layout.seeds * self._items, *column.shape[1:]) for column in self._columns]
        kinds = zip(shapes, (column.dtype for column in self._columns), strict=True)
        self.arrays = layout.everywhere(tuple(np.zeros(*kind) for kind in kinds))
        self._window = -1  # which one is in `arrays`
        self._order: Order | None = None
        self._reader: Generator[tuple[np.ndarray, ...], None, None] | None = None

    def __call__(self, order: Order, start: int, stop: int) -> Iterator[tuple[int, int, tuple]]:
        """As `Whole`, in one part for each window."""
        while start < stop:
            window = start // self._steps
            if order is not self._order or window not in (self._window, self._window + 1):
                self._begin(order, window)
            if window > self._window:
                self.arrays, self._window = self._next(), window
            if window == self._last and self._reader is not None:
                self._reader.close()  # which ends threads and processes
            end = min(stop, (window + 1) * self._steps)
            yield start, end, (self._places, order[1], *self.arrays)
            start = end

    def _begin(self, order: Order, window: int) -> None:
        if self._reader is not None:
            self._reader.close()
        items = np.asarray(self._layout.on_one(order[0])).reshape(self._layout.seeds, -1)
        own = self._layout.part_of(jax.process_index(), self._layout.seeds * self._items)
        piece = stream.at_a_time(self._columns)
        self._pieces = Pieces(items[:, : self._used], self._items, own, piece, window)
        self._reader = stream.read_ahead(self._columns, self._pieces, self._processes)
        self._order, self._window = order, window - 1

    def _next(self) -> tuple[Array, ...]:
        assert self._reader is not None
        parts = [next(self._reader) for _ in range(self._pieces.per_window)]
        return self._layout.joined(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))


class Pieces(Sequence[np.ndarray]):
    """The items of an epoch's windows, cut into pieces that a thread reads at a time.

    A window has `items` items of each seed, one seed after the other; the last window is filled up with the
    epoch's last item.

    Args:
        order: `[seeds, n]`, each seed's items in the order of its epoch.
        items: of each seed in a window.
        own: which rows of a window this process reads.
        piece: how many of them a thread reads at a time.
        first: the window to begin with.
    """

    def __init__(self, order: np.ndarray, items: int, own: range, piece: int, first: int = 0):
        self._order, self._items, self._own, self._piece, self._first = order, items, own, piece, first
        self.per_window = math.ceil(len(own) / piece)

    def __len__(self) -> int:
        return (math.ceil(self._order.shape[1] / self._items) - self._first) * self.per_window

    def __getitem__(self, number: Any) -> Any:
        window, piece = divmod(range(len(self))[number], self.per_window)
        seeds, places = divmod(
            np.array(self._own[piece * self._piece : (piece + 1) * self._piece]), self._items
        )
        places += (self._first + window) * self._items
        return self._order[seeds, np.minimum(places, self._order.shape[1] - 1)]

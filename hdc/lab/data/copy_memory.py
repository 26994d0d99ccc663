"""Copy memory: ten symbols are shown, and must be said again after a pause. The positive control in 1-D.

Every label that counts is the symbol `steps` + 10 steps before it, and nothing else in the signal says which
symbol that was. A causal network that sees this one offset can be right everywhere; one that does not see it
can only guess one of eight.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hdc import registry
from hdc.errors import InputError, in_range
from hdc.lab.data.cache import cached
from hdc.lab.data.dataset import IGNORE, Dataset, Split

ITEMS = {"train": 4000, "validation": 200, "test": 400}
SEED = 1997
SHOWN, SYMBOLS = 10, 8  # symbols of a signal, and how many different ones there are: 1 to 8
BLANK, ASK = 0, 9
MAX_STEPS = 10_000  # since signals and labels are held in memory


@dataclass(frozen=True)
class CopyMemoryOptions:
    """Signals of `steps` + 20 steps: ten symbols, blanks, and eleven times the sign that asks for them.

    Attributes:
        steps: T of the papers. A label is the symbol T + 10 steps before it.
        flips: none: a mirrored signal asks for what comes later.
    """

    steps: int = 200
    flips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        in_range("steps", self.steps, 1, MAX_STEPS)
        if self.flips:
            raise InputError(
                f"flips must be [] for copy_memory, got {list(self.flips)}: a mirrored signal asks before it "
                "shows the symbols"
            )


def offset(steps: int) -> int:
    """How many steps before a label its symbol is."""
    return steps + SHOWN


@registry.dataset("copy_memory", CopyMemoryOptions)
def copy_memory(options: CopyMemoryOptions) -> Dataset:
    """Signals: say ten symbols again after data.steps steps, 8 classes."""
    key = {"name": "copy_memory", "builder": 1, "steps": options.steps, "items": ITEMS, "seed": SEED}
    return cached(key, lambda: _make(options.steps))


def _make(steps: int) -> Dataset:
    """The task as Bai, Kolter and Koltun 2018 have it (arXiv 1803.01271), after Hochreiter and Schmidhuber.

    The paper's labels at the other steps, all blank, are `IGNORE` here: they are 95 % of a signal with
    T = 200, and a network that sees nothing is right there.
    """
    # Each signal once, so that no test signal is trained on.
    codes = np.random.default_rng(SEED).choice(SYMBOLS**SHOWN, sum(ITEMS.values()), replace=False)
    digits = codes[:, None] // SYMBOLS ** np.arange(SHOWN) % SYMBOLS
    signals = np.full((len(codes), steps + 2 * SHOWN), BLANK, np.uint8)
    labels = np.full(signals.shape, IGNORE, np.int32)
    signals[:, :SHOWN] = 1 + digits
    signals[:, -SHOWN - 1 :] = ASK
    labels[:, -SHOWN:] = digits
    ends = np.cumsum([0, *ITEMS.values()])
    train, validation, test = (
        Split(signals[start:end, :, None], labels[start:end]) for start, end in pairwise(ends)
    )
    classes = tuple(str(1 + one) for one in range(SYMBOLS))
    return Dataset("copy_memory", "dense", classes, train, validation, test)

"""What the networks are trained on: a `Dataset` for each registered name."""

from hdc.lab.data.dataset import IGNORE, Dataset, Split

__all__ = ["IGNORE", "Dataset", "Split"]

"""Names to parts: networks, data sets, layers, measures and optimizers, ours as well as anybody's."""

from typing import Literal

Task = Literal["classification", "dense"]

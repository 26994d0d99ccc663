"""The predicted ripple of a configuration's network."""

from collections.abc import Sequence

from hdc.lab.config import Config
from hdc.ripple import STEM, predict


def predicted_ripple(config: Config, image_shape: Sequence[int]) -> float | None:
    """What `hdc.ripple` says of `net=context`, in dB over the measured periods.

    None of other networks, and of layers against gridding, which it does not know.

    Args:
        config: of a run.
        image_shape: height, width and channels, or length and channels.
    """
    net, schedule = config.net, config.dilation
    if net.name != "context" or config.layer.name not in ("standard", "separable"):
        return None
    layers = [STEM, *((schedule.kernel_size, rate) for rate in schedule.layer_rates)]
    longest = max(2, min(config.gridding.max_period, min(image_shape[:-1]) // 4))
    keys = {"width": net.width, "channels": image_shape[-1], "residual": net.residual}
    return predict(layers, max_period=longest, **keys).db

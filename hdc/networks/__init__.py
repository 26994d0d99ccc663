"""The networks around a schedule: plain, dilated and HDC differ only in their dilation rates."""

from hdc.networks.context import ContextNetwork
from hdc.networks.context_module import ContextModule
from hdc.networks.espnet import EspNet
from hdc.networks.lei2019 import Lei2019
from hdc.networks.tcn import Tcn
from hdc.networks.unet import UNet
from hdc.networks.wavenet import Wavenet

__all__ = ["ContextModule", "ContextNetwork", "EspNet", "Lei2019", "Tcn", "UNet", "Wavenet"]

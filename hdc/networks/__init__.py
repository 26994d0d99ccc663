"""The networks around a schedule: plain, dilated and HDC differ only in their dilation rates."""

from hdc.networks.context import ContextNetwork
from hdc.networks.context_module import ContextModule
from hdc.networks.deeplab import ASPP, DeepLabV3, DeepLabV3Plus
from hdc.networks.drn import DRN
from hdc.networks.duc import DUC
from hdc.networks.espnet import EspNet
from hdc.networks.fcn import FCN
from hdc.networks.lei2019 import Lei2019
from hdc.networks.resnet import ResNet
from hdc.networks.tcn import Tcn
from hdc.networks.unet import UNet
from hdc.networks.wavenet import Wavenet

__all__ = [
    "ASPP",
    "DRN",
    "DUC",
    "FCN",
    "ContextModule",
    "ContextNetwork",
    "DeepLabV3",
    "DeepLabV3Plus",
    "EspNet",
    "Lei2019",
    "ResNet",
    "Tcn",
    "UNet",
    "Wavenet",
]

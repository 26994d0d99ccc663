"""hdc computes from dilation rates which pixels a network sees, and measures gridding in a trained one.

>>> import hdc
>>> hdc.DilationSchedule((1, 2, 9)).first_hole
7
>>> hdc.search(layers=3, field=17, top=1).found[0].rates
(2, 1, 5)

Importing hdc loads nothing else: each public name is imported when it is first used.
"""
# ruff: noqa: F401

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than all of this file
if TYPE_CHECKING:
    from hdc import gridding, networks, published, registry
    from hdc.advisor import advise
    from hdc.comparison import compare
    from hdc.errors import InputError
    from hdc.fields import Branches, PathCounts, Stack
    from hdc.gridding import expected_ripple
    from hdc.layers import Conv, SeparableConv
    from hdc.measuring import effective_receptive_field, measure_gridding
    from hdc.networks import ContextNetwork
    from hdc.ops import conv1d, conv2d, max_pool, separable_conv1d, separable_conv2d
    from hdc.rates import replace_rates
    from hdc.receptive import analyse
    from hdc.schedules import DilationSchedule
    from hdc.search import search

__version__ = "0.2.0"

# `search` is a module that can be called, so that `from hdc.search import Target` works as well.
_MODULES = ("gridding", "networks", "published", "registry", "search")
_HOMES = {
    "Branches": "hdc.fields",
    "ContextNetwork": "hdc.networks",
    "Conv": "hdc.layers",
    "DilationSchedule": "hdc.schedules",
    "InputError": "hdc.errors",
    "PathCounts": "hdc.fields",
    "SeparableConv": "hdc.layers",
    "Stack": "hdc.fields",
    "advise": "hdc.advisor",
    "analyse": "hdc.receptive",
    "compare": "hdc.comparison",
    "conv1d": "hdc.ops",
    "conv2d": "hdc.ops",
    "effective_receptive_field": "hdc.measuring",
    "expected_ripple": "hdc.gridding",
    "max_pool": "hdc.ops",
    "measure_gridding": "hdc.measuring",
    "replace_rates": "hdc.rates",
    "separable_conv1d": "hdc.ops",
    "separable_conv2d": "hdc.ops",
}
__all__ = [*_HOMES, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"hdc.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'hdc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

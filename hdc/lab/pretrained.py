"""Weights of PyTorch's models (torchvision, timm) to start from: `net.weights=FILE`, a safetensors file.

What PyTorch calls modules whose names differ is a network's property `torch_names`. The names of arrays
follow from those of the modules:

| here | PyTorch | its axes |
|---|---|---|
| `kernel` of a convolution | `weight` | out, in, height, width |
| `kernel` of a dense layer | `weight` | out, in |
| `scale`, `bias` of a normalisation | `weight`, `bias` | the same |
| `mean`, `var` of a normalisation | `running_mean`, `running_var` | the same |

A file of a whole network is loaded whole; one of a residual network alone is loaded into the `backbone` of a
network that has one. The last layer is left as it starts where it has another number of classes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hdc.errors import InputError
from hdc.lab.store import read_tensors

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images from 0 to 1, red, green and blue: what these weights were trained with."""

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_LAST = ("fc", "classes")  # the layers whose size follows from the number of classes
_UNUSED = ("aux_classifier.", "fc.")  # parts of the originals that a network may lack
_COUNTER = "num_batches_tracked"  # which PyTorch keeps beside running statistics
_CONVERT = (
    'python -c "import sys, torch, safetensors.torch as s; '
    's.save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])" OLD.pth NEW.safetensors'
)


@dataclass(frozen=True, eq=False)
class Pretrained:
    """Weights as a file has them.

    Attributes:
        path: of the file.
        arrays: by PyTorch's names.
        sha256: of the file's content.
        left: layers that `into` left as they start.
    """

    path: str
    arrays: Mapping[str, np.ndarray]
    sha256: str
    left: set[str] = field(default_factory=set)

    def into(self, model: nnx.Module) -> None:
        """Replace a model's parameters and running statistics by those of the file.

        Raises:
            InputError: where the file is of another network, depth or width; the model is not changed then.
        """
        names = getattr(model, "torch_names", {})
        state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
        encoder = hasattr(model, "backbone") and not any(one.startswith("backbone.") for one in self.arrays)
        chosen, known = [], set()
        for path, variable in nnx.to_flat_state(state):
            if encoder and path[0] != "backbone":
                self.left.add(str(path[0]))
                continue
            name = _torch_name(path[1:] if encoder else path, names)
            array = self.arrays.get(name)
            known.add(name)
            if array is not None and _as_here(array).shape == variable.shape:
                chosen.append((variable, _as_here(array)))
            elif path[0] in _LAST:
                self.left.add(str(path[0]))
            else:
                here = (
                    "is not in the file" if array is None else f"is {list(_as_here(array).shape)} in the file"
                )
                raise InputError(
                    f"net.weights={self.path} is of another network, depth or width: {name} {here} and "
                    f"must be {list(variable.shape)}"
                )
        if rest := sorted(name for name in self.arrays.keys() - known if not _may_lack(name)):
            raise InputError(
                f"net.weights={self.path} is of another network: it has {rest[0]}, which this one lacks"
            )
        for variable, array in chosen:
            variable.set_value(jnp.asarray(array))
        nnx.update(model, state)

    @property
    def about(self) -> dict[str, Any]:
        """What a run's record keeps."""
        return {"file": self.path, "sha256": self.sha256, "left": sorted(self.left)}

    def __str__(self) -> str:
        left = f"; {', '.join(sorted(self.left))} at random" if self.left else ""
        return f"starts from {self.path}{left}; images are normalised as ImageNet's"


def load(path: str) -> Pretrained:
    """The weights in a safetensors file, float32.

    Raises:
        InputError: where it cannot be read or is not such a file; for PyTorch's own files it says how one is
            made of them.
    """
    try:
        status = Path(path).stat()
        return Pretrained(path, *_load(path, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise InputError(f"net.weights={path} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=1)
def _load(path: str, size: int, changed: int) -> tuple[dict[str, np.ndarray], str]:
    try:
        arrays, metadata = read_tensors(Path(path))
    except InputError as error:
        how = f"; PyTorch's own files are converted by: {_CONVERT}" if Path(path).is_file() else ""
        raise InputError(f"net.weights must be a safetensors file: {error}{how}") from None
    if "hdc" in metadata:
        raise InputError(
            f"net.weights={path} is a network that hdc trained: hdc.lab.trained.load reads it; net.weights "
            "takes files of torchvision or timm"
        )
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {name: array.astype(np.float32) for name, array in arrays.items()}, digest


def _torch_name(path: tuple[Any, ...], names: Mapping[str, str]) -> str:
    *modules, leaf = map(str, path)
    module = ".".join(modules)
    return f"{names.get(module, module)}.{_LEAVES.get(leaf, leaf)}"


def _as_here(array: np.ndarray) -> np.ndarray:
    """An array with the axes of Flax: of kernels, features come last."""
    match array.ndim:
        case 4:
            return array.transpose(2, 3, 1, 0)
        case 2:
            return array.T
        case _:
            return array


def _may_lack(name: str) -> bool:
    return name.startswith(_UNUSED) or name.endswith(_COUNTER)

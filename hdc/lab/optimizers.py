"""`optim=adamw` and `optim=sgd`: optax's, with a learning rate that warms up and decays over the run."""

import math
from dataclasses import dataclass

import jax
import optax
from flax import nnx

from hdc import registry
from hdc.errors import InputError, at_least, in_range, one_of


@dataclass(frozen=True)
class AdamwOptions:
    """What can be chosen.

    Attributes:
        learning_rate: at its peak.
        weight_decay: of kernels; biases and normalisation have none.
        decay: `cosine`, down to 0 at the last step, or `constant`.
        warmup_steps: over which the learning rate rises linearly, from one step's share.
        clip_norm: global norm that gradients are clipped to; null does not clip.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    decay: str = "cosine"
    warmup_steps: int = 20
    clip_norm: float | None = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"learning_rate must be above 0, got {self.learning_rate}")
        in_range("weight_decay", self.weight_decay, 0.0, 10.0)
        one_of("decay", self.decay, ("cosine", "constant"))
        at_least("warmup_steps", self.warmup_steps, 0)
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(f"clip_norm must be above 0 or null, got {self.clip_norm}")


@dataclass(frozen=True)
class SgdOptions(AdamwOptions):
    """What can be chosen: as for adamw, and the momentum.

    Attributes:
        momentum: share of the last step's update that is added to the next one.
    """

    learning_rate: float = 0.05
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("momentum", self.momentum, 0.0, 0.9999)


@registry.optimizer("adamw", AdamwOptions)
def adamw(options: AdamwOptions, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov, Hutter 2019)."""
    rate = learning_rate(options, steps)
    return optax.chain(_clip(options), optax.adamw(rate, weight_decay=options.weight_decay, mask=_kernels))


@registry.optimizer("sgd", SgdOptions)
def sgd(options: SgdOptions, steps: int) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum; the weight decay is added to the gradient."""
    decay = optax.add_decayed_weights(options.weight_decay, mask=_kernels)
    return optax.chain(
        _clip(options), decay, optax.sgd(learning_rate(options, steps), momentum=options.momentum)
    )


def learning_rate(options: AdamwOptions, steps: int) -> optax.Schedule:
    """The learning rate of each step of a run of `steps` steps.

    Raises:
        InputError: where the warm-up is not shorter than the run.
    """
    warmup, peak = options.warmup_steps, options.learning_rate
    if warmup >= steps:
        raise InputError(
            f"optim.warmup_steps={warmup} must be fewer than the run's {steps} steps: give "
            f"optim.warmup_steps={steps // 2}, or more epochs"
        )
    after = (
        optax.cosine_decay_schedule(peak, steps - warmup)
        if options.decay == "cosine"
        else optax.constant_schedule(peak)
    )
    if not warmup:
        return after
    return optax.join_schedules(
        [optax.linear_schedule(peak / warmup, peak, warmup - 1 or 1), after], [warmup]
    )


def _clip(options: AdamwOptions) -> optax.GradientTransformation:
    return optax.identity() if options.clip_norm is None else optax.clip_by_global_norm(options.clip_norm)


def _kernels(parameters: nnx.State) -> nnx.State:
    """Which arrays are decayed: those of two axes or more."""
    return jax.tree.map(lambda value: value.ndim > 1, parameters)

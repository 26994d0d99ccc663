"""hdc: dilation-rate schedules for JAX/Flax, certified before training and measured after it."""

__version__ = "0.1.0"

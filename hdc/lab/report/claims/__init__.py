"""The claims about dilated convolution, and the verdicts that the records give them. No JAX."""

from hdc.lab.report.claims.declared import Claim, Line, Selector, claims, parse

__all__ = ["Claim", "Line", "Selector", "claims", "parse"]

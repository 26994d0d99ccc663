"""The rule of every operation that analyse knows. A new operation is one rule in one of these files."""

from hdc.receptive.rules import layout, pointwise, taps

RULES = {**pointwise.RULES, **layout.RULES, **taps.RULES}

"""The rule of every operation that analyse knows. A new operation is one rule in one of these files."""

from hdc.receptive.rules import layout, pointwise, taps
from hdc.receptive.rules.base import Rule
from hdc.receptive.steps import Step

RULES: dict[str, Rule] = {**pointwise.RULES, **layout.RULES, **taps.RULES}
_UNKNOWN = Rule()


def rule_of(step: Step) -> Rule:
    return RULES.get(step.name, _UNKNOWN)

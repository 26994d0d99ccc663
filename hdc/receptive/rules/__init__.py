"""The rule of every operation that analyse knows. A new operation is one rule in one of these files."""

from hdc.receptive.rules import copies, joining, movement, pointwise, products, reductions, taps
from hdc.receptive.rules.base import Rule
from hdc.receptive.steps import Step

RULES: dict[str, Rule] = {
    name: rule
    for module in (pointwise, taps, movement, joining, reductions, products, copies)
    for name, rule in module.RULES.items()
}
_UNKNOWN = Rule()


def rule_of(step: Step) -> Rule:
    """The rule of a step's operation."""
    return RULES.get(step.name, _UNKNOWN)

"""What outputs leave out: the phases of an upsampled output, and the input pixels that reach no output."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hdc.fields import PathCounts
from hdc.receptive.axes import Annotation
from hdc.receptive.layers import Counted, count_paths
from hdc.receptive.rules.base import Taps
from hdc.receptive.rules.pointwise import POINTWISE
from hdc.receptive.rules.taps import REDUCTIONS
from hdc.receptive.steps import Step, Trace, Value

MAX_PHASES = 64
_MOVING = frozenset(["broadcast_in_dim", "concatenate", "reshape", "rev", "squeeze", "stack", "transpose"])
_AT_ONCE = 16  # places whose paths are followed at the same time: bounds the memory


@dataclass(frozen=True)
class Phase:
    """What the output pixels see that lie alike between the pixels of the coarsest map on the way.

    Attributes:
        at: one of these output pixels.
        size: its receptive field per axis, in input pixels; zeros where it sees nothing.
        coverage: the share of this field that is seen.
        paths: the number of its paths, divided by that of the phase with the most.
    """

    at: tuple[int, ...]
    size: tuple[int, ...]
    coverage: float
    paths: float


def find_phases(traced: Trace, annotation: Annotation, axes: Sequence[int]) -> tuple[Phase, ...]:
    """The phases of an output along its spatial `axes`, the worst first.

    None where there is one phase, or more than `MAX_PHASES` along an axis. If the axes have more phases
    together, those along each axis through the middle and along the diagonal.
    """
    lengths = [traced.output.shape[axis] for axis in axes]
    periods = [_period(traced, annotation, axis) for axis in axes]
    if max(periods, default=1) == 1 or max(periods) > MAX_PHASES:
        return ()
    ranges = [_middle(length, period) for length, period in zip(lengths, periods, strict=True)]
    places = list(itertools.product(*ranges))
    if len(places) > MAX_PHASES:
        centre = [places[len(places) // 2] for places in ranges]
        lines = [
            tuple(position if other == axis else centre[other] for other in range(len(axes)))
            for axis, line in enumerate(ranges)
            for position in line
        ]
        diagonal = [tuple(line[i % len(line)] for line in ranges) for i in range(max(periods))]
        places = list(dict.fromkeys([*lines, *diagonal]))
    found = _count(traced, annotation, axes, places)
    most = max((log for *_, log in found), default=-math.inf)
    phases = [
        Phase(place, size, coverage, math.exp(log - most) if log > -math.inf else 0.0)
        for place, (size, coverage, log) in zip(places, found, strict=True)
    ]
    return tuple(sorted(phases, key=lambda phase: (phase.coverage, phase.paths)))


def _period(traced: Trace, annotation: Annotation, axis: int) -> int:
    """After how many pixels along an axis the output lies alike on every map."""
    mine = annotation.axes[traced.output][axis]
    values = [traced.input, *(output for step in traced.steps for output in step.outputs if output.depends)]
    strides = {
        one.stride
        for value in values
        for one in annotation.axes[value]
        if one.kind == "space" and one.space == mine.space
    }
    return math.lcm(*((stride / mine.stride).numerator for stride in strides))


def _middle(length: int, period: int) -> range:
    first = max(0, min(length // 2 - period // 2, length - period))
    return range(first, min(length, first + period))


def _count(
    traced: Trace, annotation: Annotation, axes: Sequence[int], places: Sequence[tuple[int, ...]]
) -> list[tuple[tuple[int, ...], float, float]]:
    """For each place: size, coverage, and the logarithm of the number of paths."""
    for beyond in (True, False):
        found: list[tuple[tuple[int, ...], float, float]] = []
        for first in range(0, len(places), _AT_ONCE):
            some = [
                (traced.output, dict(zip(axes, p, strict=True))) for p in places[first : first + _AT_ONCE]
            ]
            counts = count_paths(traced, annotation, some, beyond=beyond)
            if beyond and any(counted.bounded for counted in counts):
                break
            measured = {
                id(counted): _measured(counted) for counted in {id(one): one for one in counts}.values()
            }
            found += [measured[id(counted)] for counted in counts]
        else:
            return found
    raise AssertionError("within the edges, every place is counted")


def _measured(counted: Counted) -> tuple[tuple[int, ...], float, float]:
    if not counted.counts.any():
        return (0,) * counted.counts.ndim, 0.0, -math.inf
    paths = PathCounts.of(counted.counts, counted.start)
    return paths.size, paths.coverage, math.log(counted.counts.sum()) + counted.log


def find_reaching(traced: Trace, annotation: Annotation) -> np.ndarray:
    """Which input pixels reach any output, be it by a summary: bool `[input's spatial axes]`."""
    if _all_are_read(traced, annotation):
        return np.ones(traced.input.shape[1:-1], bool)
    annotation = replace(annotation, couplings=set())
    (counted,) = count_paths(traced, annotation, [(traced.output, {})], beyond=False)
    return counted.counts > 0


def _all_are_read(traced: Trace, annotation: Annotation) -> bool:
    """Whether each entry of the input is read by a step that reads all, and so on to the output."""
    read = {traced.output}
    for step in reversed(traced.steps):
        if all(output in read for output in step.outputs):
            read |= {value for value in step.inputs if value.depends and _reads_all(step, value, annotation)}
    return traced.input in read


def _reads_all(step: Step, value: Value, annotation: Annotation) -> bool:
    """A first look: where it says no, some entries may not be read."""
    known = annotation.masked
    if step.outputs[0] in known or value in known or (step, value) in annotation.hidden:
        return False
    if step.name in POINTWISE or step.name in REDUCTIONS or step.name in _MOVING:
        return True
    if step.name == "dot_general":
        return all(one.depends or one.unmasked for one in step.inputs) and known.keys().isdisjoint(
            step.inputs
        )
    if step.name == "conv_general_dilated" and not step.inputs[1].unmasked:
        return False
    taps = step.rule.taps(step)
    return value is step.inputs[0] and bool(taps) and all(_covers(one, step) for one in taps)


def _covers(taps: Taps, step: Step) -> bool:
    """Whether the taps along an axis read every position."""
    if taps.is_identity:
        return True
    first = np.arange(step.outputs[0].shape[taps.place]) * taps.stride - taps.low
    length = step.inputs[0].shape[taps.axis]
    read = np.zeros(length, bool)
    for tap in range(taps.count):
        places, between = np.divmod(first + tap * taps.rate, taps.apart)
        read[places[(between == 0) & (places >= 0) & (places < length)]] = True
    return bool(read.all())


def find_reached(
    traced: Trace, annotation: Annotation, axes: Sequence[int], pixel: tuple[int, ...]
) -> np.ndarray:
    """Which outputs see an input pixel: bool `[output's spatial axes]`."""
    shape = tuple(traced.output.shape[axis] for axis in axes)
    reached = np.zeros(shape, bool)
    # Blocks of outputs that see the pixel are halved until they are single ones.
    blocks = [tuple(range(length) for length in shape)]
    while blocks:
        some, blocks = blocks[:_AT_ONCE], blocks[_AT_ONCE:]
        places = [(traced.output, dict(zip(axes, block, strict=True))) for block in some]
        for block, counted in zip(some, count_paths(traced, annotation, places, beyond=False), strict=True):
            if counted.counts[pixel] == 0:
                continue
            longest = max(range(len(block)), key=lambda axis: len(block[axis]), default=0)
            if not block or len(block[longest]) == 1:
                reached[tuple(one[0] for one in block)] = True
                continue
            half = len(block[longest]) // 2
            for part in (block[longest][:half], block[longest][half:]):
                blocks.append((*block[:longest], part, *block[longest + 1 :]))
    return reached

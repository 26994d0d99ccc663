"""Two models, or one before and after a change, side by side."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hdc.advice import Finding
from hdc.errors import InputError
from hdc.gridding import expected_ripple
from hdc.receptive import Analysis, analyse
from hdc.receptive.layers import Layer
from hdc.receptive.outputs import Output

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_HEADS = ("kernel", "rate", "stride", "map", "field", "seen %", "G", "padding %")


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Two analyses side by side. `print` it.

    Attributes:
        before, after: the analyses.
        ripples: the expected ripple of each in dB, where it was asked for.
    """

    before: Analysis
    after: Analysis
    ripples: tuple[float, float] | None = None

    @cached_property
    def layers(self) -> tuple[tuple[Layer | None, Layer | None], ...]:
        """The layers whose numbers differ, by name; None where only one of the models has that layer."""
        ours, theirs = ({layer.name: layer for layer in one.layers} for one in (self.before, self.after))
        pairs = [(ours.get(name), theirs.get(name)) for name in {**ours, **theirs}]
        return tuple(pair for pair in pairs if _row(pair[0]) != _row(pair[1]))

    @cached_property
    def resolved(self) -> tuple[Finding, ...]:
        """The findings about the first that are none about the second."""
        return _without(self.before.findings, self.after.findings)

    @cached_property
    def new(self) -> tuple[Finding, ...]:
        """The findings about the second that are none about the first."""
        return _without(self.after.findings, self.before.findings)

    @cached_property
    def remaining(self) -> tuple[Finding, ...]:
        """The findings about both, as they are about the second."""
        return tuple(finding for finding in self.after.findings if finding not in self.new)

    def figure(self) -> "Figure":
        """Both maps of paths and their profiles, holes in orange."""
        from hdc import plots

        titles = [
            f"{name}: {_times(one.size)} px, {one.coverage:.0%} seen, G {one.gridding.index:.2f}"
            for name, one in zip(self._names, (self.before, self.after), strict=True)
        ]
        return plots.figure([(titles[0], self.before.paths), (titles[1], self.after.paths)])

    def __rich__(self) -> RenderableType:
        numbers = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for head in ("", *self._names):
            numbers.add_column(head, justify="right" if head else "left")
        for name, ours, theirs in self._numbers():
            numbers.add_row(name, ours, theirs, style=None if ours == theirs else "bold")
        parts: list[RenderableType] = [numbers]
        if self.layers:
            parts.append(self._table())
        else:
            parts.append(Text("the layers have the same numbers"))
        for what, findings in (("resolved", self.resolved), ("new", self.new), ("remains", self.remaining)):
            parts += [Text(f"- {what}: {finding}") for finding in findings]
        return Group(*parts)

    def __repr__(self) -> str:
        console = Console(width=160, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    @property
    def _names(self) -> tuple[str, str]:
        ours, theirs = self.before.model, self.after.model
        return ("before", "after") if ours == theirs else (ours, theirs)

    def _numbers(self) -> Iterator[tuple[str, str, str]]:
        def both(name: str, of: Callable[[Analysis], Any]) -> tuple[str, str, str]:
            return name, str(of(self.before)), str(of(self.after))

        yield both("input", lambda one: _times(one.input_shape))
        yield both("output", lambda one: _times(one.output_shape))
        yield both(
            "receptive field", lambda one: _times(one.size) + (" within edges" if one.within_edges else "")
        )
        yield both("seen %", lambda one: f"{100 * one.coverage:.1f}")
        yield both("first hole", lambda one: _times(one.paths.first_hole or ["none"], ", "))
        yield both("gridding G", lambda one: f"{one.gridding.index:.3f}")
        if self.ripples is not None:
            ours, theirs = self.ripples
            yield "expected ripple, dB", f"{ours:.1f}", f"{theirs:.1f}"
        yield both("output stride", lambda one: _times(one.output_stride or ["none"]))
        yield both("most taps in padding, %", lambda one: f"{100 * max(_padding(one.layers), default=0):.1f}")
        yield both("parameters", lambda one: f"{one.parameters:,}")
        yield both("multiply-adds", lambda one: f"{one.multiply_adds:,}")
        yield both("findings", lambda one: len(one.findings))

    def _table(self) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for head in ("layers that differ", *_HEADS):
            table.add_column(head, justify="right" if head in _HEADS else "left")
        for ours, theirs in self.layers:
            known = theirs or ours
            assert known is not None
            cells = zip(_row(ours or known).values(), _row(theirs or known).values(), strict=True)
            only = "" if ours and theirs else f" ({self._names[0 if ours else 1]} only)"
            table.add_row(
                known.name + only, *(one if one == other else f"{one} -> {other}" for one, other in cells)
            )
        return table


def compare(
    a: Any,
    b: Any,
    input_shape: Sequence[int] | None = None,
    *,
    ripple: bool = False,
    params: Any = None,
    call: Mapping[str, Any] | None = None,
    output: Output = None,
    spatial: Sequence[int] | None = None,
) -> Comparison:
    """Two analyses or two models side by side: what they see, layers that differ, findings resolved and new.

    >>> from flax import nnx
    >>> from hdc import replace_rates
    >>> layers = [nnx.Conv(1, 1, (3, 3), kernel_dilation=2, rngs=nnx.Rngs(0)) for _ in range(2)]
    >>> model = nnx.Sequential(*layers)
    >>> found = compare(model, replace_rates(model, {"layers.1": 1}), (1, 32, 32, 1))
    >>> found.before.gap_free, found.after.gap_free, [finding.rule for finding in found.resolved]
    (False, True, ['holes', 'common factor', 'better schedule'])

    Args:
        a, b: two of what `analyse` takes, or two of what it returns.
        input_shape: as `analyse` takes it; of analyses, None.
        ripple: whether to predict the ripple of both as well, by simulation (`hdc.expected_ripple`): seconds
            to minutes for each, and for NNX models with values only, which are called without options.
        params, call, output, spatial: as `analyse` takes them, the same for both models. Where they differ,
            compare two analyses.

    Raises:
        InputError: as `analyse` and `expected_ripple`, if the shape is missing, and for options with
            analyses or with `ripple`.
    """
    given = {"params": params, "call": call, "output": output, "spatial": spatial}
    options = {name: value for name, value in given.items() if value is not None}
    if ripple and options:
        raise InputError(
            f"ripple=True simulates the models called with an image alone, without {_listed(options)}"
        )
    analyses = []
    for one in (a, b):
        if isinstance(one, Analysis):
            if options:
                raise InputError(f"{_listed(options)} of models, not of analyses: give it to analyse")
            if ripple:
                raise InputError("ripple=True simulates the models themselves: give models, not analyses")
            analyses.append(one)
        elif input_shape is None:
            raise InputError("models need an input_shape, such as (1, 64, 64, 3): compare(a, b, input_shape)")
        else:
            analyses.append(analyse(one, input_shape, **options))
    ripples = None
    if ripple and input_shape is not None:
        shape = tuple(input_shape)[1:]
        ripples = (expected_ripple(a, shape).peak, expected_ripple(b, shape).peak)
    return Comparison(analyses[0], analyses[1], ripples)


def _listed(options: Iterable[str]) -> str:
    return ", ".join(f"{name}=" for name in options)


def _without(some: Iterable[Finding], others: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings of another rule, or about another place, than all the others."""
    known = {(other.rule, other.where) for other in others}
    return tuple(finding for finding in some if (finding.rule, finding.where) not in known)


def _padding(layers: Iterable[Layer]) -> list[float]:
    return [layer.padding_share for layer in layers]


def _row(layer: Layer | None) -> dict[str, str]:
    """What is shown of a layer, by the column's head."""
    if layer is None:
        return {}
    axes = (layer.kernel, layer.rate, layer.strides, layer.map, layer.size)
    shares = (
        f"{100 * layer.coverage:.1f}",
        f"{layer.gridding.index:.3f}",
        f"{100 * layer.padding_share:.1f}",
    )
    return dict(zip(_HEADS, (*map(_times, axes), *shares), strict=True))


def _times(values: Iterable[object], by: str = "x") -> str:
    return by.join(map(str, values))

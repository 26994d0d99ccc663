"""The exact facts of the claims, each computed from schedules and the shapes of kernels."""

from collections.abc import Callable

import numpy as np

from hdc.schedules import DilationSchedule, padding_share

Fact = tuple[bool, str]  # whether it holds, and the numbers behind it


def two_taps_at_rate_two() -> Fact:
    """A 2x2 kernel at rate 2 spans the field of a 3x3 kernel."""
    sparse, full = DilationSchedule((2,), kernel_size=2), DilationSchedule((1,), kernel_size=3)
    fields, seen = (sparse.receptive_field, full.receptive_field), np.count_nonzero(sparse.path_counts)
    text = f"{fields[0]} and {fields[1]} px per axis; it reads {seen**2} of the {fields[0] ** 2} pixels"
    return fields[0] == fields[1], text


def field_grows_with_rate() -> Fact:
    """One layer's field rises strictly with its rate."""
    kernels, rates = range(2, 8), range(1, 33)
    fields = [[DilationSchedule((rate,), size).receptive_field for rate in rates] for size in kernels]
    three = [DilationSchedule((rate,)).receptive_field for rate in (1, 2, 3)]
    text = ", ".join(map(str, three))
    return bool(
        (np.diff(fields) > 0).all()
    ), f"3x3 at rates 1, 2, 3: {text} px; checked for K 2 to 7, rates to 32"


def taps_do_not_grow() -> Fact:
    """A dilated kernel has as many elements as a plain one."""
    taps = {
        (size, np.count_nonzero(DilationSchedule((rate,), size).path_counts))
        for size in range(2, 8)
        for rate in range(1, 33)
    }
    return all(size == count for size, count in taps), "K taps per axis, for K 2 to 7 at every rate to 32"


def exponential_growth() -> Fact:
    """Rates that double keep a 3x3 stack gap-free while its field doubles; rates that quadruple do not."""
    doubling = [DilationSchedule(tuple(2**i for i in range(layers))) for layers in range(1, 9)]
    holds = all(
        one.gap_free and one.receptive_field == 2 ** (layers + 1) - 1
        for layers, one in enumerate(doubling, start=1)
    )
    tripling, faster = DilationSchedule((1, 3, 9)), DilationSchedule((1, 4, 16))
    holds &= tripling.gap_free and not faster.gap_free
    return holds, (
        "only if gap-free: rates 1, 2, 4, ... are, with a field of 2^(n+1) - 1 px, and so are 1, 3, 9; "
        f"1, 4, 16 miss {1 - faster.coverage:.0%} of each axis"
    )


def equal_rates_leave_holes() -> Fact:
    """A stack of one rate above 1 leaves holes, and neighbouring outputs share no input."""
    stacks = [DilationSchedule((rate,), 3, layers) for rate in range(2, 9) for layers in range(1, 9)]
    holds = all(not one.gap_free and one.neighbour_overlap == 0 for one in stacks)
    fixed, behind = DilationSchedule((2,), repeat=6), DilationSchedule((1, 2, 2, 2, 2, 2, 2))
    holds &= behind.gap_free
    return holds, (
        f"2x6 reads {fixed.coverage:.0%} of each axis, adjacent outputs share no input; after a plain 3x3 "
        f"layer it reads {behind.coverage:.0%}"
    )


def mixed_rates_leave_none() -> Fact:
    """Stacks of mixed rates can be gap-free."""
    fixed, mixed = DilationSchedule((2,), repeat=6), DilationSchedule((1, 2, 5), repeat=2)
    holed = DilationSchedule((2, 2, 2, 2, 3, 5))
    holds = mixed.gap_free and mixed.coverage == 1 and mixed.receptive_field > fixed.receptive_field
    return holds, (
        f"1-2-5x2 reads all of its {mixed.receptive_field} px, 2x6 {fixed.coverage:.0%} of its "
        f"{fixed.receptive_field}; not every mixture: 2-2-2-2-3-5 reads {holed.coverage:.0%}"
    )


def large_rates_leave_the_centre() -> Fact:
    """On a map of side s a 3x3 layer reads its centre tap alone if the rate is s or more, and only then."""
    sides, rates = range(1, 49), range(1, 49)
    centre = {(side, rate): padding_share(rate, 3, (side, side)) for side in sides for rate in rates}
    holds = all((rate >= side) == (share == 1 - 1 / 9) for (side, rate), share in centre.items())
    at = {rate: 1 - padding_share(rate, 3, (33, 33)) for rate in (6, 12, 18)}
    kept = ", ".join(f"{share:.0%}" for share in at.values())
    return holds, (
        f"checked for s and rates to 48; at 33 x 33, ASPP's rates 6, 12, 18 keep {kept} of their taps, "
        f"at 16 x 16 rate 18 keeps {1 - padding_share(18, 3, (16, 16)):.0%}, the centre"
    )


def separable_parameters() -> Fact:
    """Depthwise and pointwise kernels have 1/C' + 1/K^2 of a dense kernel's elements, at the same output."""
    holds = True
    for size, inputs, outputs in np.ndindex(6, 16, 15):
        taps, inputs, outputs = size + 2, inputs + 1, outputs + 2
        separable = np.empty((taps, taps, 1, inputs)).size + np.empty((1, 1, inputs, outputs)).size
        dense = np.empty((taps, taps, inputs, outputs)).size
        # In whole numbers: separable / dense = 1 / outputs + 1 / taps^2.
        holds &= separable * outputs * taps**2 == dense * (taps**2 + outputs) and separable < dense
    share = 1 / 16 + 1 / 9
    return bool(
        holds
    ), f"1/C' + 1/K² of the kernel elements, below 1 from C' = 2: {share:.0%} for 3x3, 16 channels"


def pointwise_mixes_channels() -> Fact:
    """A 1x1 convolution is one matrix for all pixels: it permutes channels and changes their number."""
    generator = np.random.default_rng(0)
    maps = generator.normal(size=(5, 7, 4))
    order = generator.permutation(4)
    shuffled = np.einsum("hwc,cd->hwd", maps, np.eye(4)[:, order])
    wider = np.einsum("hwc,cd->hwd", maps, generator.normal(size=(4, 9)))
    moved = np.einsum("hwc,cd->hwd", np.roll(maps, 2, axis=1), np.eye(4)[:, order])
    holds = np.array_equal(shuffled, maps[..., order]) and wider.shape == (5, 7, 9)
    holds &= np.array_equal(moved, np.roll(shuffled, 2, axis=1))
    return bool(holds), "a C x C' matrix at every pixel: a permutation reorders the channels, 4 become 9"


FACTS: dict[str, Callable[[], Fact]] = {
    function.__name__: function
    for function in (
        two_taps_at_rate_two,
        field_grows_with_rate,
        taps_do_not_grow,
        exponential_growth,
        equal_rates_leave_holes,
        mixed_rates_leave_none,
        large_rates_leave_the_centre,
        separable_parameters,
        pointwise_mixes_channels,
    )
}

"""Slow, obvious versions of what `hdc` computes: NumPy in float64, loops, the definition and nothing else.

Nothing here imports `hdc`, so that nothing here can share its mistakes.
"""

import cmath
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

Pair = tuple[int, int]
Padding = str | tuple[Pair, Pair]


# --- convolution ---


def pads(padding: Padding, size: Pair, kernel: Pair, rate: Pair, strides: Pair) -> tuple[Pair, Pair]:
    """Pixels added (before, after) per axis. SAME is TensorFlow's and XLA's: the odd pixel comes after."""
    if padding == "VALID":
        return (0, 0), (0, 0)
    if padding != "SAME":
        return padding
    both = []
    for axis in (0, 1):
        outputs = math.ceil(size[axis] / strides[axis])
        extent = (kernel[axis] - 1) * rate[axis] + 1
        total = max(0, (outputs - 1) * strides[axis] + extent - size[axis])
        both.append((total // 2, total - total // 2))
    return both[0], both[1]


def _taps(
    x_shape: tuple[int, ...], k_shape: tuple[int, ...], rate: Pair, strides: Pair, padding: Padding
) -> tuple[Pair, Iterator[tuple[int, int, int, int, int, int]]]:
    """The output's size, and (out_row, out_col, tap_row, tap_col, in_row, in_col) of every tap inside x."""
    size, kernel = x_shape[1:3], k_shape[:2]
    (top, bottom), (left, right) = pads(padding, size, kernel, rate, strides)
    height = (size[0] + top + bottom - (kernel[0] - 1) * rate[0] - 1) // strides[0] + 1
    width = (size[1] + left + right - (kernel[1] - 1) * rate[1] - 1) // strides[1] + 1

    def taps() -> Iterator[tuple[int, int, int, int, int, int]]:
        for i, j, a, b in itertools.product(range(height), range(width), range(kernel[0]), range(kernel[1])):
            row = i * strides[0] + a * rate[0] - top
            column = j * strides[1] + b * rate[1] - left
            if 0 <= row < size[0] and 0 <= column < size[1]:
                yield i, j, a, b, row, column

    return (height, width), taps()


def conv2d(
    x: np.ndarray,
    kernel: np.ndarray,
    *,
    rate: Pair = (1, 1),
    groups: int = 1,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
) -> np.ndarray:
    """`[b, h, w, c]` and `[kh, kw, c / groups, f]` to `[b, h', w', f]`."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    (height, width), taps = _taps(x.shape, kernel.shape, rate, strides, padding)
    y = np.zeros((len(x), height, width, kernel.shape[3]))
    ins, outs = kernel.shape[2], kernel.shape[3] // groups
    for i, j, a, b, row, column in taps:
        for g in range(groups):
            into, out = slice(g * ins, (g + 1) * ins), slice(g * outs, (g + 1) * outs)
            y[:, i, j, out] += x[:, row, column, into] @ kernel[a, b, :, out]
    return y


def conv2d_gradients(
    x: np.ndarray,
    kernel: np.ndarray,
    dy: np.ndarray,
    *,
    rate: Pair = (1, 1),
    groups: int = 1,
    strides: Pair = (1, 1),
    padding: Padding = "SAME",
) -> tuple[np.ndarray, np.ndarray]:
    """d sum(dy * y) / d x and / d kernel: every product of the forward pass, handed back to its factors."""
    x, kernel, dy = (array.astype(np.float64) for array in (x, kernel, dy))
    _, taps = _taps(x.shape, kernel.shape, rate, strides, padding)
    dx, dk = np.zeros(x.shape), np.zeros(kernel.shape)
    ins, outs = kernel.shape[2], kernel.shape[3] // groups
    for i, j, a, b, row, column in taps:
        for g in range(groups):
            into, out = slice(g * ins, (g + 1) * ins), slice(g * outs, (g + 1) * outs)
            dx[:, row, column, into] += dy[:, i, j, out] @ kernel[a, b, :, out].T
            dk[a, b, :, out] += x[:, row, column, into].T @ dy[:, i, j, out]
    return dx, dk


def max_pool(x: np.ndarray) -> np.ndarray:
    """2 x 2 maxima, what does not fill a window left out: `[b, h, w, c]` to `[b, h // 2, w // 2, c]`."""
    y = np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3]))
    for i, j in np.ndindex(*y.shape[1:3]):
        y[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max(axis=(1, 2))
    return y


def bilinear(x: np.ndarray, sides: Sequence[int]) -> np.ndarray:
    """Maps `[b, h, w, c]` interpolated to larger sides; the corners of the maps, not of pixels, coincide."""
    for axis, side in enumerate(sides, start=1):
        length = x.shape[axis]
        lines = np.moveaxis(x, axis, 0)
        found = []
        for place in range(side):
            at = min(max((place + 0.5) * length / side - 0.5, 0), length - 1)
            low = math.floor(at)
            found.append((1 - at + low) * lines[low] + (at - low) * lines[min(low + 1, length - 1)])
        x = np.moveaxis(np.stack(found), 0, axis)
    return x


# --- schedules ---


def path_counts(rates: Sequence[int], taps: int) -> np.ndarray:
    """How many of the K^n choices of one tap per layer end at each offset."""
    offsets = [sum(choice) for choice in itertools.product(*[[r * j for j in range(taps)] for r in rates])]
    return np.bincount(offsets)


def first_hole(counts: np.ndarray) -> int | None:
    """The first offset that no path reaches."""
    return next((offset for offset, count in enumerate(counts) if count == 0), None)


def support(rates: Sequence[int], taps: int) -> set[int]:
    """The offsets from the centre that a stack with an odd number of taps reaches, per axis."""
    half = taps // 2
    return {
        sum(choice) for choice in itertools.product(*[[r * (j - half) for j in range(taps)] for r in rates])
    }


def hdc_m2(rates: Sequence[int]) -> int:
    """M_2 of Wang et al. 2018, by its recursion: layers are counted from 1."""

    def m(i: int) -> int:
        r = rates[i - 1]
        return r if i == len(rates) else max(m(i + 1) - 2 * r, 2 * r - m(i + 1), r)

    return m(2)


def gridding_spectrum(rates: Sequence[int], taps: int) -> dict[float, float]:
    """|DFT of the path counts| / their sum, at every m/q with 1 <= m < q <= the largest rate."""
    counts = path_counts(rates, taps)
    fractions = {m / q for q in range(2, max(rates) + 1) for m in range(1, q)}
    waves = np.exp(-2j * np.pi * np.outer(sorted(fractions), np.arange(len(counts))))
    return dict(zip(sorted(fractions), np.abs(waves @ counts) / counts.sum(), strict=True))


def padding_share(rate: int, taps: int, size: Pair) -> float:
    """The share of all taps of all pixels that lie outside the map; for an odd number of taps."""
    offsets = [rate * (j - taps // 2) for j in range(taps)]
    outside = total = 0
    for row, column, a, b in itertools.product(range(size[0]), range(size[1]), offsets, offsets):
        total += 1
        outside += not (0 <= row + a < size[0] and 0 <= column + b < size[1])
    return outside / total


# --- metrics ---


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Rows the truth, columns the prediction."""
    table = np.zeros((classes, classes), int)
    for truth, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        table[truth, prediction] += 1
    return table


def counted_confusion(
    labels: np.ndarray, predictions: np.ndarray, counted: np.ndarray, classes: int
) -> np.ndarray:
    """`confusion` of the pixels where `counted` is true."""
    places = [place for place in np.ndindex(labels.shape) if counted[place]]
    one, other = (np.array([maps[place] for place in places], int) for maps in (labels, predictions))
    return confusion(one, other, classes)


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> float:
    """The share that is right."""
    right = [a == b for a, b in zip(labels.ravel(), predictions.ravel(), strict=True)]
    return sum(right) / len(right)


def mean_iou(labels: np.ndarray, predictions: np.ndarray, classes: int, left_out: int | None = None) -> float:
    """Mean over the classes that occur, but `left_out`, of |both| / |either|, by sets of pixels."""
    shares = []
    for c in set(range(classes)) - {left_out}:
        truth = {index for index in np.ndindex(labels.shape) if labels[index] == c}
        predicted = {index for index in np.ndindex(labels.shape) if predictions[index] == c}
        if truth | predicted:
            shares.append(len(truth & predicted) / len(truth | predicted))
    return sum(shares) / len(shares)


def boundary_iou(labels: np.ndarray, predictions: np.ndarray, band: int, ignore: int | None = None) -> float:
    """Mean over classes of |both| / |either| of the pixels that have another class at most `band` rows and
    columns away, in the truth and in the prediction `[n, h, w]`; a pixel labelled `ignore` is not there."""

    def inside(maps: np.ndarray, c: int) -> set[tuple[int, ...]]:
        found = set()
        for n, i, j in np.argwhere((maps == c) & (labels != ignore)).tolist():
            around = np.s_[n, max(0, i - band) : i + band + 1, max(0, j - band) : j + band + 1]
            if any(maps[around][labels[around] != ignore] != c):
                found.add((n, i, j))
        return found

    shares = []
    for c in {*labels.ravel().tolist(), *predictions.ravel().tolist()} - {ignore}:
        truth, predicted = inside(labels, c), inside(predictions, c)
        if truth | predicted:
            shares.append(len(truth & predicted) / len(truth | predicted))
    return sum(shares) / len(shares) if shares else math.nan


def speckle(labels: np.ndarray, predictions: np.ndarray, ignore: int | None = None) -> tuple[int, int]:
    """Speckles and sites of maps `[n, h, w]`, pixel by pixel; the border has no four neighbours.

    A pixel labelled `ignore` is no site, and nobody's neighbour.
    """
    speckles = sites = 0
    for truth, predicted in zip(labels, predictions, strict=True):
        for i, j in itertools.product(range(1, truth.shape[0] - 1), range(1, truth.shape[1] - 1)):
            around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
            around = [place for place in around if truth[place] != ignore]
            if truth[i, j] != ignore and any(truth[i, j] == truth[place] for place in around):
                sites += 1
                speckles += all(predicted[i, j] != predicted[place] for place in around)
    return speckles, sites


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax at the label, nats."""
    losses = []
    for index in np.ndindex(labels.shape):
        scores = [float(score) for score in logits[index]]
        top = max(scores)
        losses.append(top + math.log(sum(math.exp(s - top) for s in scores)) - scores[labels[index]])
    return sum(losses) / len(losses)


def chances(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def class_loss(
    logits: np.ndarray,
    labels: np.ndarray,
    kind: str,
    weights: Sequence[float] | None = None,
    smoothing: float = 0,
    ignore: int | None = None,
) -> float:
    """A loss of classes, label by label: `cross_entropy`, `focal` (power 2) or `dice`; what is ignored is
    left out, and each label counts by the weight of its class."""
    classes = logits.shape[-1]
    p, places = chances(logits), [place for place in np.ndindex(labels.shape) if labels[place] != ignore]
    of_class = [1.0] * classes if weights is None else weights
    if kind == "dice":
        losses = []
        for c in range(classes):
            both = sum(p[place][c] for place in places if labels[place] == c)
            either = sum(p[place][c] + (labels[place] == c) for place in places)
            losses.append(1 - (2 * both + 2) / (either + 2))
        return sum(w * loss for w, loss in zip(of_class, losses, strict=True)) / sum(of_class)
    total = weight = 0.0
    for place in places:
        truth = [smoothing / classes + (1 - smoothing) * (c == labels[place]) for c in range(classes)]
        loss = -sum(t * math.log(chance) for t, chance in zip(truth, p[place], strict=True))
        if kind == "focal":
            loss *= (1 - p[place][labels[place]]) ** 2
        total, weight = total + of_class[labels[place]] * loss, weight + of_class[labels[place]]
    return total / weight if weight else 0.0


# --- gridding ---


def power(maps: np.ndarray, frequency: float) -> float:
    """Mean power at one frequency of the Hann-windowed lines along both axes of maps `[n, h, w]`."""
    per_axis = []
    for transposed in (False, True):
        powers = []
        for original in maps:
            field = (original.T if transposed else original).astype(np.float64)
            field = field - field.mean()
            for line in field:
                total = 0j
                for position, value in enumerate(line):
                    window = math.sin(math.pi * (position + 0.5) / len(line)) ** 2
                    total += window * value * cmath.exp(-2j * math.pi * frequency * position)
                powers.append(abs(total) ** 2)
        per_axis.append(sum(powers) / len(powers))
    return sum(per_axis) / 2


def ripple(maps: np.ndarray, max_period: int) -> dict[float, float]:
    """Frequency to contrast in dB: a tooth at m/q against the valleys half a tooth away on both sides."""
    longest = min(max_period, maps.shape[-2] // 4, maps.shape[-1] // 4)
    result = {}
    for q in range(2, longest + 1):
        for m in range(1, q):
            if 2 * m <= q and math.gcd(m, q) == 1:
                valleys = (power(maps, (m - 0.5) / q) + power(maps, (m + 0.5) / q)) / 2
                result[m / q] = 10 * math.log10(power(maps, m / q) / valleys)
    return result


def phase_imbalance(maps: np.ndarray, max_period: int) -> dict[int, float]:
    """Period r to the share of the variance in 3r x 3r windows of maps `[n, h, w]` between their phases."""
    height, width = maps.shape[1:]
    result = {}
    for r in range(2, min(max_period, height // 4, width // 4) + 1):
        reach, side = r // 2, 3 * r
        weight = dict.fromkeys(range(-reach, reach + 1), 1 / r)
        if r % 2 == 0:
            weight[-reach] = weight[reach] = 1 / (2 * r)
        down, across = ((n - 2 * reach) // side for n in (height, width))
        top, left = ((n - 2 * reach) % side // 2 + reach for n in (height, width))
        between = total = 0.0
        for field, i, j in itertools.product(maps.astype(np.float64), range(down), range(across)):
            rows = range(top + i * side, top + (i + 1) * side)
            columns = range(left + j * side, left + (j + 1) * side)
            window = [field[y, x] for y in rows for x in columns]
            total += sum((value - sum(window) / side**2) ** 2 for value in window)
            blocks: dict[Pair, dict[Pair, float]] = {}
            for y, x in itertools.product(rows, columns):
                around = itertools.product(weight.items(), repeat=2)
                trend = sum(a * b * field[y + v, x + u] for (v, a), (u, b) in around)
                block = (y - rows[0]) // r, (x - columns[0]) // r
                blocks.setdefault(block, {})[y % r, x % r] = field[y, x] - trend
            for a, b in itertools.product(blocks, repeat=2):
                if a[0] != b[0] and a[1] != b[1]:  # 36 of the 81 pairs
                    one, other = blocks[a], blocks[b]
                    means = sum(one.values()) / r**2, sum(other.values()) / r**2
                    products = ((one[phase] - means[0]) * (other[phase] - means[1]) for phase in one)
                    between += sum(products) * 9 / 36
        result[r] = between / total
    return result


def erf_area(erf: np.ndarray, share: float, centre: tuple[float, float]) -> int:
    """Pixels of the first of the squares around a centre that holds a share of the sum."""
    even = centre[0] % 1 != 0
    for side in range(2 if even else 1, 2 * max(erf.shape) + 2, 2):
        low = [math.ceil(middle - side / 2) for middle in centre]
        inside = [
            erf[y, x]
            for y in range(max(0, low[0]), min(erf.shape[0], low[0] + side))
            for x in range(max(0, low[1]), min(erf.shape[1], low[1] + side))
        ]
        if sum(inside) >= share * erf.sum() * (1 - 1e-12):
            return len(inside)
    raise AssertionError("the largest square covers the map")


def linear_erf(kernels: Sequence[np.ndarray], rates: Sequence[int], size: Pair) -> np.ndarray:
    """sum over channels of |d y_centre / d x| of stacked SAME convolutions `[k, k, in, out]`: `[h, w]`."""
    total = np.zeros(size)
    for feature in range(kernels[-1].shape[3]):
        gradient = np.zeros((1, *size, kernels[-1].shape[3]))
        gradient[0, size[0] // 2, size[1] // 2, feature] = 1
        for kernel, rate in zip(reversed(kernels), reversed(rates), strict=True):
            blank = np.zeros((1, *size, kernel.shape[2]))
            gradient, _ = conv2d_gradients(blank, kernel, gradient, rate=(rate, rate))
        total += np.abs(gradient[0]).sum(axis=-1)
    return total


# --- models without waiting ---


def filled(make: Callable[[], Any], seed: int = 0, *, positive: bool = False) -> Any:
    """The NNX model that `make` returns, its parameters drawn by NumPy: nothing is compiled for it.

    Kernels are He-normal, biases small and random, the rest as a new model has it. With `positive` all of
    them are, so that no two paths cancel and every ReLU is open on positive images.
    """
    import jax
    import jax.numpy as jnp
    from flax import nnx

    rng = np.random.default_rng(seed)

    def value(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = str(path[-1].key)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(seed)
        if name in ("scale", "var"):
            return jnp.ones(leaf.shape, leaf.dtype)
        if name not in ("kernel", "bias"):
            return jnp.zeros(leaf.shape, leaf.dtype)
        spread = 0.1 if name == "bias" else math.sqrt(2 / math.prod(leaf.shape[:-1]))
        drawn = spread * rng.standard_normal(leaf.shape)
        return jnp.asarray(abs(drawn) + 0.1 * spread if positive else drawn, leaf.dtype)

    graph, state = nnx.split(nnx.eval_shape(make))
    pure = jax.tree_util.tree_map_with_path(value, nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, pure)
    return nnx.merge(graph, state)


# --- receptive fields ---

Shape = tuple[int, int, int]
Read = tuple[int, Pair, Sequence[int]]


def _conv_same(kernel: int, stride: int) -> int:
    """Pixels cut before a transposed SAME convolution's map; XLA gives the dilated map these many fewer."""
    before = kernel - 1 if stride > kernel - 1 else math.ceil((kernel + stride - 2) / 2)
    return kernel - 1 - before


def node_shape(op: str, args: dict[str, Any], shapes: Sequence[Shape]) -> Shape:
    """Height, width and channels of what an operation makes of maps of these shapes."""
    height, width, channels = shapes[0]
    match op:
        case "conv" | "pool":
            pad = pads(args["padding"], (height, width), args["kernel"], args["rate"], args["strides"])
            sides = [
                (n + sum(p) - (k - 1) * r - 1) // s + 1
                for n, p, k, r, s in zip(
                    shapes[0], pad, args["kernel"], args["rate"], args["strides"], strict=False
                )
            ]
            return sides[0], sides[1], args.get("features", channels)
        case "up_conv":
            k, s, same = args["kernel"], args["stride"], args["padding"] == "SAME"
            sides = [n * s + (0 if same else max(0, k - s)) for n in (height, width)]
            return sides[0], sides[1], args["features"]
        case "concat":
            return height, width, sum(shape[2] for shape in shapes)
        case "repeat":
            return height * args["by"], width * args["by"], channels
        case "nearest" | "bilinear":
            return *args["size"], channels
        case "pad":
            return height + sum(args["pads"][0]), width + sum(args["pads"][1]), channels
        case "slice":
            sides = [len(range(n)[cut]) for n, cut in zip((height, width), args["cuts"], strict=True)]
            return sides[0], sides[1], channels
        case "part":
            return height, width, args["stop"] - args["start"]
        case "to_depth":
            return height // 2, width // 2, channels * 4
        case "to_space":
            return height * 2, width * 2, channels // 4
        case "flat" | "average":
            return 1, 1, args["features"]
    return shapes[0]


def reads(op: str, args: dict[str, Any], shapes: Sequence[Shape], place: Pair, c: int) -> Iterator[Read]:
    """What entry `c` of an operation's output at `place` reads: operand, place, and channels to average."""
    height, width, channels = shapes[0]
    size = height, width
    along: list[list[int]] = []
    match op:
        case "conv" | "pool":
            group = args.get("groups", channels)
            ins, out = channels // group, args.get("features", channels) // group
            pad = pads(args["padding"], size, args["kernel"], args["rate"], args["strides"])
            for axis in (0, 1):
                first = place[axis] * args["strides"][axis] - pad[axis][0]
                along.append([first + a * args["rate"][axis] for a in range(args["kernel"][axis])])
            together = range(c // out * ins, (c // out + 1) * ins)
        case "up_conv":
            k, s, together = args["kernel"], args["stride"], range(channels)
            cut = _conv_same(k, s) if args["padding"] == "SAME" else 0
            for axis in (0, 1):
                spread = [place[axis] + cut - tap for tap in range(k)]
                along.append([p // s for p in spread if p % s == 0])
        case "add":
            yield from ((operand, place, [c]) for operand in range(len(shapes)))
            return
        case "concat":
            for operand, shape in enumerate(shapes):
                if 0 <= c < shape[2]:
                    yield operand, place, [c]
                c -= shape[2]
            return
        case "repeat":
            along, together = [[p // args["by"]] for p in place], [c]
        case "nearest":
            pixels = zip(place, size, args["size"], strict=True)
            along, together = [[(2 * p + 1) * n // (2 * m)] for p, n, m in pixels], [c]
        case "bilinear":
            for p, n, m in zip(place, size, args["size"], strict=True):
                # In units of 1 / (2 m): distance of the pixels' centres, and the reach of the triangle.
                away = [abs((2 * p + 1) * n - (2 * q + 1) * m) for q in range(n)]
                along.append([q for q in range(n) if away[q] < 2 * max(n, m)])
            together = [c]
        case "pad":
            along, together = [[p - before] for p, (before, _) in zip(place, args["pads"], strict=True)], [c]
        case "slice":
            starts = [(range(n)[cut].start, cut.step) for n, cut in zip(size, args["cuts"], strict=True)]
            along = [[start + p * by] for p, (start, by) in zip(place, starts, strict=True)]
            together = [c]
        case "part":
            along, together = [[p] for p in place], [c + args["start"]]
        case "shuffle":
            per = channels // args["groups"]
            along, together = [[p] for p in place], [c % args["groups"] * per + c // args["groups"]]
        case "to_depth":
            block, together = c // channels, [c % channels]
            along = [[2 * place[0] + block // 2], [2 * place[1] + block % 2]]
        case "to_space":
            together = [(place[0] % 2 * 2 + place[1] % 2) * (channels // 4) + c]
            along = [[p // 2] for p in place]
        case "flat" | "average":
            along, together = [[*range(n)] for n in size], range(channels)
        case _:
            along, together = [[p] for p in place], [c]
    yield from ((0, (i, j), together) for i, j in itertools.product(*along))


def paths(graph: Sequence[tuple[str, Sequence[int], dict]], shape: Shape, at: Pair, *, edges: bool) -> dict:
    """Input pixel to the number of paths from the last node's pixel `at`, averaged over its channels.

    Args:
        graph: operation, the nodes it reads (0 is the input, 1 the first operation) and its arguments.
        edges: whether maps end where they end; otherwise they go on for ever.
    """
    shapes = [shape]
    for op, sources, args in graph:
        shapes.append(node_shape(op, args, [shapes[source] for source in sources]))
    known: dict[tuple, dict[Pair, float]] = {}

    def count(node: int, place: Pair, c: int) -> dict[Pair, float]:
        if edges and not all(0 <= p < n for p, n in zip(place, shapes[node], strict=False)):
            return {}
        if node == 0:
            return {place: 1.0}
        op, sources, args = graph[node - 1]
        # All output channels of one group read the same.
        alike = c // (args["features"] // args["groups"]) if op == "conv" else c
        key = node, place, alike
        if key not in known:
            known[key] = total = {}
            given = [shapes[source] for source in sources]
            for operand, where, together in reads(op, args, given, place, c):
                for channel in together:
                    for pixel, paths in count(sources[operand], where, channel).items():
                        total[pixel] = total.get(pixel, 0.0) + paths / len(together)
        return known[key]

    total: dict[Pair, float] = {}
    for c in range(shapes[-1][2]):
        for pixel, paths in count(len(graph), at, c).items():
            total[pixel] = total.get(pixel, 0.0) + paths
    return total


def branched_counts(layers: Sequence[Sequence[int]], taps: int) -> dict[Pair, int]:
    """Offset to number of choices, in each layer, of a branch by its rate and of one of its 2-D taps.

    A tap's offset is counted from the branch's centre, the left one of two.
    """
    reached: dict[Pair, int] = {(0, 0): 1}
    for rates in layers:
        wider: dict[Pair, int] = {}
        for rate, (row, column) in itertools.product(rates, reached):
            steps = [rate * tap - rate * (taps - 1) // 2 for tap in range(taps)] if rate else [0]
            for down, right in itertools.product(steps, steps):
                place = row + down, column + right
                wider[place] = wider.get(place, 0) + reached[row, column]
        reached = wider
    return reached


# --- certificates ---


def path_counts_2d(heights: Sequence[int], widths: Sequence[int], taps: int) -> dict[Pair, int]:
    """Offset from the field's corner to the number of ways to choose one of K x K taps in every layer."""
    per_layer = [
        [(r * a, s * b) for a, b in itertools.product(range(taps), repeat=2)]
        for r, s in zip(heights, widths, strict=True)
    ]
    reached: dict[Pair, int] = {}
    for choice in itertools.product(*per_layer):
        place = sum(row for row, _ in choice), sum(column for _, column in choice)
        reached[place] = reached.get(place, 0) + 1
    return reached


def box(reached: dict[Any, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First and last coordinate, per axis, of what is reached."""
    along = list(zip(*reached, strict=True))
    return tuple(map(min, along)), tuple(map(max, along))


def first_hole_2d(reached: dict[Pair, int]) -> Pair | None:
    """The first pixel of the field that is not reached, row by row, counted from its corner."""
    low, high = box(reached)
    for row, column in itertools.product(range(low[0], high[0] + 1), range(low[1], high[1] + 1)):
        if (row, column) not in reached:
            return row - low[0], column - low[1]
    return None


def spread(reached: dict[Any, int], axis: int) -> float:
    """Standard deviation of a path's end along an axis."""
    total = sum(reached.values())
    mean = sum(place[axis] * count for place, count in reached.items()) / total
    return math.sqrt(sum((place[axis] - mean) ** 2 * count for place, count in reached.items()) / total)


def jaccard(reached: dict[Any, int], axis: int) -> float:
    """Of the pixels that two outputs read which are neighbours along an axis: shared over all."""
    here = set(reached)
    there = {(*place[:axis], place[axis] + 1, *place[axis + 1 :]) for place in reached}
    return len(here & there) / len(here | there)


def strongest(reached: dict[Any, int], axis: int, max_period: int) -> dict[float, float]:
    """|sum of p(x) e^(-2 pi i f x)| / sum of p along an axis, at every f = m/q up to 1/2, q <= max_period."""
    ripples = {}
    for q in range(2, max_period + 1):
        for m in range(1, q // 2 + 1):
            waves = (n * cmath.exp(-2j * math.pi * m * place[axis] / q) for place, n in reached.items())
            ripples[m / q] = abs(sum(waves)) / sum(reached.values())
    return ripples


def same_padding_share(rate: Pair, taps: int, size: Pair) -> float:
    """The share of all taps of all pixels that lie in SAME's padding, wherever SAME puts it."""
    (top, _), (left, _) = pads("SAME", size, (taps, taps), rate, (1, 1))
    outside = total = 0
    for row, column, a, b in itertools.product(*map(range, (*size, taps, taps))):
        total += 1
        outside += not (0 <= row + a * rate[0] - top < size[0] and 0 <= column + b * rate[1] - left < size[1])
    return outside / total


def taps_on_the_map(rate: int, taps: int, size: int, *, causal: bool) -> list[int]:
    """How many taps of each position of one axis lie on the map."""
    before = (taps - 1) * rate if causal else pads("SAME", (size, 1), (taps, 1), (rate, 1), (1, 1))[0][0]
    return [sum(0 <= place + tap * rate - before < size for tap in range(taps)) for place in range(size)]


# --- statistics ---


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided: twice the share of all sign assignments whose sum is at least as far to the seen side."""
    seen = sum(differences)
    sums = [sum(signs) for signs in itertools.product(*((d, -d) for d in differences))]
    rounding = 1e-12 * sum(abs(d) for d in differences)
    above = sum(s >= seen - rounding for s in sums) / len(sums)
    below = sum(s <= seen + rounding for s in sums) / len(sums)
    return min(1.0, 2 * min(above, below))


def holm(p: Sequence[float]) -> list[float]:
    """Each p by the definition: the largest of what its own and all smaller ones are multiplied to."""
    ordered = sorted(p)
    return [
        min(1.0, max((len(p) - i) * other for i, other in enumerate(ordered) if other <= value))
        for value in p
    ]


def detectable(deviation: float, n: int, alpha: float, power: float = 0.8) -> float:
    """The shift that a two-sided paired t test finds with `power`: quadrature over chi, and bisection."""
    scale = np.linspace(1e-6, 6, 20001)  # the estimated deviation over the true one
    density = scale ** (n - 2) * np.exp(-(n - 1) * scale**2 / 2)
    density /= density.sum()

    def above(critical: float, shift: float) -> float:
        tails = [0.5 * math.erfc((critical * s - shift) / math.sqrt(2)) for s in scale]
        return float(density @ np.array(tails))

    critical = _bisected(lambda value: alpha / 2 - above(value, 0.0), 0, 400)
    return _bisected(lambda shift: above(critical, shift) - power, 0, 4000) * deviation / math.sqrt(n)


def _bisected(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low


def bca(values: Sequence[float], means: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Efron's BCa interval of the mean from the `means` of resamples (Efron, Tibshirani 1993, 14.3)."""
    normal = NormalDist()
    mean, n = float(np.mean(values)), len(values)
    bias = normal.inv_cdf((np.mean(means < mean) + np.mean(means <= mean)) / 2)
    left_out = [float(np.mean([*values[:i], *values[i + 1 :]])) for i in range(n)]
    gaps = [float(np.mean(left_out)) - value for value in left_out]
    acceleration = sum(g**3 for g in gaps) / (6 * sum(g**2 for g in gaps) ** 1.5)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        moved = bias + normal.inv_cdf(tail)
        share = normal.cdf(bias + moved / (1 - acceleration * moved))
        ends.append(float(np.percentile(means, 100 * share)))
    return ends[0], ends[1]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Correlation of the ranks, ties at the mean of theirs, counted pair by pair."""
    ranks = [[sum(b < a for b in v) + sum(b == a for b in v) / 2 for a in v] for v in (x, y)]
    return float(np.corrcoef(ranks)[0, 1])


def partial_spearman(x: Sequence[float], y: Sequence[float], given: Sequence[float]) -> float:
    """The same, where both ranks have first lost their straight line over the ranks of `given`."""
    ranks = [[sum(b < a for b in v) + sum(b == a for b in v) / 2 for a in v] for v in (x, y, given)]
    rest = [np.subtract(one, np.polyval(np.polyfit(ranks[2], one, 1), ranks[2])) for one in ranks[:2]]
    return float(np.corrcoef(rest)[0, 1])


def omnibus_p(rows: Sequence[Sequence[float]]) -> float:
    """Of all ways to permute each seed's values among the rows, the share with sums that spread as far."""

    def spread(seeds: Sequence[Sequence[float]]) -> float:
        return float(np.var([sum(values) for values in zip(*seeds, strict=True)]))

    seeds = list(zip(*rows, strict=True))
    ways = list(itertools.product(*(itertools.permutations(values) for values in seeds)))
    return sum(spread(way) >= spread(seeds) * (1 - 1e-9) for way in ways) / len(ways)


def predicted_ripple(
    layers: list[tuple[int, int]],
    width: int = 16,
    channels: int = 3,
    residual: bool = False,
    max_period: int | None = None,
) -> tuple[float, float]:
    """Ripple in dB and its frequency, by the formula of `hdc.ripple`, one frequency after the other."""
    taps = []  # share of the energy by offset from the middle
    for number, (size, rate) in enumerate(layers):
        middle = (size - 1) * rate / 2
        shares = {tap * rate - middle: 1 / size for tap in range(size)}
        if residual and number:
            shares = {offset: share / 2 for offset, share in shares.items()}
            at = (size - 1) * rate // 2 - middle
            shares[at] = shares.get(at, 0) + 1 / 2
        taps.append(shares)

    def joined(parts):
        total = {0.0: 1.0}
        for part in parts:
            longer = {}
            for (one, a), (other, b) in itertools.product(total.items(), part.items()):
                longer[one + other] = longer.get(one + other, 0) + a * b
            total = longer
        return total

    def variance(paths):
        mean = sum(offset * share for offset, share in paths.items())
        return sum((offset - mean) ** 2 * share for offset, share in paths.items())

    def squared(values, frequency):
        return abs(sum(v * np.exp(2j * np.pi * frequency * offset) for offset, v in values.items())) ** 2

    paths, longest = joined(taps), max_period or max(16, *(rate for _, rate in layers))
    side = max(64, 4 * longest, 1 + sum((size - 1) * rate for size, rate in layers))
    window = {offset: 0.5 + 0.5 * math.cos(2 * math.pi * offset / side) for offset in paths}
    expected = {offset: math.sqrt(share) * window[offset] for offset, share in paths.items()}
    white = (math.pi / 2 - 1) / 5 * sum(share * window[offset] ** 2 for offset, share in paths.items())
    chances = []
    for number in range(1, len(taps)):
        before, after = variance(joined(taps[:number])), joined(taps[number:])
        if before:
            v = before / variance(paths)
            chances.append((sum(b * b for b in after.values()) / (2 * v - v * v) / 2, after))

    def power(frequency: float) -> float:
        chance = sum(strength * squared(after, frequency) for strength, after in chances) + white
        return squared(expected, frequency) + chance / (width * channels)

    found = []
    for period in range(2, longest + 1):
        for m in range(1, period // 2 + 1):
            if math.gcd(m, period) == 1:
                valleys = (power((m - 0.5) / period) + power((m + 0.5) / period)) / 2
                found.append((10 * math.log10(power(m / period) / valleys), m / period))
    return max(found)

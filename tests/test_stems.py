"""Schedules with a stem and with parallel branches: against all paths one by one, and against a model."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from hdc import analyse, search
from hdc.errors import InputError
from hdc.fields import Branches, Stack, Stemmed, parse, parse_stem
from hdc.lab.commands.main import main
from hdc.ripple import predict
from hdc.schedules import parse_branches

LAYERS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), min_size=1, max_size=3)
STEMS = st.lists(
    st.integers(1, 4).flatmap(lambda taps: st.tuples(st.just(taps), st.integers(1, taps))), max_size=2
)


def every_path(layers, taps, stem) -> Counter:
    """How many paths lead to each offset along one axis, from the offset of the first one."""
    steps, apart = [], 1
    for k, stride in stem:
        steps.append([(k, apart)])
        apart *= stride
    steps += [[(taps, rate * apart) if rate else (1, 0) for rate in layer] for layer in layers]
    widest = [max((k - 1) * step for k, step in layer) for layer in steps]
    found: Counter = Counter()
    for chosen in itertools.product(*steps):
        # Odd kernels, whose branches have the same middle.
        low = sum((most - (k - 1) * step) // 2 for most, (k, step) in zip(widest, chosen, strict=True))
        for path in itertools.product(*(range(k) for k, _ in chosen)):
            found[low + sum(tap * step for tap, (_, step) in zip(path, chosen, strict=True))] += 1
    return found


@settings(deadline=None, max_examples=60)
@given(LAYERS, st.sampled_from([3, 5]), STEMS)
def test_every_path_of_branches_after_a_stem_is_counted(layers, taps, stem) -> None:
    field = Stemmed.of(Branches(tuple(map(tuple, layers)), kernel_size=taps, axes=1), stem)
    paths = every_path(layers, taps, stem)
    counts = np.zeros(max(paths) - min(paths) + 1)
    for offset, count in paths.items():
        counts[offset - min(paths)] = count
    np.testing.assert_allclose(field.along(0), counts / counts.sum(), rtol=1e-9)
    assert field.gap_free == bool((counts > 0).all())
    assert field.receptive_field == (len(counts),)
    holes = np.flatnonzero(counts == 0)
    assert field.first_hole == ((int(holes[0]),) if len(holes) else None)
    shift = field.spacing
    both = {i for i, count in enumerate(counts) if count}
    beside = {i + shift for i in both}
    assert field.neighbour_overlap[0] == pytest.approx(len(both & beside) / len(both | beside))


@pytest.mark.parametrize(
    ("text", "stem"), [("2,2", "7/2,3/2"), ("1,3", "3"), ("1,[0,2,5]", "3/2"), ("[[1,2],3]", "5/2,2/2")]
)
def test_a_model_of_these_layers_sees_the_same(text, stem) -> None:
    field = Stemmed.of(parse(text), parse_stem(stem))
    rngs = nnx.Rngs(0)
    first = [nnx.Conv(1, 1, (k, k), strides=s, rngs=rngs) for k, s in parse_stem(stem)]
    branches = parse_branches(text) or [(rate,) for rate in field.rates]

    class Parallel(nnx.Module):
        def __init__(self, rates):
            sizes = [(3, rate) if rate else (1, 1) for rate in rates]
            self.convs = nnx.List(
                nnx.Conv(1, 1, (k, k), kernel_dilation=rate, rngs=rngs) for k, rate in sizes
            )

        def __call__(self, x):
            return sum(conv(x) for conv in self.convs)

    seen = analyse(nnx.Sequential(*first, *map(Parallel, branches)), (1, 96, 96, 1))
    np.testing.assert_allclose(seen.path_counts, field.paths.counts, rtol=1e-5, atol=1e-9)
    assert seen.gridding.index == pytest.approx(field.gridding.index, abs=1e-6)
    assert seen.output_stride == (field.spacing,) * 2


def test_the_texts_of_branches() -> None:
    for text in ("1,[0,6,12]", "[1,[0,6,12]]", " 1, [0, 6,12] ", "1,(0|6|12)"):
        assert parse(text) == Branches(((1,), (0, 6, 12))), text
    assert parse("[[0,6]]") == Branches(((0, 6),))
    assert parse(parse("1,[0,6],[2,3]").name).rates == [[1], [0, 6], [2, 3]]
    for text in ("1,2,5", "[1,2,5]", "1x2,2x2", "1-2-5x2"):
        assert isinstance(parse(text), Stack), text


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=6).filter(
        lambda layers: max(map(len, layers)) > 1
    )
    | st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=6)
)
def test_what_is_printed_is_read_again(layers) -> None:
    typed = ",".join(f"{one[0]}x{one[1]}" if isinstance(one, tuple) else f"[{one}]"[1:-1] for one in layers)
    field = parse(typed if typed.count("[") != 1 or len(layers) > 1 else f"[{typed}]")
    assert field.rates == [list(one) for one in layers] or field.same_axes
    assert parse(field.rates_text).rates == field.rates


def test_repeats_are_written_out() -> None:
    assert parse("2 x (1,2,5)").rates == [1, 2, 5] * 2
    assert parse("1,3 x (0|6),2").rates == [[1], [0, 6], [0, 6], [0, 6], [2]]
    assert parse(Stack.parse("1-2-5x2").rates_text).rates == [1, 2, 5] * 2


def test_a_1x1_convolution_alone_sees_one_pixel(capsys) -> None:
    assert main(["check", "[[0]]"]) == 0
    assert "receptive field    1 px per axis" in capsys.readouterr().out


def test_a_shortcut_is_a_branch_for_which_no_ripple_is_predicted() -> None:
    assert parse("[[3]]").predicted_ripple() == parse("3").predicted_ripple()
    for text in ("[[0,3]]", "(0|3)"):
        assert parse(text).predicted_ripple() is None and parse(text).lattice_share is None


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["[0,6,12]"], "write [[0,6,12]]"),
        (["9999 x 1"], "'9999 x 1' at position 1"),
        (["1,[0,6x2]"], "'[0,6x2]' at position 2"),
        (["1,[2"], "'[2' at position 2"),
        (["1,[]"], "'[]' at position 2"),
        (["1,[5000]"], "from 0 to 4096"),
        (["[[4096,1]]"], "8193 px wide"),
        (["1,2]"], "'2]' at position 2"),
        (["2,2", "--stem", "2/3"], "got 2/3"),
        (["2,2", "--stem", "0"], "got 0/1"),
        (["2,2", "--stem", "3,a"], "'a' is not taps"),
        (["2,2", "--stem", "3/2/1"], "'3/2/1' is not taps"),
        (["2,2", "--stem", "3", "--no-stem"], "--stem and --no-stem"),
        (["2,2", "--stem", "9999,9999"], "pixels, a map has at most"),
        (["--named", "--stem", "3"], "got --stem"),
    ],
)
def test_one_line_says_what_is_wrong(argv, said, capsys) -> None:
    assert main(["check", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_check_counts_a_stem_and_branches(capsys) -> None:
    assert main(["check", "1,[0,6,12,18]", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["rates"] == [[1], [0, 6, 12, 18]]
    assert main(["check", "2,2,2", "--stem", "7/2,3/2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["stem"], values["receptive_field"], values["ripple"]) == ([[7, 2], [3, 2]], 59, None)
    assert main(["check", "2,2,2", "--stem", "3", "--size", "20"]) == 0
    text = capsys.readouterr().out
    assert "better schedule: layer 1 to layer 3: rates 3,2,1" in text
    assert "dB when trained, after the stem" in text
    assert main(["check", "[[0,6,12]]", "--axes", "1"]) == 1
    assert "first hole         offset 1," in capsys.readouterr().out
    assert main(["check", "1,[0,6]", "2,2", "--stem", "3/2"]) == 1


def test_the_findings_of_a_stem_name_it() -> None:
    from hdc import advice

    field = Stemmed.of(Stack.parse("3"), [(5, 2), (2, 2)])
    (finding,) = (one for one in advice.for_schedule(field) if one.rule == "holes")
    assert not field.gap_free
    assert "lower the rate of layer 1 to at most 1" in finding.fix


def test_branches_out_of_range() -> None:
    for wrong in ((), ((),), ((-1,),)):
        with pytest.raises(InputError):
            Branches(wrong)
    with pytest.raises(InputError, match="kernel_size"):
        Branches(((1, 2),), kernel_size=1)


# --- search ---


def gap_free_sets(layers: int, taps: int, stem, field: int) -> set[tuple[int, ...]]:
    """All ascending rates of that field whose path counts after the stem have no hole."""
    spacing = int(np.prod([stride for _, stride in stem], dtype=int))
    found = set()
    for rates in itertools.combinations_with_replacement(range(1, field), layers):
        if 1 + (taps - 1) * spacing * sum(rates) > field:
            continue
        paths = every_path([[rate] for rate in rates], taps, stem)
        if max(paths) + 1 == field and len(paths) == field:
            found.add(rates)
    return found


@pytest.mark.parametrize(
    ("layers", "taps", "stem"),
    [(2, 3, [(3, 1)]), (3, 3, [(5, 1)]), (2, 2, [(4, 2)]), (2, 3, [(3, 2), (2, 2)]), (3, 3, [(2, 2)])],
)
def test_the_search_after_a_stem_finds_all_that_have_no_hole(layers, taps, stem) -> None:
    target = search.Target(layers, taps, stem=tuple(stem))
    step = (taps - 1) * target.spacing
    possible = 0
    for field in range(target.pixels(layers), target.pixels(layers) + 8 * step, step):
        known = gap_free_sets(layers, taps, stem, field)
        possible += len(known)
        if not known:
            with pytest.raises(InputError, match=f"field {field} is not possible"):
                search(layers, field, kernel_size=taps, stem=stem, top=1000)
            continue
        result = search(layers, field, kernel_size=taps, stem=stem, top=1000)
        assert {tuple(sorted(found.rates)) for found in result.found} == known
        assert result.examined == len(known) == search.count(result.target).number
        for found in result.found:
            whole = Stemmed.of(Stack.parse(",".join(map(str, found.rates)), taps, 1), stem)
            assert (found.receptive_field, whole.gap_free) == (field, True)
            assert found.gridding == pytest.approx(whole.gridding.index)
            assert found.effective_width == pytest.approx(whole.effective_width[0])
            first = [stem[0]] if stem[0][1] == 1 else []
            expected = predict([*first, *((taps, rate) for rate in found.rates)]).db
            assert found.ripple == pytest.approx(expected, abs=1e-3)
    assert possible
    per_field = search(layers, kernel_size=taps, stem=stem, max_rate=3)
    for found in per_field.found:
        (alone,) = search(layers, found.receptive_field, kernel_size=taps, stem=stem, max_rate=3, top=1).found
        assert alone == found


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--field", "60", "--stem", "7/2,3/2"], "field - 11 must be a multiple of (kernel size - 1) x out"),
        (["--field", "16", "--stem", "3"], "field - 3 must be a multiple of kernel size - 1 = 2"),
        (["--field", "999", "--stem", "3"], "after a stem of 3 px is 81; "),
        (["--field", "5", "--stem", "3"], "3 layers with kernel size 3 after a stem of 3 px is 9"),
        (["--field", "15", "--stem", "3", "--no-stem"], "exclude one another"),
        (["--field", "15", "--stem", "5", "--sweep"], "leave out --stem 5"),
        (["--field", "15", "--stem", "2/3"], "got 2/3"),
        (["--field", "15", "--stem", "x"], "'x' is not taps"),
    ],
)
def test_one_line_says_what_is_wrong_with_a_search(argv, said, capsys) -> None:
    assert main(["search", "--layers", "3", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_search_prints_the_stem(capsys) -> None:
    assert main(["search", "--layers", "3", "--field", "59", "--stem", "7/2,3/2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["target"]["stem"] == [[7, 2], [3, 2]]
    assert [2, 2, 2] in [sorted(found["rates"]) for found in values["found"]]
    assert main(["search", "--layers", "3", "--field", "59", "--stem", "7/2,3/2"]) == 0
    assert "The stem's 11 px count in the field. Ripples in dB, of the rates alone" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["search", "--layers", "3", "--field", "15", "--stem", "3", "--sweep"]) == 0
    assert "'schedule.rates=" in capsys.readouterr().out

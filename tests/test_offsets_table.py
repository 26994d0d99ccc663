"""The matrix of offsets beside the certificate, on records whose agreement is known."""

import dataclasses
import math

import pytest
import reference
import synthetic

from hdc.errors import InputError
from hdc.lab import records
from hdc.lab.config import from_dict
from hdc.lab.report import figures
from hdc.lab.report.figures import FigureConfig
from hdc.lab.report.tables import offsets_table, rendering

SEEN, HOLE = 0.998, 0.503


def seen_offsets(rates: list[int], taps: int = 3) -> set[int]:
    """Offsets that the stem and these layers reach."""
    reach = {0}
    for rate, size in [(1, 3), *((rate, taps) for rate in rates)]:
        reach = {place + rate * step for place in reach for step in range(-(size // 2), size // 2 + 1)}
    return reach


def study(folder, schedules, offsets, accuracies, **net):
    configs = [
        from_dict(
            {
                "schedule": {"rates": rates, "repeat": 1},
                "data": {"name": "offsets", "offset": offset, "tile": max(32, max(offsets) + 1)},
                "net": net,
                "seeds": [0, 1],
            }
        )
        for rates in schedules
        for offset in offsets
    ]
    runs = records.plan(folder / "offsets", configs)
    for run in runs:
        rates, offset = list(run.config.schedule.rates), run.config.data.offset
        taps = run.config.net.kernel_size
        writer = run.start({"network": synthetic.seen(seen_offsets(rates, taps)), "data": {"task": "dense"}})
        for seed, accuracy in enumerate(accuracies(rates, offset)):
            writer.log(seed=seed, step=1, epoch=1, split="test", metrics={"accuracy": accuracy})
        writer.done()
        writer.close()
    return runs


@pytest.mark.parametrize("taps", [3, 5])
def test_what_can_be_reached_is_counted_path_by_path(tmp_path, taps):
    schedules, offsets = [[4, 4], [1, 2, 5], [6, 6, 6]], range(0, 45)
    runs = study(tmp_path, schedules, offsets, lambda *_: [0.5, 0.5], kernel_size=taps)
    cells = offsets_table.cells(runs)
    assert len(cells) == len(schedules) * len(offsets)
    for cell, run in zip(cells, runs, strict=True):
        assert cell.reachable == (cell.offset in seen_offsets(list(run.config.schedule.rates), taps))
    assert reference.path_counts([1, 4, 4], 3)[9 + 2] == 0  # offset 2 of 4-4 behind the stem is a hole
    assert {cell.reachable for cell in cells} == {True, False}


def agreeing(rates, offset):
    return [SEEN, 0.992] if offset in seen_offsets(rates) else [HOLE, 0.485]


def test_a_matrix_that_agrees_says_so_in_every_format(tmp_path):
    found = offsets_table.document("offsets", study(tmp_path, [[4, 4], [1, 2]], [1, 2, 3, 9], agreeing))
    (section,) = found.sections
    assert section.head == ("schedule", "1", "2", "3", "9")
    assert section.body == (
        ("4-4", "✓", "·", "✓", "✓"),
        ("1-2", "✓", "✓", "✓", "·"),
    )
    assert found.notes[0] == "agrees in 8 of 8 cells with what the built network can see"
    assert found.frame["agrees"].all()
    assert found.frame["judged"].to_list()[:2] == [0.992, 0.485]
    assert "·" in rendering.to_text(found, "markdown")
    assert r"1-2 & $\checkmark$ & $\checkmark$ & $\checkmark$ & $\cdot$ \\" in rendering.to_text(
        found, "latex"
    )


@pytest.mark.parametrize(
    ("offset", "accuracies", "agrees"),
    [
        (1, [0.9901, 1.0], True),
        (1, [0.99, 1.0], False),  # one seed did not learn it
        (1, [math.nan, 1.0], False),
        (2, [0.519, 0.481], True),
        (2, [0.521, 0.5], False),
        (2, [0.5, 0.479], False),  # worse than chance is not chance
        (2, [1.0, 1.0], False),
        (2, [0.5, math.nan], False),
    ],
)
def test_every_seed_is_judged_by_the_fixed_rule(tmp_path, offset, accuracies, agrees):
    runs = study(tmp_path, [[4, 4]], [offset], lambda *_: accuracies)
    (cell,) = offsets_table.cells(runs)
    assert cell.agrees is agrees
    found = offsets_table.document("offsets", runs)
    assert found.sections[0].body[0][1].startswith("✗") is not agrees
    assert found.notes[0].startswith(f"agrees in {int(agrees)} of 1 cells")


def test_what_has_not_run_is_a_dash_and_other_networks_are_refused(tmp_path):
    runs = study(tmp_path, [[4, 4]], [1], agreeing)
    (more,) = records.plan(
        tmp_path / "offsets",
        [
            from_dict(
                {
                    "schedule": {"rates": [4, 4], "repeat": 1},
                    "data": {"name": "offsets", "offset": 2},
                    "seeds": [0, 1],
                }
            )
        ],
    )
    found = offsets_table.document("offsets", [*runs, more])
    assert found.sections[0].body == (("4-4", "✓", "–"),)
    assert found.notes[0].startswith("agrees in 1 of 1 cells")
    assert found.notes[-1] == "– 1 of 2 cells have no finished run"
    with pytest.raises(InputError, match="needs runs on data=offsets or data=copy_memory, got data=terrain"):
        offsets_table.cells(records.plan(tmp_path / "other", [from_dict({"data": {"name": "terrain"}})]))


def test_copy_memory_is_judged_by_what_lies_a_pause_and_ten_steps_before(tmp_path):
    """13 and 14 steps before, chance one of eight; 12.5 % is farther from 50 % than the rule allows."""
    pauses, accuracies = (3, 4), ([1.0, 0.995], [0.125, 0.144])
    configs = [
        from_dict({"data": {"name": "copy_memory", "steps": steps}, "net": {"name": "tcn"}, "seeds": [0, 1]})
        for steps in pauses
    ]
    runs = records.plan(tmp_path / "copy_memory", configs)
    for run, values in zip(runs, accuracies, strict=True):
        measured = dict(enumerate(values))
        seen = synthetic.seen({-13, -3, 0, 14})
        synthetic.measured(run, lambda seed, m=measured: {"accuracy": m[seed]}, network=seen)
    found = offsets_table.document("copy_memory", runs)
    assert found.sections[0].head == ("schedule", "3", "4")
    assert found.sections[0].body == (("1-2-5x2", "✓", "·"),)
    assert found.sections[0].title == "copy_memory: what is learnt at each pause, in steps"
    assert found.frame["offset"].to_list() == [-13, -14]
    assert any("within 2 points of 12.5%" in note for note in found.notes)
    assert [cell.agrees for cell in offsets_table.cells(runs)] == [True, True]
    assert not dataclasses.replace(offsets_table.cells(runs)[1], accuracies=(0.125, 0.146)).agrees
    figure = figures.offsets(FigureConfig(study="copy_memory"), runs)
    assert figure.axes[0].images[0].get_clim() == (12.5, 100)
    assert "Chance is 12.5 %" in figure.get_suptitle() and "agree in 2 of 2 cells" in figure.get_suptitle()


def test_a_record_without_what_its_network_sees_is_not_judged_and_the_command_is_named(tmp_path):
    runs = study(tmp_path, [[4, 4]], [1, 2], agreeing)
    path = runs[0].folder / "run.json"
    synthetic.rewrite(path, network={"parameters": 7154})
    found = offsets_table.document("offsets", records.load("offsets", tmp_path))
    assert found.sections[0].body == (("4-4", "–", "·"),)
    assert found.notes[0].startswith("agrees in 1 of 1 cells")
    assert any("'hdc runs offsets --analyse' adds" in note for note in found.notes)
    assert found.frame["agrees"].to_list() == [None, True]

"""The table of the arrays' benchmark: means of equal layers, speed-ups, and what a roofline allows."""

from benchmarks.aie_array import GOALS, told
from benchmarks.aie_convolutions import LayerRow, layers_table, limits, measured

DENSE = (
    LayerRow("a", 1000, 40, ("shim out", 20)),
    LayerRow("a", 1000, 60, ("shim out", 30)),
    LayerRow("b", 2000, 50, ("products", 50)),
)
HALF = (
    LayerRow("a", 1000, 40, ("shim out", 20)),
    LayerRow("a", 1000, 40, ("shim in", 28)),
    LayerRow("b", 2000, 25, ("products", 25)),
)
BOTH = ((1.0, DENSE), (0.5, HALF))


def test_equal_layers_are_one_line_with_their_means() -> None:
    a, b, every = measured(1.0, DENSE, DENSE, peak=40)
    assert (a.layer, a.times, a.macs, a.cycles, a.bound) == ("a", 2, 1000, 50, ("shim out", 25))
    assert a.peak_share == 0.5 and b.peak_share == 1.0
    assert (every.times, every.macs, every.cycles, every.bound[1]) == (1, 4000, 150, 100)


def test_speed_ups_are_over_the_dense_network_and_bounded_by_its_roofline() -> None:
    a, b, every = measured(0.5, HALF, DENSE, peak=40)
    assert (a.speed_up, a.at_most) == (1.25, 50 / 24)
    assert (b.speed_up, b.at_most) == (2.0, 2.0)
    assert (every.speed_up, every.at_most) == (150 / 105, 150 / 73)


def test_without_a_dense_run_there_are_no_speed_ups() -> None:
    assert all(m.speed_up is None and m.at_most is None for m in measured(0.5, HALF, (), peak=40))


def test_goals_are_met_or_missed_by_what_was_measured() -> None:
    dense, half = (measured(density, found, DENSE, peak=40)[-1] for density, found in BOTH)
    assert told(dense, GOALS[1.0]).endswith("66.7 % of peak, at least 100; goal 50 % of peak: met")
    assert told(half, GOALS[0.5]).endswith("1.43 times dense (at most 2.05), at least 73; goal 1.6 times dense: missed")


def test_layers_for_which_a_goal_is_forbidden_are_told_from_the_others() -> None:
    half = measured(0.5, HALF, DENSE, peak=40)
    assert limits(half, 2.05) == (
        "2.05 times dense is forbidden by their busiest resource for 1 of 3 layers (products 1), which are 2.00 times dense; "
        "the other 2 are 1.25 times dense"
    )
    assert limits(half, 1.6) == (
        "1.6 times dense is forbidden by their busiest resource for 0 of 3 layers; the other 3 are 1.43 times dense"
    )
    assert limits(half, 9) == (
        "9 times dense is forbidden by their busiest resource for 3 of 3 layers (shim out 2, products 1), "
        "which are 1.43 times dense"
    )
    assert limits(measured(0.5, HALF, (), peak=40), 1.6) == ""


def test_even_rows_of_blocks_are_told_from_random_blocks() -> None:
    half = measured(0.5, HALF, DENSE, peak=40, even=True)
    assert told(half[-1], GOALS[0.5]).startswith("all convolutions, 50 % of blocks, even rows: 105 cycles")
    assert "cycles, 50 % even" in layers_table([half]).splitlines()[0]


def test_the_table_has_the_densities_beside_one_another() -> None:
    lines = layers_table([measured(density, found, DENSE, peak=40) for density, found in BOTH]).splitlines()
    assert lines[0].split("  ")[0] == "layer" and len(lines) == 4
    assert lines[1].split() == ["a", "2", "0.0", "50", "50", "%", "25", "shim", "out", "40", "1.25", "2.08", "24", "shim", "out"]

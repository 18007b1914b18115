"""Timing in turns: everyone runs, in a rotating order, and both clocks are read."""

import time

from sparsec.compiler.measure import Timing, machine_line, take_turns


def test_contestants_take_turns() -> None:
    order: list[str] = []
    rounds: list[int] = []
    found = take_turns(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")},
        rounds=3,
        seconds=1e-9,
        tick=lambda: rounds.append(len(order)),
    )
    assert "".join(order) == "aabb" + "aaabbb" + "bbbaaa" + "aaabbb"
    assert rounds == [10, 16, 22]
    assert {name: (len(t.cpu), len(t.wall)) for name, t in found.items()} == {"a": (6, 6), "b": (6, 6)}


def test_contestants_elsewhere_take_whole_turns_in_the_same_order() -> None:
    order: list[str] = []

    def there(seconds: float) -> Timing:
        order.append(f"({seconds})")
        return Timing((1.0, 2.0, 4.0), (5.0, 6.0, 7.0))

    found = take_turns({"a": lambda: order.append("a")}, elsewhere={"b": there}, rounds=2, seconds=1e-9)
    assert "".join(order) == "aa" + "aaa(1e-09)" + "(1e-09)aaa"
    assert found["b"].cpu == (1.0, 2.0, 4.0) * 2 and (found["b"].cpu_median, found["b"].wall_median) == (2.0, 6.0)


def test_sleep_takes_wall_time_and_no_cpu_time() -> None:
    timing = take_turns({"sleep": lambda: time.sleep(0.01)}, rounds=2, seconds=0.001)["sleep"]
    assert timing.wall_median >= 0.01 > timing.cpu_median


def test_the_machine_is_told_in_one_line() -> None:
    line = machine_line()
    assert "core(s) usable" in line and "\n" not in line

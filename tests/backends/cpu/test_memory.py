"""The memory plan: buffers that live together never overlap, and the peak is between the bound and the sum."""

from hypothesis import given
from hypothesis import strategies as st

from sparsec.backends.cpu.memory import lower_bound, plan_memory
from sparsec.backends.cpu.program import ALIGN, ArenaBuffer


@st.composite
def buffers(draw: st.DrawFn) -> list[ArenaBuffer]:
    found = []
    for i in range(draw(st.integers(0, 24))):
        first = draw(st.integers(0, 20))
        found.append(ArenaBuffer(f"b{i}", draw(st.integers(1, 5000)), first, first + draw(st.integers(0, 8))))
    return found


@given(buffers())
def test_live_buffers_are_disjoint(found: list[ArenaBuffer]) -> None:
    plan = plan_memory(found)
    ends = {b.name: plan.offsets[b.name] + b.nbytes for b in found}
    for i, a in enumerate(found):
        assert plan.offsets[a.name] % ALIGN == 0
        assert ends[a.name] <= plan.peak
        for b in found[i + 1 :]:
            together = a.first <= b.last and b.first <= a.last
            apart = ends[a.name] <= plan.offsets[b.name] or ends[b.name] <= plan.offsets[a.name]
            assert apart or not together


@given(buffers())
def test_peak_is_bounded(found: list[ArenaBuffer]) -> None:
    plan = plan_memory(found)
    assert plan.lower_bound == lower_bound(found) <= plan.peak
    assert plan.peak <= sum(-(-b.nbytes // ALIGN) * ALIGN for b in found)


def test_a_chain_needs_two_buffers() -> None:
    chain = [ArenaBuffer(f"v{i}", 1000, i, i + 1) for i in range(10)]
    assert plan_memory(chain).peak == 2048

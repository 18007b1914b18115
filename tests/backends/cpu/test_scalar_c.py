"""Scalar programs as C against numpy: every function, every element type that it has, special values, every instruction set."""

import numpy as np
import pytest

from sparsec.backends.cpu.isa import host_isa
from sparsec.backends.cpu.prelude import prelude
from sparsec.backends.cpu.scalar_c import emit_scalar, emit_vec, load_expression, store_expression, value_ctype
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.scalar import FUNCTIONS, Arg, Imm, Program, Step, Tmp
from tests.backends.cpu.native import CFLAGS, SANITIZE, Call, run_calls, runnable_isas

SPECIAL = np.array(
    [
        0.0,
        -0.0,
        1,
        -1,
        0.5,
        -0.5,
        2,
        -3,
        1e-30,
        -1e-30,
        1e-40,
        -1e-40,
        88.5,
        -87.2,
        -100,
        104,
        1e30,
        -1e30,
        np.inf,
        -np.inf,
        np.nan,
    ],
    np.float32,
)
LOGIC = {"and", "or", "xor", "not"}
INTEGER_ONLY = {"bitand", "bitor", "bitxor", "bitnot", "shl", "shr"}


def floats(seed: int, arity: int) -> list[np.ndarray]:
    """Special values in every combination, then numbers of every magnitude; a multiple of 16 of them."""
    rng = np.random.default_rng(seed)
    grid = [g.ravel() for g in np.meshgrid(*[SPECIAL] * min(arity, 2))]
    grid += [np.resize(SPECIAL[::-1], grid[0].size)] * (arity - len(grid))
    n = 4096 - grid[0].size
    parts = [rng.uniform(-1, 1, n // 2) * np.exp(rng.uniform(-8, 4.4, n // 2)), rng.uniform(-6, 6, n - n // 2)]
    return [np.concatenate([g, rng.permutation(np.concatenate(parts))]).astype(np.float32) for g in grid]


def program(fn: str) -> Program:
    return Program((Step(fn, tuple(Arg(i) for i in range(FUNCTIONS[fn].arity))),))


def vec_call(p: Program, args: list[np.ndarray], bools: tuple[int, ...] = ()) -> Call:
    """A loop over vectors; bool arguments and results pass as float32 zeros and ones."""
    dtypes = [DType.BOOL if i in bools else DType.F32 for i in range(len(args))]
    e = emit_vec(p, [f"a{i}" for i in range(len(args))], dtypes)
    lines = ["for (int i = 0; i < 4096; i += VL) {"]
    for i in range(len(args)):
        load = f"v_load((const float *)b[{i}] + i)"
        lines.append(f"vmask a{i} = v_ne({load}, v_zero());" if i in bools else f"vec a{i} = {load};")
        lines.append(f"(void)a{i};")
    result = f"v_select({e.result}, v_set1(1.0f), v_zero())" if e.dtype is DType.BOOL else e.result
    lines += [*e.statements, f"v_store((float *)b[{len(args)}] + i, {result});", "}"]
    return Call("\n".join(lines), (*[a.astype(np.float32) for a in args], np.zeros(4096, np.float32)))


VEC_FUNCTIONS = sorted(set(FUNCTIONS) - LOGIC - INTEGER_ONLY - {"cast", "where"})
POWERS = [Program((Step("pow", (Arg(0), Imm(e))),)) for e in (2.0, 3.0, 0.5, -1.0, 1.0, 1.7)]
CLIPS = [Program((Step("max", (Arg(0), Imm(-0.5))), Step("min", (Imm(0.75), Tmp(0)))))]
WHERE = [Program((Step("gt", (Arg(0), Imm(0.25))), Step("where", (Tmp(0), Arg(0), Arg(1)))))]
CASTS = [Program((Step("lt", (Arg(0), Arg(1))), Step("cast", (Tmp(0),), DType.F32), Step("cast", (Tmp(1),), DType.BOOL)))]


@pytest.mark.parametrize("isa", runnable_isas())
def test_vectors_agree_with_numpy(isa):
    """Within 3e-7 of float64 (relative; for sums that cancel, to the size of the operands), and exactly on inf and NaN."""
    programs = [program(fn) for fn in VEC_FUNCTIONS] + POWERS + CLIPS + WHERE + CASTS
    inputs = [floats(i, p.n_args) for i, p in enumerate(programs)]
    results = run_calls(isa, prelude(isa), [vec_call(p, a) for p, a in zip(programs, inputs, strict=True)])
    for p, args, buffers in zip(programs, inputs, results, strict=True):
        with np.errstate(all="ignore"):
            wide = p.evaluate([a.astype(np.float64) for a in args]).astype(np.float32)
            narrow = p.evaluate(args).astype(np.float32)
        got = buffers[-1]
        # float32's own overflow and cancellation are as right as float64's: each element may match either
        with np.errstate(all="ignore"):
            size = {"gelu": 1 + np.abs(args[0]), "softplus": 1 + np.abs(args[0])}.get(p.steps[0].fn, np.float32(0))
            if p.steps[0].fn.startswith("hard"):
                size = 1 + np.abs(args[0] * args[min(1, len(args) - 1)]) + np.abs(args[-1])
            close = [np.abs(got - want) <= 3e-7 * np.maximum(np.abs(want), size) + 1e-38 for want in (wide, narrow)]
        same = [(got == want) | (np.isnan(got) & np.isnan(want)) for want in (wide, narrow)]
        bad = ~(close[0] | close[1] | same[0] | same[1])
        assert not bad.any(), f"{p}: {[a[bad][:4] for a in args]} gave {got[bad][:4]}, not {wide[bad][:4]}"


@pytest.mark.parametrize("isa", runnable_isas())
def test_masks_are_logic(isa):
    rng = np.random.default_rng(5)
    programs = [program(fn) for fn in (*sorted(LOGIC), "eq", "bitand", "bitor", "bitxor", "bitnot", "where", "identity")]
    inputs = [[rng.integers(0, 2, 4096).astype(np.bool_) for _ in range(p.n_args)] for p in programs]
    inputs[-1] = [np.ones(4096, np.bool_)]
    calls = [vec_call(p, a, tuple(range(len(a)))) for p, a in zip(programs, inputs, strict=True)]
    for p, args, buffers in zip(programs, inputs, run_calls(isa, prelude(isa), calls), strict=True):
        assert np.array_equal(buffers[-1] != 0, p.evaluate(args)), str(p)


@pytest.mark.parametrize("isa", runnable_isas())
def test_parts_and_reductions(isa):
    lanes = isa.lanes
    x = np.random.default_rng(1).normal(size=lanes).astype(np.float32)
    calls = [
        Call(f"v_store_part(b[1], v_load_part(b[0], {n}), {n});", (x[:n], np.zeros(n, np.float32))) for n in range(lanes + 1)
    ]
    horizontal = "float *y = b[1]; vec a = v_load(b[0]); y[0] = v_hsum(a); y[1] = v_hmax(a); y[2] = v_hmin(a);"
    calls.append(Call(horizontal, (x, np.zeros(3, np.float32))))
    calls.append(Call(f"v_store(b[1], v_load_part(b[0], {lanes // 2}));", (x[: lanes // 2], np.ones(lanes, np.float32))))
    *parts, (_, reduced), (_, padded) = run_calls(
        isa, prelude(isa), calls, CFLAGS if isa.arch == "aarch64" else (*CFLAGS, *SANITIZE)
    )
    for n, (_, y) in enumerate(parts):
        assert np.array_equal(y, x[:n])
    assert np.allclose(reduced, [x.sum(), x.max(), x.min()], rtol=1e-5, atol=1e-6)
    assert np.array_equal(padded, np.r_[x[: lanes // 2], np.zeros(lanes - lanes // 2, np.float32)])


# ---- single values ----------------------------------------------------------------------------------------------------------


def scalar_call(p: Program, args: list[np.ndarray], dtypes: list[DType]) -> Call:
    e = emit_scalar(p, [f"a{i}" for i in range(len(args))], dtypes)
    n = args[0].size
    lines = [f"for (int i = 0; i < {n}; i++) {{"]
    for i, d in enumerate(dtypes):
        lines.append(f"{value_ctype(d)} a{i} = {load_expression(d, f'((const {d.c} *)b[{i}])[i]')}; (void)a{i};")
    lines += [*e.statements, f"(({e.dtype.c} *)b[{len(args)}])[i] = {store_expression(e.dtype, e.result)};", "}"]
    return Call("\n".join(lines), (*args, np.zeros(n, e.dtype.numpy)))


def values(dtype: DType, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype is DType.BOOL:
        return rng.integers(0, 2, 600).astype(np.bool_)
    if dtype.is_float:
        special = np.resize(np.random.default_rng(seed).permutation(SPECIAL), 100)
        with np.errstate(over="ignore"):
            return np.r_[special, rng.uniform(-5, 5, 500)].astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    edges = np.array([0, 1, 2, 3, 7, 8, info.max, info.min, info.max - 1], dtype.numpy)
    small = rng.integers(max(info.min, -9), 9, 300).astype(dtype.numpy)
    return rng.permutation(np.r_[np.resize(edges, 200), small, rng.integers(info.min, info.max, 100, dtype.numpy)])


def supported(fn: str, dtype: DType) -> bool:
    try:
        emit_scalar(program(fn), ["a", "b", "c"][: FUNCTIONS[fn].arity], [dtype] * FUNCTIONS[fn].arity)
    except UnsupportedError:
        return False
    return True


def test_which_pairs_have_a_scalar_form():
    floating = {d for d in DType if d.is_float}
    for fn in sorted(set(FUNCTIONS) - {"cast"}):
        held = {d for d in DType if supported(fn, d)}
        if fn in LOGIC | {"identity", "where", "eq", "lt", "le", "gt", "ge"}:
            assert held == set(DType), fn
        elif fn in {"add", "sub", "mul", "div", "pow", "mod", "fmod", "neg", "abs", "sign", "relu"}:
            assert held == set(DType) - {DType.BOOL}, fn
        elif fn in {"min", "max"}:
            assert held == set(DType), fn
        elif fn in INTEGER_ONLY:
            assert held == set(DType) - floating - ({DType.BOOL} if fn.startswith("sh") else set()), fn
        else:
            assert held == floating, fn


def test_scalars_agree_with_numpy():
    cases = []
    for fn in sorted(set(FUNCTIONS) - {"cast"}):
        for dtype in DType:
            if not supported(fn, dtype):
                continue
            p = program(fn)
            args = [values(dtype, 10 * i + len(fn)) for i in range(p.n_args)]
            dtypes = [dtype] * p.n_args
            if fn == "where":
                args[0], dtypes[0] = values(DType.BOOL, 3), DType.BOOL
            if fn == "pow" and not dtype.is_float:
                args[1] = args[1] & np.array(7, dtype.numpy)  # numpy refuses negative exponents
            cases.append((p, args, dtypes))
    for source in DType:
        for target in DType:
            x = values(source, 4)
            if source.is_float and not target.is_float:
                with np.errstate(invalid="ignore"):  # what out-of-range values become, C and ONNX leave open
                    x = np.clip(np.nan_to_num(x.astype(np.float64), posinf=9, neginf=9), -100 * (target.value[0] == "i"), 100)
                x = x.astype(source.numpy)
            cases.append((Program((Step("cast", (Arg(0),), target),)), [x], [source]))
    calls = [scalar_call(*case) for case in cases]
    for (p, args, dtypes), buffers in zip(
        cases, run_calls(host_isa(), prelude(host_isa()), calls, (*CFLAGS, *SANITIZE)), strict=True
    ):
        with np.errstate(all="ignore"):
            want = p.evaluate(args)
        got, label = buffers[-1], f"{p} on {[d.value for d in dtypes]}"
        assert got.dtype == want.dtype, label
        if not DType.from_numpy(want.dtype).is_float:
            assert np.array_equal(got, want), f"{label}: {[a[got != want][:5] for a in args]}"
            continue
        unit = {"f16": 2e-3, "bf16": 1.6e-2, "f32": 6e-7, "f64": 4e-15}[DType.from_numpy(want.dtype).value]
        with np.errstate(all="ignore"):
            a, b = got.astype(np.float64), want.astype(np.float64)
            size = np.maximum(np.abs(b), 1 + np.abs(args[0].astype(np.float64)))
            bad = ~((np.abs(a - b) <= unit * size) | (a == b) | (np.isnan(a) & np.isnan(b)))
        assert not bad.any(), f"{label}: {[x[bad][:5] for x in args]} gave {got[bad][:5]}, not {want[bad][:5]}"


def test_out_of_range_floats_become_integers_without_undefined_behaviour():
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 2**63, 300.7, -1.5], np.float64)
    cases = [(Program((Step("cast", (Arg(0),), t),)), [x], [DType.F64]) for t in DType if not t.is_float]
    calls = [scalar_call(*case) for case in cases]
    flags = (*CFLAGS, *SANITIZE, "-fsanitize=float-cast-overflow")
    results = {
        c[0].steps[0].dtype: r[-1] for c, r in zip(cases, run_calls(host_isa(), prelude(host_isa()), calls, flags), strict=True)
    }
    assert results[DType.I32].tolist() == [-(2**31)] * 8 + [300, -1]
    assert results[DType.I64].tolist() == [-(2**63)] * 5 + [3 * 10**9, -3 * 10**9, -(2**63), 300, -1]
    assert results[DType.U8].tolist()[-2:] == [300 - 256, 255]
    assert results[DType.U64][7] == 2**63


def test_immediates_are_exact_in_every_type():
    immediates = {
        DType.I64: [-(2**63), 2**63 - 1, -5], DType.I32: [-(2**31), 2**31 - 1], DType.U64: [2**64 - 1], DType.U32: [2**32 - 1],
        DType.I8: [-128, 127], DType.U16: [65535], DType.F32: [0.1, -1e-45, 3.4e38, float("inf"), float("-inf"), float("nan")],
        DType.F64: [0.1, -1e-310, 1.7e308, float("-inf"), 2.0], DType.F16: [0.1, 65504.0], DType.BOOL: [1, 0],
    }  # fmt: skip
    cases = []
    for dtype, numbers in immediates.items():
        for number in numbers:
            select = Program((Step("where", (Imm(0), Arg(0), Imm(number))),))
            cases.append((select, [np.ones(2, dtype.numpy)], [dtype]))
    results = run_calls(host_isa(), prelude(host_isa()), [scalar_call(*c) for c in cases])
    for (p, args, _), (_, got) in zip(cases, results, strict=True):
        want = np.resize(p.evaluate(args), 2)
        assert got.tobytes() == want.tobytes() or (np.isnan(got).all() and np.isnan(want).all()), str(p)


def test_a_pair_without_a_form_names_function_and_type():
    with pytest.raises(UnsupportedError, match="function exp on i32 has no C form over single values"):
        emit_scalar(program("exp"), ["a"], [DType.I32])
    with pytest.raises(UnsupportedError, match="function cast to i64 on f32 has no C form over vectors"):
        emit_vec(Program((Step("cast", (Arg(0),), DType.I64),)), ["a"])


def test_dead_steps_and_empty_programs_leave_no_statement():
    e = emit_vec(Program((Step("exp", (Arg(0),)), Step("neg", (Arg(0),)))), ["x"], prefix="u")
    assert e.statements == ("const vec u1 = v_neg(x);",) and e.result == "u1"
    assert emit_vec(Program(), ["x"]).result == "x"
    assert emit_scalar(Program(), ["x"], [DType.I64]).text(4) == ""

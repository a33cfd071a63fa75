"""Loops of the batched engine as CUDA kernels for CuPy: one pass in place of many.

:mod:`skscatharm.engine.batch_portable` has the same functions for other libraries,
and documents their parameters.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from skscatharm.transform.modulus import TINY

__all__ = ["gaussian_factors", "integrate_fields"]

Array = Any  # of CuPy

FIELDS = 3  # the modulus, and what smoothing makes of it

# A block of threads computes a tile of a field: (16 threads) x (4 columns) wide.
_THREADS, _COLUMNS, _DEPTH = 128, 64, 16
_ROWS = {"float32": 64, "float64": 32}
_INTEGRATE = r"""
// Threads are arranged as (THREADS / 16, 16), each with a tile of (HEIGHT, 4) points.
#define HEIGHT (ROWS * 16 / THREADS)

extern "C" __global__ void __launch_bounds__(THREADS) integrate_fields(
    const T* __restrict__ left, const T* __restrict__ right,
    const int* __restrict__ ends, const T* __restrict__ weights,
    const T* __restrict__ epsilon, const T floor,
    const int n_orders, const int n_inner, const int n_rows, const int n_columns,
    const int n_shared, const int rows_of_epsilon,
    T* __restrict__ moduli, T* __restrict__ integrals)
{
    __shared__ T a[DEPTH][ROWS], b[DEPTH][COLUMNS];
    const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * HEIGHT;
    const int first_column = blockIdx.x * COLUMNS, first_row = blockIdx.y * ROWS;
    const long long field = blockIdx.z, molecule = field / n_shared;
    left += molecule * n_inner * n_rows;
    right += field * n_inner * n_columns;

    T squared[HEIGHT][4];
    for (int i = 0; i < HEIGHT; ++i)
        for (int j = 0; j < 4; ++j) squared[i][j] = floor;
    for (int order = 0, k = 0; order < n_orders; ++order) {
        T component[HEIGHT][4] = {};
        while (k < ends[order]) {
            const int n = min(DEPTH, ends[order] - k);
            __syncthreads();
            for (int i = threadIdx.x; i < n * ROWS; i += THREADS) {
                const int row = first_row + i % ROWS;
                a[i / ROWS][i % ROWS] =
                    row < n_rows ? left[(k + i / ROWS) * n_rows + row] : 0;
            }
            for (int i = threadIdx.x; i < n * COLUMNS; i += THREADS) {
                const int column = first_column + i % COLUMNS;
                b[i / COLUMNS][i % COLUMNS] = column < n_columns
                    ? right[(long long)(k + i / COLUMNS) * n_columns + column] : 0;
            }
            __syncthreads();
            #pragma unroll 4
            for (int inner = 0; inner < n; ++inner) {
                T of_row[HEIGHT], of_column[4];
                for (int i = 0; i < HEIGHT; ++i) of_row[i] = a[inner][y + i];
                for (int j = 0; j < 4; ++j) of_column[j] = b[inner][x + j];
                for (int i = 0; i < HEIGHT; ++i)
                    for (int j = 0; j < 4; ++j)
                        component[i][j] += of_row[i] * of_column[j];
            }
            k += n;
        }
        for (int i = 0; i < HEIGHT; ++i)
            for (int j = 0; j < 4; ++j)
                squared[i][j] += component[i][j] * component[i][j];
    }

    const T tiny = TINY;
    T weight[4];
    for (int j = 0; j < 4; ++j) {
        const int column = first_column + x + j;
        weight[j] = column < n_columns ? weights[molecule * n_columns + column] : 0;
    }
    #pragma unroll
    for (int i = 0; i < HEIGHT; ++i) {
        // Rows beyond the last do the same as the last, for the sums of a warp.
        const int row = min(first_row + y + i, n_rows - 1);
        const long long index = field * n_rows + row;
        const T low = epsilon[index / rows_of_epsilon];
        T sums[N_POWERS] = {};
        for (int j = 0; j < 4; ++j) {
            const int column = first_column + x + j;
            const T square = squared[i][j], root = sqrt(square + low * low);
            const T modulus = square / (root + low + tiny);
            if (moduli && column < n_columns && first_row + y + i < n_rows)
                moduli[index * n_columns + column] = modulus;
            ADD_POWERS
        }
        for (int e = 0; e < N_POWERS; ++e) {
            for (int lanes = 8; lanes > 0; lanes /= 2)
                sums[e] += __shfl_down_sync(0xffffffff, sums[e], lanes, 16);
            if (x == 0 && first_row + y + i < n_rows)
                integrals[((long long)e * gridDim.z * n_rows + index) * gridDim.x
                          + blockIdx.x] = sums[e];
        }
    }
}
"""
# The formulas are those of skscatharm.transform.modulus.
_POWERS = {
    0.5: "modulus / (sqrt(root) + sqrt(low) + tiny)",
    1.0: "modulus",
    2.0: "square",
    3.0: "modulus * (root * (root + low) + low * low)",
    4.0: "(square * AREA) * ((square + 2 * low * low) * AREA)",
}
_OTHER_POWER = (
    "pow(root * SCALE, Q) * "
    "(low == 0 ? (T)1 : -expm1(-Q / 2 * log1p(square / (low * low))))"
)


def gaussian_factors(
    points: Array, centres: Array, width: float, degree: int, cut: float, dtype: Any
) -> Array:
    cupy = import_module("cupy")
    shape = (*points.shape, degree + 1, centres.shape[1])
    factors = cupy.empty(shape, dtype)
    powers = cupy.arange(degree + 1, dtype="int32")[:, None]
    _gaussian_factors()(
        points[:, :, None, None], centres[:, None, None, :], powers, width, cut, factors
    )
    return factors


def integrate_fields(
    left: Array,
    right: Array,
    ends: Sequence[int],
    weights: Array,
    exponents: Sequence[float],
    scales: Sequence[float],
    epsilon: Any,
    floor: float,
    keep: bool,
) -> tuple[Array, Array]:
    cupy = import_module("cupy")
    dtype = right.dtype
    n_molecules, n_inner, n_rows = left.shape
    _, n_shared, _, n_columns = right.shape
    n_fields = n_molecules * n_shared
    rows = _ROWS[dtype.name]
    blocks = -(-n_columns // _COLUMNS), -(-n_rows // rows), n_fields
    fields = *epsilon.shape[:2], n_shared * n_rows // epsilon.shape[1]
    moduli = cupy.empty((*fields, n_columns), dtype) if keep else None
    integrals = cupy.empty((len(exponents), *fields, blocks[0]), dtype)
    source = integration_source(
        dtype.name, tuple(map(float, exponents)), tuple(map(float, scales))
    )
    arguments = (
        cupy.ascontiguousarray(left),
        cupy.ascontiguousarray(right),
        cupy.asarray(ends, dtype="int32"),
        cupy.ascontiguousarray(weights),
        cupy.asarray(epsilon, dtype, order="C"),
        dtype.type(floor),
        *map(np.int32, (len(ends), n_inner, n_rows, n_columns)),
        *map(np.int32, (n_shared, n_fields * n_rows // epsilon.size)),
        np.intp(0) if moduli is None else moduli,
        integrals,
    )
    _integrate(source)(blocks, (_THREADS,), arguments)
    return moduli, integrals.sum(axis=-1)


@cache
def integration_source(
    dtype: str, exponents: tuple[float, ...], scales: tuple[float, ...]
) -> str:
    """Write the kernel that integrates powers for some exponents."""
    terms = []
    for i, (q, scale) in enumerate(zip(exponents, scales, strict=True)):
        power = _POWERS.get(q, _OTHER_POWER).replace("SCALE", f"(T){scale!r}")
        power = power.replace("AREA", f"(T){scale**2!r}").replace("Q", f"(T){q!r}")
        terms.append(f"sums[{i}] += weight[j] * ({power});")
    values = {
        "TINY": TINY,
        "N_POWERS": len(exponents),
        "THREADS": _THREADS,
        "ROWS": _ROWS[dtype],
        "COLUMNS": _COLUMNS,
        "DEPTH": _DEPTH,
    }
    names = "".join(f"#define {name} {value!r}\n" for name, value in values.items())
    types = f"typedef {'float' if dtype == 'float32' else 'double'} T;\n"
    powers = "\n            ".join(terms)
    return names + types + _INTEGRATE.replace("ADD_POWERS", powers)


@cache
def _integrate(source: str) -> Any:
    return import_module("cupy").RawKernel(source, "integrate_fields")


@cache
def _gaussian_factors() -> Any:
    return import_module("cupy").ElementwiseKernel(
        "float64 point, float64 centre, int32 power, float64 width, float64 cut",
        "T factor",
        """
        const double d = (point - centre) / width;
        double value = fabs(d) < cut ? exp(-d * d / 2) : 0;
        for (int a = 0; a < power; ++a) value *= d;
        factor = value;
        """,
        "gaussian_factors",
    )

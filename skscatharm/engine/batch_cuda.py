"""Loops of the batched engine as CUDA kernels for CuPy: one pass in place of many.

:mod:`skscatharm.engine.batch_portable` has the same functions for other libraries,
and documents their parameters.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from skscatharm.engine import batch_portable
from skscatharm.engine.quadrature import FAR, SHIFT, Axes
from skscatharm.transform.modulus import TINY

__all__ = ["atom_factors", "gaussian_factors", "grid_axes", "integrate_fields"]

Array = Any  # of CuPy

FIELDS = 3  # the modulus, and what smoothing makes of it

# Each block of threads computes a tile of a field: rows, columns, and how far it goes
# along the inner axis at a time.
_THREADS, _COLUMNS = 128, 64
_ROWS = {"float32": 64, "float64": 32}
_DEPTH = {"float32": 32, "float64": 16}
_SHARED = 48 * 2**10  # bytes of shared memory that each block can have
_INTEGRATE = r"""
// Threads are arranged as (THREADS / 16, 16), each with a tile of (HEIGHT, 4) points.
#define HEIGHT (ROWS * 16 / THREADS)

#if __CUDA_ARCH__ >= 800
// Copy to shared memory while the threads go on, or write zero.
__device__ void copy_async(T* to, const T* from, const bool valid)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from),
                    "n"(sizeof(T)), "r"(valid ? (int)sizeof(T) : 0));
}
__device__ void end_of_group() { asm volatile("cp.async.commit_group;"); }
__device__ void wait_for_all_groups_but_one()
{
    asm volatile("cp.async.wait_group 1;");
}
#else
__device__ void copy_async(T* to, const T* from, const bool valid)
{
    *to = valid ? *from : (T)0;
}
__device__ void end_of_group() {}
__device__ void wait_for_all_groups_but_one() {}
#endif

extern "C" __global__ void __launch_bounds__(THREADS, 4) integrate_fields(
    const T* __restrict__ left, const T* __restrict__ right,
    const int* __restrict__ ends, const T* __restrict__ weights,
    const T* __restrict__ epsilon, const T floor,
    const int n_orders, const int n_inner, const int n_rows, const int n_columns,
    const int n_shared, const int rows_of_epsilon,
    T* __restrict__ moduli, T* __restrict__ integrals)
{
    __shared__ T a[2][DEPTH][ROWS], b[2][DEPTH][COLUMNS];
    const int x = threadIdx.x % 16 * 4, y = threadIdx.x / 16 * HEIGHT;
    const int first_column = blockIdx.x * COLUMNS, first_row = blockIdx.y * ROWS;
    const long long field = blockIdx.z, molecule = field / n_shared;
    left += molecule * n_inner * n_rows;
    right += field * n_inner * n_columns;

    const int row = first_row + threadIdx.x % ROWS;
    const int column = first_column + threadIdx.x % COLUMNS;
    auto copy = [&](const int stage, const int start, const int stop) {
        for (int k = threadIdx.x / ROWS; k < stop - start; k += THREADS / ROWS)
            copy_async(&a[stage][k][threadIdx.x % ROWS],
                       left + (start + k) * n_rows + row, row < n_rows);
        for (int k = threadIdx.x / COLUMNS; k < stop - start; k += THREADS / COLUMNS)
            copy_async(&b[stage][k][threadIdx.x % COLUMNS],
                       right + (long long)(start + k) * n_columns + column,
                       column < n_columns);
        end_of_group();
    };

    T squared[HEIGHT][4], component[HEIGHT][4] = {};
    for (int i = 0; i < HEIGHT; ++i)
        for (int j = 0; j < 4; ++j) squared[i][j] = floor;
    int order = 0, start = 0, stop = min(DEPTH, ends[0]);
    copy(0, start, stop);
    for (int stage = 0; order < n_orders; stage ^= 1) {
        const int n = stop - start;
        const bool last = stop == ends[order];
        order += last;
        start = stop;
        // What is next is copied meanwhile, where all threads are done.
        if (order < n_orders) stop = min(start + DEPTH, ends[order]);
        copy(stage ^ 1, start, stop);
        wait_for_all_groups_but_one();
        __syncthreads();
        #pragma unroll 4
        for (int k = 0; k < n; ++k) {
            T of_row[HEIGHT], of_column[4];
            for (int i = 0; i < HEIGHT; ++i) of_row[i] = a[stage][k][y + i];
            for (int j = 0; j < 4; ++j) of_column[j] = b[stage][k][x + j];
            for (int i = 0; i < HEIGHT; ++i)
                for (int j = 0; j < 4; ++j)
                    component[i][j] += of_row[i] * of_column[j];
        }
        if (last)
            for (int i = 0; i < HEIGHT; ++i)
                for (int j = 0; j < 4; ++j) {
                    squared[i][j] += component[i][j] * component[i][j];
                    component[i][j] = 0;
                }
        __syncthreads();
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
        const int this_row = min(first_row + y + i, n_rows - 1);
        const long long index = field * n_rows + this_row;
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
_ATOM_FACTORS = r"""
// A block for each molecule, term and atom.
extern "C" __global__ void atom_factors(
    const T* __restrict__ along_x, const T* __restrict__ along_y,
    const T* __restrict__ polynomials, const int n_terms, const int n_atoms,
    const int n_powers, const int n_y, const int n_x, T* __restrict__ factors)
{
    extern __shared__ T of_x[];  // for each power of y
    const long long row = blockIdx.x, molecule = row / n_atoms / n_terms;
    const long long first = (molecule * n_atoms + row % n_atoms) * n_powers;
    along_x += first * n_x;
    along_y += first * n_y;
    polynomials += row / n_atoms % n_terms * n_powers * n_powers;
    factors += row * n_y * n_x;
    for (int i = threadIdx.x; i < n_powers * n_x; i += blockDim.x) {
        T sum = 0;
        for (int a = 0; a < n_powers; ++a)
            sum += polynomials[a * n_powers + i / n_x] * along_x[a * n_x + i % n_x];
        of_x[i] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n_y * n_x; i += blockDim.x) {
        T sum = 0;
        for (int b = 0; b < n_powers; ++b)
            sum += of_x[b * n_x + i % n_x] * along_y[b * n_y + i / n_x];
        factors[i] = sum;
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


def grid_axes(axes: Axes, dtype: Any, like: Array) -> list[tuple[Array, Array]]:
    cupy = import_module("cupy")
    found = []
    all_rules = cupy.asarray(axes.rules)
    for rules, n_points in zip(all_rules, axes.n_points, strict=True):
        points = cupy.empty((len(rules), n_points))
        weights = cupy.empty(points.shape, dtype)
        _grid_axis()(rules, axes.width, n_points, points, weights)
        found.append((points, weights))
    return found


def gaussian_factors(
    points: Array, centres: Array, width: float, degree: int, cut: float, dtype: Any
) -> Array:
    cupy = import_module("cupy")
    shape = (*points.shape, degree + 1, centres.shape[1])
    factors = cupy.empty(shape, dtype)
    _gaussian_factors()(
        points[:, :, None, None],
        centres[:, None, None, :],
        centres.shape[1],
        degree + 1,
        width,
        cut,
        factors,
    )
    return factors


def atom_factors(along_x: Array, along_y: Array, polynomials: Array) -> Array:
    cupy = import_module("cupy")
    dtype = along_x.dtype
    n_molecules, n_atoms, n_powers, n_x = along_x.shape
    n_terms, n_y = len(polynomials), along_y.shape[-1]
    shared = n_powers * n_x * dtype.itemsize
    if shared > _SHARED:
        return batch_portable.atom_factors(along_x, along_y, polynomials)
    factors = cupy.empty((n_molecules, n_terms * n_atoms, n_y * n_x), dtype)
    sizes = map(np.int32, (n_terms, n_atoms, n_powers, n_y, n_x))
    _kernel(_type(dtype.name) + _ATOM_FACTORS, "atom_factors")(
        (n_molecules * n_terms * n_atoms,),
        (_THREADS,),
        (along_x, along_y, polynomials, *sizes, factors),
        shared_mem=shared,
    )
    return factors


def integrate_fields(
    left: Array,
    right: Array,
    ends: tuple[int, ...],
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
        _indices(ends, cupy.cuda.Device().id),
        cupy.ascontiguousarray(weights),
        cupy.ascontiguousarray(epsilon),
        dtype.type(floor),
        *map(np.int32, (len(ends), n_inner, n_rows, n_columns)),
        *map(np.int32, (n_shared, n_fields * n_rows // epsilon.size)),
        np.intp(0) if moduli is None else moduli,
        integrals,
    )
    _kernel(source, "integrate_fields")(blocks, (_THREADS,), arguments)
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
        "DEPTH": _DEPTH[dtype],
    }
    names = "".join(f"#define {name} {value!r}\n" for name, value in values.items())
    powers = "\n            ".join(terms)
    return names + _type(dtype) + _INTEGRATE.replace("ADD_POWERS", powers)


def _type(dtype: str) -> str:
    return f"typedef {'float' if dtype == 'float32' else 'double'} T;\n"


@cache
def _kernel(source: str, name: str) -> Any:
    # Of roots and quotients in single precision, the last bit may be wrong.
    options = ("--prec-sqrt=false", "--prec-div=false")
    return import_module("cupy").RawKernel(source, name, options)


@lru_cache(1024)
def _indices(values: tuple[int, ...], device: int) -> Array:
    """Return integers as an array on a device, which is the current one."""
    return import_module("cupy").asarray(values, dtype="int32")


@cache
def _grid_axis() -> Any:
    # The formulas are those of skscatharm.engine.quadrature.stretched_axis.
    return import_module("cupy").ElementwiseKernel(
        "raw float64 rules, float64 width, int32 n_points",
        "float64 point, T weight",
        f"""
        const double* rule = &rules[i / n_points * 6];
        const double extent = rule[0], step = rule[1], margin = rule[2];
        const double more = max(step, rule[3]) - step, sharpness = rule[5];
        const double knee = (extent + rule[4]) / step;
        const double xi = (int)(i % n_points) - n_points / 2 + {SHIFT};
        double total = 0, slopes = 0;
        for (int sign = -1; sign <= 1; sign += 2) {{
            const double d = (sign * xi - knee) / sharpness, small = exp(-fabs(d));
            total += sign * (max(d, 0.0) + log1p(small));
            slopes += (d > 0 ? 1 : small) / (1 + small);
        }}
        point = step * xi + more * sharpness * total;
        if (fabs(point) <= extent + margin) {{
            point *= width;
            weight = width * (step + more * slopes);
        }} else {{
            point = {FAR};
            weight = 0;
        }}
        """,
        "grid_axis",
    )


@cache
def _gaussian_factors() -> Any:
    return import_module("cupy").ElementwiseKernel(
        "float64 point, float64 centre, int32 n_centres, int32 n_powers, "
        "float64 width, float64 cut",
        "T factor",
        """
        const double d = (point - centre) / width;
        double value = fabs(d) < cut ? exp(-d * d / 2) : 0;
        for (int power = i / n_centres % n_powers; power > 0; --power) value *= d;
        factor = value;
        """,
        "gaussian_factors",
    )

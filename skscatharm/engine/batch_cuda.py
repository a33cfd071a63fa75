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
from skscatharm.engine.quadrature import FAR, Axes
from skscatharm.transform.modulus import TINY

__all__ = [
    "atom_factors",
    "gaussian_factors",
    "grid_axes",
    "integrate_fields",
    "integrate_products",
]

Array = Any  # of CuPy

FIELDS = 3  # the modulus, and what smoothing makes of it
PRODUCTS = 1  # the moduli

# Each block of threads computes a tile of a field: rows, columns, and how far it goes
# along the inner axis at a time.
_THREADS, _COLUMNS = 128, 64
_ROWS = {"float32": 64, "float64": 32}
_DEPTH = {"float32": 32, "float64": 16}
_SHARED = 48 * 2**10  # bytes of shared memory that each block can have
# Each block of threads multiplies fields at some points, a few of them at a time: as
# many as leave space for other blocks.
_POINTS, _STEPS = 4096, (128, 64, 32)
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
    // Aligned, so that 16 bytes are read at a time.
    __shared__ __align__(16) T a[2][DEPTH][ROWS], b[2][DEPTH][COLUMNS];
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
    for (int y = threadIdx.x / 32; y < n_y; y += blockDim.x / 32)
        for (int x = threadIdx.x % 32; x < n_x; x += 32) {
            T sum = 0;
            for (int b = 0; b < n_powers; ++b)
                sum += of_x[b * n_x + x] * along_y[b * n_y + y];
            factors[y * n_x + x] = sum;
        }
}
"""
_PRODUCTS = r"""
// A block for some points and tiles of products, a group of channels, and a power.
// Each thread has a tile of (4, 4) products, and shares the points with other threads.
extern "C" __global__ void __launch_bounds__(THREADS) integrate_products(
    const T* const* __restrict__ moduli, const T* __restrict__ epsilon,
    const T* __restrict__ columns, const T* __restrict__ layers,
    const int n_molecules, const int n_channels, const int n_joined,
    const int n_layers, const int n_columns,
    const int n_rows, const int n_narrow, const int n_rounds,
    T* __restrict__ integrals)
{
    extern __shared__ unsigned char shared[];
    T* const powers = (T*)shared;  // of shape (n_rows, STEP + 1)
    __shared__ T weights[STEP];
    const int group = blockIdx.y, molecule = group * n_joined / n_channels;
    const int part = blockIdx.x / n_rounds, n_parts = gridDim.x / n_rounds;
    const int n_points = n_layers * n_columns;
    const int begin = part * POINTS, end = min(begin + POINTS, n_points);

    const int n_across = (n_narrow + 3) / 4, n_tiles = (n_rows + 3) / 4 * n_across;
    const int n_parallel = min(n_tiles, THREADS), n_sharing = THREADS / n_parallel;
    const int tile = blockIdx.x % n_rounds * n_parallel + threadIdx.x % n_parallel;
    const int first = threadIdx.x / n_parallel;
    const bool works = tile < n_tiles && first < n_sharing;
    const int row = tile / n_across * 4, narrow = tile % n_across * 4;
    int of_row[4], of_narrow[4];  // where they begin
    for (int i = 0; i < 4; ++i) {
        of_row[i] = min(row + i, n_rows - 1) * (STEP + 1);
        of_narrow[i] = min(narrow + i, n_narrow - 1) * (STEP + 1);
    }

    T sums[4][4] = {};
    for (int start = begin; start < end; start += STEP) {
        const int at = threadIdx.x % STEP, point = start + at;
        const bool inside = point < end;
        __syncthreads();
        if (threadIdx.x < STEP)
            weights[at] = !inside ? (T)0
                : columns[molecule * n_columns + point % n_columns]
                * layers[molecule * n_layers + point / n_columns];
        #pragma unroll 4
        for (int r = threadIdx.x / STEP; r < n_rows; r += THREADS / STEP) {
            const int field = r / n_joined, channel = group * n_joined + r % n_joined;
            const T read = inside ? moduli[field][(long long)channel * n_points + point]
                                  : (T)0;
            const T softening = epsilon[field * n_molecules * n_channels + channel];
            const T tiny = TINY;
            T power = 0;
            switch (blockIdx.z) {
            POWERS
            }
            powers[r * (STEP + 1) + at] = power;
        }
        __syncthreads();
        if (works)
            for (int p = first; p < STEP; p += n_sharing)
                for (int i = 0; i < 4; ++i) {
                    const T weighted = powers[of_narrow[i] + p] * weights[p];
                    for (int j = 0; j < 4; ++j)
                        sums[j][i] += powers[of_row[j] + p] * weighted;
                }
    }

    // Add the sums of the threads that share a tile.
    __syncthreads();
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j)
            powers[(i * 4 + j) * THREADS + threadIdx.x] = sums[i][j];
    __syncthreads();
    integrals += ((long long)(blockIdx.z * gridDim.y + group) * n_parts + part)
                 * n_rows * n_narrow;
    if (first > 0 || !works) return;
    for (int i = 0; i < 4 && row + i < n_rows; ++i)
        for (int j = 0; j < 4 && narrow + j < n_narrow; ++j) {
            T sum = 0;
            for (int k = 0; k < n_sharing; ++k)
                sum += powers[(i * 4 + j) * THREADS + k * n_parallel + threadIdx.x];
            integrals[(row + i) * n_narrow + narrow + j] = sum;
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


def integrate_products(
    moduli: Sequence[Array],
    columns: Array,
    layers: Array,
    exponents: Sequence[float],
    scales: Sequence[float],
    epsilon: Array,
    n_narrow: int,
    joined: bool,
) -> Array:
    cupy = import_module("cupy")
    dtype = columns.dtype
    n_molecules, n_channels, n_layers, n_columns = moduli[0].shape
    n_joined = n_channels if joined else 1
    n_rows, n_narrow = len(moduli) * n_joined, n_narrow * n_joined
    row = dtype.itemsize * n_rows
    step = next((n for n in _STEPS if row * n < _SHARED / 4), _STEPS[-1])
    shared = max(row * (step + 1), 16 * _THREADS * dtype.itemsize)
    if shared + step * dtype.itemsize > _SHARED:
        return batch_portable.integrate_products(
            moduli,
            columns,
            layers,
            exponents,
            scales,
            epsilon,
            n_narrow // n_joined,
            joined,
        )
    n_groups = n_molecules * n_channels // n_joined
    n_rounds = -(-(-(-n_rows // 4) * -(-n_narrow // 4)) // _THREADS)
    n_parts = -(-n_layers * n_columns // _POINTS)
    shape = len(exponents), n_groups, n_parts, n_rows, n_narrow
    integrals = cupy.empty(shape, dtype)
    source = products_source(
        dtype.name, tuple(map(float, exponents)), tuple(map(float, scales)), step
    )
    sizes = n_molecules, n_channels, n_joined, n_layers, n_columns
    _kernel(source, "integrate_products")(
        (n_parts * n_rounds, n_groups, len(exponents)),
        (_THREADS,),
        (
            cupy.asarray([modulus.data.ptr for modulus in moduli], dtype="uint64"),
            cupy.ascontiguousarray(epsilon),
            cupy.ascontiguousarray(columns),
            cupy.ascontiguousarray(layers),
            *map(np.int32, (*sizes, n_rows, n_narrow, n_rounds)),
            integrals,
        ),
        shared_mem=shared,
    )
    integrals = integrals.sum(axis=2)
    return integrals.reshape(len(exponents), n_molecules, -1, n_rows, n_narrow)


@cache
def integration_source(
    dtype: str, exponents: tuple[float, ...], scales: tuple[float, ...]
) -> str:
    """Write the kernel that integrates powers for some exponents."""
    terms = [
        f"sums[{i}] += weight[j] * ({_power(q, scale)});"
        for i, (q, scale) in enumerate(zip(exponents, scales, strict=True))
    ]
    values = {
        "TINY": TINY,
        "N_POWERS": len(exponents),
        "THREADS": _THREADS,
        "ROWS": _ROWS[dtype],
        "COLUMNS": _COLUMNS,
        "DEPTH": _DEPTH[dtype],
    }
    powers = "\n            ".join(terms)
    return (
        _definitions(values) + _type(dtype) + _INTEGRATE.replace("ADD_POWERS", powers)
    )


@cache
def products_source(
    dtype: str, exponents: tuple[float, ...], scales: tuple[float, ...], step: int
) -> str:
    """Write the kernel that integrates powers of products for some exponents."""
    cases = [
        f"case {i}: {{\n"
        f"const T modulus = read * (T){scale!r}, low = softening * (T){scale!r};\n"
        "const T root = modulus + low, square = modulus * (modulus + 2 * low);\n"
        f"power = {_power(q / 2, 1.0)};\n"
        "break; }"
        for i, (q, scale) in enumerate(zip(exponents, scales, strict=True))
    ]
    values = {"TINY": TINY, "THREADS": _THREADS, "POINTS": _POINTS, "STEP": step}
    loops = _PRODUCTS.replace("POWERS", "\n".join(cases))
    return _definitions(values) + _type(dtype) + loops


def _power(q: float, scale: float) -> str:
    """Write a power of a modulus times a scale."""
    power = _POWERS.get(q, _OTHER_POWER).replace("SCALE", f"(T){scale!r}")
    return power.replace("AREA", f"(T){scale**2!r}").replace("Q", f"(T){q!r}")


def _definitions(values: dict[str, Any]) -> str:
    return "".join(f"#define {name} {value!r}\n" for name, value in values.items())


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
        const double* rule = &rules[i / n_points * 8];
        const double extent = rule[0], step = rule[1], margin = rule[2];
        const double more = max(step, rule[3]) - step, sharpness = rule[5];
        const double knee = (extent + rule[4]) / step;
        const double xi = (int)(i % n_points) - n_points / 2 + rule[6];
        double total = 0, slopes = 0;
        for (int sign = -1; sign <= 1; sign += 2) {{
            const double d = (sign * xi - knee) / sharpness, small = exp(-fabs(d));
            total += sign * (max(d, 0.0) + log1p(small));
            slopes += (d > 0 ? 1 : small) / (1 + small);
        }}
        point = step * xi + more * sharpness * total;
        if (fabs(point) <= extent + margin) {{
            point = width * (rule[7] + point);
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

"""Loops of the batched engine as CUDA kernels for CuPy: one pass in place of many.

:mod:`skscatharm.engine.batch_portable` has the same functions for other libraries,
and documents their parameters.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from skscatharm.transform.modulus import TINY

__all__ = ["gaussian_factors", "integrate_powers", "sum_of_squares"]

Array = Any  # of CuPy

_THREADS = 256  # of a block, which integrates a row
_INTEGRATE = r"""
extern "C" __global__ void integrate_powers(
    const T* __restrict__ squared, const T* __restrict__ weights,
    const T* __restrict__ epsilon, const int rows_of_weights,
    const int rows_of_epsilon, const int n_columns,
    T* __restrict__ moduli, T* __restrict__ integrals)
{
    const long long row = blockIdx.x, first = row * n_columns;
    const long long first_weight = row / rows_of_weights * n_columns;
    const T low = epsilon[row / rows_of_epsilon], tiny = TINY;
    T sums[N_POWERS] = {};
    for (int k = threadIdx.x; k < n_columns; k += blockDim.x) {
        const T weight = weights[first_weight + k], square = squared[first + k];
        const T root = sqrt(square + low * low);
        const T modulus = square / (root + low + tiny);
        moduli[first + k] = modulus;
        ADD_POWERS
    }
    __shared__ T of_warps[32];
    for (int i = 0; i < N_POWERS; ++i) {
        T sum = sums[i];
        for (int lanes = 16; lanes > 0; lanes /= 2)
            sum += __shfl_down_sync(0xffffffff, sum, lanes);
        if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int w = 1; w < blockDim.x / 32; ++w) sum += of_warps[w];
            integrals[i * (long long)gridDim.x + row] = sum;
        }
        __syncthreads();
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


def sum_of_squares(components: Iterable[tuple[Array, Array]], floor: float) -> Array:
    squared: Array = None
    for a, b in components:
        component = a @ b
        if squared is None:
            squared = component
            _square()(squared.dtype.type(floor), squared)
        else:
            _add_square()(component, squared)
    return squared


def integrate_powers(
    squared: Array,
    weights: Array,
    exponents: Sequence[float],
    scales: Sequence[float],
    epsilon: Any,
) -> tuple[Array, Array]:
    cupy = import_module("cupy")
    dtype = squared.dtype
    *rows, n_columns = squared.shape
    moduli = cupy.empty_like(squared, order="C")
    integrals = cupy.empty((len(exponents), *rows), dtype)
    n_rows = prod(rows)
    source = integration_source(
        dtype.name, tuple(map(float, exponents)), tuple(map(float, scales))
    )
    arguments = (
        cupy.ascontiguousarray(squared),
        cupy.ascontiguousarray(weights),
        cupy.asarray(epsilon, dtype, order="C"),
        np.int32(n_rows // len(weights)),
        np.int32(n_rows // epsilon.size),
        np.int32(n_columns),
        moduli,
        integrals,
    )
    _integrate(source)((n_rows,), (_THREADS,), arguments)
    return moduli, integrals


@cache
def integration_source(
    dtype: str, exponents: tuple[float, ...], scales: tuple[float, ...]
) -> str:
    """Write the kernel that integrates powers for some exponents."""
    terms = []
    for i, (q, scale) in enumerate(zip(exponents, scales, strict=True)):
        power = _POWERS.get(q, _OTHER_POWER).replace("SCALE", f"(T){scale!r}")
        power = power.replace("AREA", f"(T){scale**2!r}").replace("Q", f"(T){q!r}")
        terms.append(f"sums[{i}] += weight * ({power});")
    names = {"TINY": repr(TINY), "N_POWERS": str(len(exponents))}
    source = _INTEGRATE.replace("ADD_POWERS", "\n        ".join(terms))
    for name, value in names.items():
        source = source.replace(name, value)
    return f"typedef {'float' if dtype == 'float32' else 'double'} T;\n" + source


@cache
def _integrate(source: str) -> Any:
    return import_module("cupy").RawKernel(source, "integrate_powers")


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


@cache
def _square() -> Any:
    return import_module("cupy").ElementwiseKernel(
        "T floor", "T squared", "squared = squared * squared + floor", "square"
    )


@cache
def _add_square() -> Any:
    return import_module("cupy").ElementwiseKernel(
        "T component", "T squared", "squared += component * component", "add_square"
    )

"""The protocol of engines, and their input."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Atoms", "Derivatives", "DifferentiableEngine", "Engine"]


class Atoms(NamedTuple):
    """The atoms of a molecule as the source of its densities.

    Attributes
    ----------
    positions : ndarray of shape (n_atoms, 3)
        In the unit of the width.
    charges : ndarray of shape (n_atoms,)
        Nuclear charges.
    weights : ndarray of shape (n_channels, n_atoms)
        Weights of the atoms in each channel.
    cell : ndarray of shape (3, 3) or None
        The vectors of a cell, one a row; None for a free molecule.
    pbc : tuple of bool
        Along which of them the structure repeats.
    reference : ndarray of shape (n_atoms, 3) or None
        Positions of the atoms in another configuration, which give the molecule axes.
    """

    positions: NDArray[np.float64]
    charges: NDArray[Any]
    weights: NDArray[np.float64]
    cell: NDArray[np.float64] | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    reference: NDArray[np.float64] | None = None


class Derivatives(NamedTuple):
    r"""Derivatives of coefficients, or of a sum of them.

    Attributes
    ----------
    positions : ndarray of shape (..., n_atoms, 3)
        With respect to the positions of the atoms.
    strain : ndarray of shape (..., 3, 3)
        With respect to a homogeneous strain e of positions and cell, as in
        :math:`r \to (1 + e) r`; symmetric.
    """

    positions: NDArray[np.float64]
    strain: NDArray[np.float64]


class Engine(Protocol):
    """A way to compute a :class:`~skscatharm.transform.transform.Transform`.

    An engine is made of a transform and an array library. Fields stay inside of it.
    """

    def memory(self, atoms: Atoms) -> float:
        """Estimate the bytes that a molecule needs at least."""
        ...

    def coefficients(self, batch: Sequence[Atoms]) -> NDArray[np.float64]:
        """Compute the coefficients of a batch of molecules.

        Returns
        -------
        ndarray of shape (n_molecules, n_paths, n_channels, n_exponents)
        """
        ...


class DifferentiableEngine(Engine, Protocol):
    """An engine that differentiates coefficients with respect to positions."""

    def jacobian(self, batch: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        """Differentiate the coefficients with respect to the positions.

        Returns
        -------
        list of ndarray of shape (n_paths, n_channels, n_exponents, n_atoms, 3)
        """
        ...

    def gradient(
        self, batch: Sequence[Atoms], weights: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.float64]]:
        """Differentiate a sum of the coefficients with weights.

        The weights are of shape (n_paths, n_channels, n_exponents).

        Returns
        -------
        list of ndarray of shape (n_atoms, 3)
        """
        ...

    def linearize(
        self,
        batch: Sequence[Atoms],
        weigh: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    ) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
        """Compute coefficients, and differentiate sums with weights made of them.

        Parameters
        ----------
        batch : sequence of Atoms
        weigh : callable
            Turns coefficients of shape (n_molecules, n_paths, n_channels, n_exponents)
            into weights of the same shape.

        Returns
        -------
        coefficients : ndarray of that shape
        gradients : list of ndarray of shape (n_atoms, 3)
        """
        ...

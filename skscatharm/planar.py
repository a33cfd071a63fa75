"""The transformer of planar molecules."""

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

from skscatharm._compat import Interval
from skscatharm.engine.arrays import Library
from skscatharm.scattering import (
    SETTINGS,
    MoleculeScattering,
    SolidHarmonicScattering,
)
from skscatharm.store import CoefficientStore
from skscatharm.structures import Structure
from skscatharm.structures.planes import check_planar

__all__ = ["PlanarScattering"]

_DEFAULT = SETTINGS["soft"]


class PlanarScattering(MoleculeScattering):
    r"""Scattering coefficients of planar molecules, in two dimensions.

    A molecule whose atoms lie in a plane becomes a density in that plane for each
    channel k, with weights w and normalised Gaussians g,

    .. math:: \rho_k(u) = \sum_n w_k(Z_n) \, g_\sigma(u - r_n) .

    It is convolved with circular harmonic wavelets of degrees l = 0, ..., L and scales
    :math:`s_j = 2^j \sigma`, j = 0, ..., J, and the modulus follows, once and once more
    with a larger scale. With polar coordinates r and :math:`\theta`,

    .. math::

        \psi_{lj}(u) &= c_l \, s_j^{-2} (r / s_j)^l e^{-r^2 / 2 s_j^2} \, e^{i l
        \theta} , \\
        U_1[j, l] &= |\rho * \psi_{lj}| , \\
        U_2[j_1, j_2, l] &= \big| U_1[j_1, l] * \psi_{lj_2} \big| .

    The coefficients are the integrals of :math:`|\rho|^q`, :math:`U_1^q` and
    :math:`U_2^q` over the plane, in Å^(2 - 2q) times the unit of the weights to the
    power q. They are invariant to translations, rotations and reflections, also of the
    plane in space, and to the order of the atoms. Softening is that of
    :class:`SolidHarmonicScattering`, and so are the channels. The defaults give 500
    coefficients, many times faster than those in three dimensions.

    The plane of each molecule is found: it is that of the smallest root mean square
    distance of the atoms. A molecule beyond `flatness` raises an error, and
    :func:`distances_from_plane` finds such molecules before.

    Parameters
    ----------
    J : int, default=2
        Largest scale, at most 10: the scales are ``sigma * 2**j`` for j = 0, ..., J.
    L : int, default=3
        Largest degree of the wavelets, at most 20.
    Q : sequence of float, default=(0.5, 1.0, 2.0, 3.0, 4.0)
        Pooling exponents, from 0.5 to 32.
    sigma : float, default=0.22
        Width of the Gaussian of an atom, in Å. Time grows like ``sigma**-2``.
    channels : sequence of str or mapping, default=all standard channels
        Densities: names of :data:`~skscatharm.STANDARD_CHANNELS`, or a mapping from
        names to own tables {Z: weight}.
    max_order : {0, 1, 2}, default=2
        Largest order of the coefficients.
    tol : float, default=1e-5
        Relative error that is allowed for the worst coefficient of a typical molecule,
        from 1e-8 to 1e-2.
    softening : float, default=4
        Size of :math:`\epsilon` in units of the weights: 0 for none, or from 1e-6 to
        1e4. Without softening, a small `tol` takes many times as long.
    flatness : float, default=0.01
        Largest root mean square distance of the atoms of a molecule from their plane,
        in Å. Atoms are projected onto the plane.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the fields. A `tol` below 2e-6 requires "float64".
    backend : {"auto", "numpy", "cupy", "torch"}, default="auto"
        The array library that computes. "auto" is PyTorch if `X` is a tensor on a CUDA
        device, otherwise CuPy if it finds a device, otherwise NumPy.
    names : {"plain", "readable"}, default="plain"
        Style of the names of columns: ``S1_nuclear_j0_l1_q2``, which all libraries
        accept, or ``S1[nuclear,j=0,l=1,q=2]``.
    memory : str, path-like, CoefficientStore or None, default=None
        Folder that keeps coefficients, so that each is computed once. It can be that
        of a :class:`SolidHarmonicScattering`.
    n_jobs : int or None, default=None
        Number of joblib workers; None means 1, or the value of a
        :func:`joblib.parallel_config` context. On a device it has no effect.
    verbose : int, default=0
        Show a progress bar if not 0.

    See Also
    --------
    SolidHarmonicScattering : Molecules of any shape, in three dimensions.
    distances_from_plane : Find planar molecules.

    Notes
    -----
    The constants :math:`c_l` make the integral of the modulus of a wavelet one, as in
    three dimensions. Fields of molecules that share a size are computed together, so
    large calls are faster than many small ones.

    References
    ----------
    .. [1] M. Hirn, S. Mallat, N. Poilvert, "Wavelet scattering regression of quantum
       chemical energies", Multiscale Modeling & Simulation 15, 827 (2017).
       https://doi.org/10.1137/16M1075454

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skscatharm import PlanarScattering
    >>> planar = [molecule("C6H6"), molecule("H2O")]
    >>> PlanarScattering().fit_transform(planar).shape
    (2, 500)
    >>> PlanarScattering().fit([molecule("CH4")])
    Traceback (most recent call last):
    ...
    ValueError: Molecule 0 is not planar: its atoms have a root mean square distance
    of 0.5... Å from a plane (at most flatness=0.01 Å is allowed). ...
    """

    def __init__(
        self,
        J: int = _DEFAULT["J"],
        L: int = _DEFAULT["L"],
        Q: Sequence[float] = _DEFAULT["Q"],
        sigma: float = _DEFAULT["sigma"],
        *,
        channels: Sequence[str] | Mapping[str, Mapping[int, float]] = _DEFAULT[
            "channels"
        ],
        max_order: int = _DEFAULT["max_order"],
        tol: float = _DEFAULT["tol"],
        softening: float = _DEFAULT["softening"],
        flatness: float = 0.01,
        dtype: str = "float32",
        backend: str = "auto",
        names: str = "plain",
        memory: str | os.PathLike[str] | CoefficientStore | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.J = J
        self.L = L
        self.Q = Q
        self.sigma = sigma
        self.channels = channels
        self.max_order = max_order
        self.tol = tol
        self.softening = softening
        self.flatness = flatness
        self.dtype = dtype
        self.backend = backend
        self.names = names
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        name: constraint
        for name, constraint in SolidHarmonicScattering._parameter_constraints.items()
        if name not in ("engine", "normalize")
    } | {"flatness": [Interval(Real, 0, None, closed="left")]}

    _limits = ("flatness",)
    _batch = 1024  # of which some have the same size

    def _engine(self, library: Library) -> str:
        return "planar"

    def _check(self, structures: Sequence[Structure]) -> None:
        check_planar(structures, self.flatness)

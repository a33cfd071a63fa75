"""Reference values of scattering coefficients, which share no code with the package.

Everything here follows from the formulas of ``doc/theory.rst`` with NumPy and SciPy
alone. The functions trade speed for accuracy:

===================  ===========================================  ====================
function             which coefficients                           relative error
===================  ===========================================  ====================
`one_atom`           one atom, orders 0 to 2, any degree          1e-11
`two_atoms`          two atoms, orders 0 and 1, any signs         1e-10
`planar`             degree 0 of atoms in a plane, any signs      1e-9
`pair_sum`           q = 2, orders 0 and 1, also of crystals      rounding
`gaussian_products`  degree 0, even q; any q if no weight is < 0  rounding
`dense`              everything, on uniform grids                 set by `step`
===================  ===========================================  ====================

A coefficient is named by `path`, the tuple of its scale indices j (empty for order 0),
its `degree` and its exponent q. Lengths are in the unit of `sigma`.
"""

from references.atoms import one_atom, two_atoms
from references.grids import dense, resolution
from references.planes import planar
from references.sums import gaussian_products, pair_sum

__all__ = [
    "dense",
    "gaussian_products",
    "one_atom",
    "pair_sum",
    "planar",
    "resolution",
    "two_atoms",
]

"""Potentials in ASE: molecular dynamics, relaxation of atoms and cells, vibrations."""

from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from sklearn.utils.validation import check_is_fitted

from skscatharm.potentials import ScatteringPotential

__all__ = ["ScatteringCalculator"]


class ScatteringCalculator(Calculator):
    """Calculator of ASE for a fitted potential.

    ASE expects energies in eV, forces in eV/Å and stresses in eV/Å^3: fit the potential
    to energies, forces and stresses in these units. ``ase.units`` has the factors from
    others.

    Crystals, which are periodic along all vectors of their cell, have a ``stress``, so
    ``ase.filters.FrechetCellFilter`` relaxes their cells.

    Besides ``energy`` (which is also ``free_energy``) and ``forces``, `results` has
    ``energy_uncertainty`` if the regressor estimates one. It grows where a molecule is
    far from the training set.

    Parameters
    ----------
    potential : ScatteringPotential
        A fitted potential.

    Raises
    ------
    NotFittedError
        If the potential was not fitted.

    See Also
    --------
    skscatharm.ScatteringPotential : Learn a potential from energies and forces.

    Examples
    --------
    A potential of H2, from energies alone:

    >>> import numpy as np
    >>> from ase import Atoms
    >>> from skscatharm import ScatteringPotential, SolidHarmonicScattering
    >>> from skscatharm.ase import ScatteringCalculator
    >>> distances = np.linspace(0.64, 0.84, 10)
    >>> frames = [Atoms("H2", [[0, 0, 0], [0, 0, d]]) for d in distances]
    >>> scattering = SolidHarmonicScattering(J=0, L=1, sigma=0.4)
    >>> energies = 18 * (distances - 0.74)**2
    >>> potential = ScatteringPotential(scattering).fit(frames, energies)
    >>> atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])
    >>> atoms.calc = ScatteringCalculator(potential)
    >>> bool(abs(atoms.get_potential_energy() - 18 * 0.06**2) < 0.003)  # eV
    True
    """

    implemented_properties = [  # noqa: RUF012 (ASE declares it so)
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energy_uncertainty",
    ]

    def __init__(self, potential: ScatteringPotential) -> None:
        check_is_fitted(potential)
        super().__init__()
        self.potential = potential

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy and uncertainty; forces and stress if one is asked for.

        Parameters
        ----------
        atoms : ase.Atoms
        properties : sequence of str
        system_changes : sequence of str
            Ignored.
        """
        super().calculate(atoms, properties, system_changes)
        if "stress" in properties and not self.atoms.pbc.all():
            raise PropertyNotImplementedError(
                f"stress of a structure that has no volume (pbc={self.atoms.pbc})"
            )
        # Forces and stress are computed together in hardly more time than either.
        forces = not {"forces", "stress"}.isdisjoint(properties)
        found = self.potential.evaluate(
            [self.atoms], forces=forces, stresses=forces and self.atoms.pbc.all()
        )
        energy = float(found.energies[0])
        self.results = {**self.results, "energy": energy, "free_energy": energy}
        if found.forces is not None:
            self.results["forces"] = found.forces[0]
        if found.stresses is not None:
            self.results["stress"] = found.stresses[0]
        if found.uncertainties is not None:
            self.results["energy_uncertainty"] = float(found.uncertainties[0])

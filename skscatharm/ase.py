"""Potentials in ASE: molecular dynamics, geometry optimisation, vibrations."""

from collections.abc import Sequence

from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from sklearn.utils.validation import check_is_fitted

from skscatharm.potentials import ScatteringPotential

__all__ = ["ScatteringCalculator"]


class ScatteringCalculator(Calculator):
    """Calculator of ASE for a fitted potential.

    ASE expects energies in eV and forces in eV/Å: fit the potential to energies and
    forces in these units. ``ase.units`` has the factors from others.

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
    >>> print(f"{atoms.get_potential_energy():.3f} eV")
    0.065 eV
    """

    implemented_properties = [  # noqa: RUF012 (ASE declares it so)
        "energy",
        "free_energy",
        "forces",
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
        """Compute energy, uncertainty, and forces if they are asked for.

        Parameters
        ----------
        atoms : ase.Atoms
        properties : sequence of str
        system_changes : sequence of str
            Ignored.
        """
        super().calculate(atoms, properties, system_changes)
        found = self.potential.evaluate([self.atoms], forces="forces" in properties)
        energy = float(found.energies[0])
        self.results = {**self.results, "energy": energy, "free_energy": energy}
        if found.forces is not None:
            self.results["forces"] = found.forces[0]
        if found.uncertainties is not None:
            self.results["energy_uncertainty"] = float(found.uncertainties[0])

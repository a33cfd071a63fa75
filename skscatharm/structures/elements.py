"""The chemical elements: symbols, noble gases and covalent radii."""

import numpy as np

__all__ = ["COVALENT_RADII", "NOBLE_GASES", "N_ELEMENTS", "SYMBOLS"]

#: The symbol of each element, by nuclear charge; 0 is no element.
SYMBOLS = (  # noqa: SIM905 (a list would need 118 lines)
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu "
    "Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba "
    "La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi "
    "Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds "
    "Rg Cn Nh Fl Mc Lv Ts Og"
).split()
N_ELEMENTS = len(SYMBOLS) - 1

#: The nuclear charges of the noble gases: each closes a period.
NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)

#: Covalent radii in Å, by nuclear charge; NaN where none was published (above Cm). For
#: C that of sp3, for Mn, Fe and Co those of low spin. From B. Cordero et al., "Covalent
#: radii revisited", Dalton Trans. 2008, 2832. https://doi.org/10.1039/b801115j
COVALENT_RADII = np.full(N_ELEMENTS + 1, np.nan)
# fmt: off
COVALENT_RADII[1:97] = [
    0.31, 0.28,
    1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58,
    1.66, 1.41, 1.21, 1.11, 1.07, 1.05, 1.02, 1.06,
    2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22,
    1.22, 1.20, 1.19, 1.20, 1.20, 1.16,
    2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44,
    1.42, 1.39, 1.39, 1.38, 1.39, 1.40,
    2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92,
    1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32,
    1.45, 1.46, 1.48, 1.40, 1.50, 1.50,
    2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69,
]
# fmt: on
COVALENT_RADII.setflags(write=False)

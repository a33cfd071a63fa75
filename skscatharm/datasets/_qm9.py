"""QM9: 130,831 small organic molecules with twelve properties."""

import warnings
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import get_data_home
from sklearn.utils import Bunch

_DATA = files("skscatharm.datasets") / "data"
_EV = 27.211386245988  # in one hartree
_KCAL_MOL = 627.509474
_ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}


class _Property(NamedTuple):
    """A property of QM9: how its files give it, and how this package does."""

    column: str
    decimals: int  # that the files give
    unit: str
    factor: float = 1.0  # from the unit of the files
    atoms: dict[int, float] | None = None  # references of an atomization energy


_PROPERTIES = {
    "mu": _Property("Dipole_debye", 4, "D"),
    "alpha": _Property("Polarizability_bohr3", 2, "bohr^3"),
    "homo": _Property("HOMO_au", 4, "eV", _EV),
    "lumo": _Property("LUMO_au", 4, "eV", _EV),
    "gap": _Property("HOMO_LUMO_gap_au", 4, "eV", _EV),
    "r2": _Property("R2_bohr2", 4, "bohr^2"),
    "zpve": _Property("ZPVE_au", 6, "eV", _EV),
    "U0": _Property(
        "InternalEnergy_0K_au",
        6,
        "kcal/mol",
        _KCAL_MOL,
        {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    ),
    "U": _Property(
        "InternalEnergy_298K_au",
        6,
        "kcal/mol",
        _KCAL_MOL,
        {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    ),
    "H": _Property(
        "Enthalphy_298K_au",
        6,
        "kcal/mol",
        _KCAL_MOL,
        {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    ),
    "G": _Property(
        "GibbsFreeEnergy_298K_au",
        6,
        "kcal/mol",
        _KCAL_MOL,
        {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
    ),
    "Cv": _Property("Heatcapacity_Cv_cal_mol_K", 3, "cal/mol/K"),
}


class Records(NamedTuple):
    """Molecules as the files of QM9 give them.

    Attributes
    ----------
    ids : ndarray of shape (n_molecules,), dtype int
        Number of the molecule in QM9.
    smiles : ndarray of shape (n_molecules,), dtype str
        SMILES of the molecule.
    charges : ndarray of shape (n_molecules, n_atoms), dtype uint8
        Nuclear charges, padded with zeros.
    positions : ndarray of shape (n_molecules, n_atoms, 3), dtype float64
        Positions in Å, padded with zeros.
    properties : ndarray of shape (n_molecules, 12), dtype float64
        The properties in the units of the files.
    """

    ids: NDArray[np.integer]
    smiles: NDArray[np.str_]
    charges: NDArray[np.uint8]
    positions: NDArray[np.float64]
    properties: NDArray[np.float64]


def qm9pack_folder() -> Path:
    """Find the files of the package qm9pack.

    It is not imported: that would load all its data, and needs pkg_resources.

    Returns
    -------
    folder : Path

    Raises
    ------
    ModuleNotFoundError
        If qm9pack is not installed.
    """
    spec = find_spec("qm9pack")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(
            "QM9 is read from the files of the package qm9pack, which is not "
            "installed: pip install 'skscatharm[qm9]'.",
            name="qm9pack",
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def parse(folder: str | PathLike[str]) -> Records:
    """Read QM9 from the files of the package qm9pack.

    Parameters
    ----------
    folder : path
        Folder with the files ``qm9_part*.csv``.

    Returns
    -------
    records : Records
        All 130,831 molecules, in the order of QM9.
    """
    import pandas as pd

    columns = [p.column for p in _PROPERTIES.values()]
    text = ["SMILES", "Elements", "XYZ_Ang"]
    table = pd.concat(
        pd.read_csv(part, usecols=["Index", "N_atoms", *text, *columns])
        for part in sorted(Path(folder).glob("qm9_part*.csv"))
    )
    n_atoms = table["N_atoms"].to_numpy()
    occupied = np.arange(n_atoms.max()) < n_atoms[:, np.newaxis]

    # The lists read ['C','H',...] and [[0.1,0.2,0.3],...]; parsed all at once, since
    # a parser for each molecule would take a minute.
    charge_of = np.zeros(256, np.uint8)
    charge_of[[ord(symbol) for symbol in _ATOMIC_NUMBERS]] = [*_ATOMIC_NUMBERS.values()]
    letters = "".join(table["Elements"]).translate({ord(c): None for c in "[]',"})
    charges = np.zeros(occupied.shape, np.uint8)
    charges[occupied] = charge_of[np.frombuffer(letters.encode(), np.uint8)]

    numbers = ",".join(table["XYZ_Ang"]).translate({ord(c): None for c in "[]"})
    positions = np.zeros((*occupied.shape, 3))
    positions[occupied] = np.fromstring(numbers, sep=",").reshape(-1, 3)

    return Records(
        ids=table["Index"].to_numpy(),
        smiles=table["SMILES"].to_numpy(dtype=np.str_),
        charges=charges,
        positions=positions,
        properties=table[columns].to_numpy(dtype=np.float64),
    )


def pack(records: Records) -> dict[str, NDArray[Any]]:
    """Turn molecules into small integers and bytes, which compress well.

    The properties lose nothing; the positions keep 1e-5 Å.
    """
    decimals = np.array([p.decimals for p in _PROPERTIES.values()])
    return {
        "ids": records.ids.astype(np.int32),
        "smiles": np.char.encode(records.smiles, "ascii"),
        "charges": records.charges,
        "positions": np.rint(1e5 * records.positions[records.charges > 0]).astype(
            np.int32
        ),
        "properties": np.rint(10.0**decimals * records.properties).astype(np.int32),
    }


def unpack(packed: Any) -> Records:
    """Undo :func:`pack`."""
    charges = packed["charges"]
    positions = np.zeros((*charges.shape, 3))
    positions[charges > 0] = packed["positions"] / 1e5
    decimals = np.array([p.decimals for p in _PROPERTIES.values()])
    return Records(
        ids=packed["ids"],
        smiles=np.char.decode(packed["smiles"], "ascii"),
        charges=charges,
        positions=positions,
        properties=packed["properties"] / 10.0**decimals,
    )


def _targets(records: Records) -> NDArray[np.float64]:
    """Convert the properties to the units of this package."""
    targets = records.properties.copy()
    for column, p in zip(targets.T, _PROPERTIES.values(), strict=True):
        if p.atoms is not None:
            reference = np.zeros(256)
            reference[list(p.atoms)] = list(p.atoms.values())
            column[:] = reference[records.charges].sum(axis=1) - column
        column *= p.factor
    return targets


def _read_sample() -> Records:
    """Read the molecules that come with the package."""
    with _DATA.joinpath("qm9_sample.npz").open("rb") as file:
        return unpack(np.load(file, allow_pickle=False))


def _read_all(data_home: str | PathLike[str] | None) -> Records:
    """Read all molecules, as kept or from qm9pack, and keep them."""
    path = Path(get_data_home(data_home)) / "skscatharm_qm9.npz"
    if path.exists():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return Records(**kept)
        except Exception as error:  # whatever damage does to a zip file
            warnings.warn(
                f"{path} cannot be read, so QM9 is parsed again: {error}",
                stacklevel=4,  # the caller of fetch_qm9
            )
    records = parse(qm9pack_folder())
    # Processes that come at the same time must not see, or write to, half a file.
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as new:
            # Compressed, it would take half the space and five times as long to load.
            np.savez(new, **records._asdict())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return records


def _dataset(
    read: Callable[[], Records],
    description: str,
    *,
    return_X_y: bool,
    as_frame: bool,
    target: str,
) -> Any:
    """Give what `read` returns the form of a dataset of scikit-learn."""
    if target != "all" and target not in _PROPERTIES:
        raise ValueError(
            f"target {target!r} is no property of QM9; choose 'all' or one of "
            f"{', '.join(_PROPERTIES)}."
        )
    records = read()  # after the check, since it can take long
    data = np.concatenate(
        [records.charges[:, :, np.newaxis], records.positions], axis=2
    )
    names = list(_PROPERTIES) if target == "all" else [target]
    targets = _targets(records)
    y: Any = targets if target == "all" else targets[:, list(_PROPERTIES).index(target)]
    extra = {}
    if as_frame:
        import pandas as pd

        frame = pd.DataFrame(
            targets, columns=list(_PROPERTIES), index=pd.Index(records.ids, name="id")
        )
        y = frame[names] if target == "all" else frame[target]
        frame.insert(0, "smiles", records.smiles)
        extra["frame"] = frame

    if return_X_y:
        return data, y
    return Bunch(
        data=data,
        target=y,
        target_names=names,
        target_units=[_PROPERTIES[name].unit for name in names],
        ids=records.ids,
        smiles=records.smiles,
        DESCR="".join(
            _DATA.joinpath(name).read_text(encoding="utf-8")
            for name in (description, "qm9_common.rst")
        ),
        **extra,
    )


def load_qm9_sample(
    *, return_X_y: bool = False, as_frame: bool = False, target: str = "U0"
) -> Any:
    r"""Load 2,000 molecules drawn at random from QM9, with twelve properties.

    QM9 holds the relaxed geometries of small organic molecules of up to nine atoms of
    C, N, O and F beside H, and their properties at the level B3LYP/6-31G(2df,p). The
    energies are given as atomization energies, the energy that it takes to pull the
    molecule apart into its atoms, positive for all of them:

    .. math:: E_\text{atomization} = \sum_n E_\text{atom}(Z_n) - E_\text{molecule}

    =========  ===================================================  =========
    Name       Property                                             Unit
    =========  ===================================================  =========
    ``mu``     Dipole moment                                        D
    ``alpha``  Isotropic polarizability                             bohr^3
    ``homo``   Energy of the highest occupied orbital               eV
    ``lumo``   Energy of the lowest unoccupied orbital              eV
    ``gap``    Difference of the two                                eV
    ``r2``     Electronic spatial extent                            bohr^2
    ``zpve``   Zero-point vibrational energy                        eV
    ``U0``     Atomization energy at 0 K                            kcal/mol
    ``U``      Atomization energy at 298.15 K                       kcal/mol
    ``H``      Atomization enthalpy at 298.15 K                     kcal/mol
    ``G``      Atomization free energy at 298.15 K                  kcal/mol
    ``Cv``     Heat capacity at constant volume, 298.15 K           cal/mol/K
    =========  ===================================================  =========

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of a Bunch.
    as_frame : bool, default=False
        Give the target as a pandas Series or DataFrame indexed by `ids`, and all
        properties in `frame`. The molecules stay an array. Needs pandas.
    target : str, default="U0"
        Name of the property to predict, or ``"all"`` for all twelve.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes:

        data : ndarray of shape (2000, n_atoms, 4)
            Molecules in random order: columns Z, x, y, z, positions in Å (to 1e-5 Å),
            padded with rows of zeros.
        target : ndarray of shape (2000,), or (2000, 12) for ``target="all"``
            The property to predict.
        target_names : list of str
            Names of the properties in `target`.
        target_units : list of str
            Their units.
        ids : ndarray of shape (2000,)
            Numbers of the molecules in QM9.
        smiles : ndarray of shape (2000,)
            SMILES of the molecules.
        frame : DataFrame of shape (2000, 13)
            SMILES and all twelve properties. Only with ``as_frame=True``.
        DESCR : str
            Where the data come from.

    (data, target) : tuple, if ``return_X_y=True``
        The first two of these.

    Raises
    ------
    ValueError
        If `target` is the name of no property.

    See Also
    --------
    fetch_qm9 : All of QM9.

    References
    ----------
    .. [1] R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, "Quantum
       chemistry structures and properties of 134 kilo molecules", Scientific Data 1,
       140022 (2014). https://doi.org/10.1038/sdata.2014.22

    Examples
    --------
    >>> from skscatharm.datasets import load_qm9_sample
    >>> X, y = load_qm9_sample(return_X_y=True)
    >>> X.shape, y.shape
    ((2000, 27, 4), (2000,))
    >>> sample = load_qm9_sample(target="gap")
    >>> sample.target_units
    ['eV']
    """
    return _dataset(
        _read_sample,
        "qm9_sample.rst",
        return_X_y=return_X_y,
        as_frame=as_frame,
        target=target,
    )


def fetch_qm9(
    *,
    data_home: str | PathLike[str] | None = None,
    return_X_y: bool = False,
    as_frame: bool = False,
    target: str = "U0",
) -> Any:
    """Load all 130,831 molecules of QM9, with twelve properties.

    The first call reads them from the files of the package qm9pack
    (``pip install 'skscatharm[qm9]'``) and keeps them in one file of 123 MB in the data
    home of scikit-learn, ``skscatharm_qm9.npz``. Later calls load this file, and need
    neither qm9pack nor pandas. :func:`~skscatharm.datasets.load_qm9_sample` lists the
    properties.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder to keep the molecules in. None is that of
        :func:`sklearn.datasets.get_data_home`, by default ``~/scikit_learn_data``.
    return_X_y : bool, default=False
        Return ``(data, target)`` in place of a Bunch.
    as_frame : bool, default=False
        Give the target as a pandas Series or DataFrame indexed by `ids`, and all
        properties in `frame`. The molecules stay an array. Needs pandas.
    target : str, default="U0"
        Name of the property to predict, or ``"all"`` for all twelve.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes:

        data : ndarray of shape (130831, 29, 4)
            Molecules in the order of QM9: columns Z, x, y, z, positions in Å, padded
            with rows of zeros. The positions are exactly those of the files, whereas
            :func:`~skscatharm.datasets.load_qm9_sample` rounds them to 1e-5 Å.
        target : ndarray of shape (130831,), or (130831, 12) for ``target="all"``
            The property to predict.
        target_names : list of str
            Names of the properties in `target`.
        target_units : list of str
            Their units.
        ids : ndarray of shape (130831,)
            Numbers of the molecules in QM9.
        smiles : ndarray of shape (130831,)
            SMILES of the molecules.
        frame : DataFrame of shape (130831, 13)
            SMILES and all twelve properties. Only with ``as_frame=True``.
        DESCR : str
            Where the data come from.

    (data, target) : tuple, if ``return_X_y=True``
        The first two of these.

    Raises
    ------
    ValueError
        If `target` is the name of no property.
    ModuleNotFoundError
        If nothing is kept and qm9pack is not installed.

    Warns
    -----
    UserWarning
        If the kept file is damaged. The molecules are read from qm9pack again.

    See Also
    --------
    load_qm9_sample : 2,000 of the molecules, which come with the package.

    References
    ----------
    .. [1] R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, "Quantum
       chemistry structures and properties of 134 kilo molecules", Scientific Data 1,
       140022 (2014). https://doi.org/10.1038/sdata.2014.22

    Examples
    --------
    >>> from skscatharm.datasets import fetch_qm9
    >>> X, y = fetch_qm9(return_X_y=True)  # doctest: +SKIP
    >>> X.shape, y.shape  # doctest: +SKIP
    ((130831, 29, 4), (130831,))
    """
    return _dataset(
        partial(_read_all, data_home),
        "qm9.rst",
        return_X_y=return_X_y,
        as_frame=as_frame,
        target=target,
    )

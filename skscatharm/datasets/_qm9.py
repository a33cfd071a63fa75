"""QM9: 130,831 small organic molecules with twelve properties."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from io import BytesIO
from os import PathLike
from pathlib import Path
from time import time
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import get_data_home
from sklearn.utils import Bunch

_INSTALL = (
    "Run pip install qm9pack pandas, or pip install '.[qm9]' in a checkout of "
    "skscatharm."
)
_DATA = files("skscatharm.datasets") / "data"
_EV = 27.211386245988  # in one hartree
_KCAL_MOL = 627.509474
_ABANDONED = 3600  # seconds after which a temporary file has lost its writer
_ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}


class _Property(NamedTuple):
    """A property in the files of QM9, and its conversion to the unit used here."""

    column: str
    decimals: int  # in the files
    unit: str
    factor: float = 1.0  # from the unit of the files
    atoms: dict[int, float] | None = None  # energies of the free atoms


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
    """Molecules and properties in the units of the files of QM9.

    Attributes
    ----------
    ids : ndarray of shape (n_molecules,), dtype int
        Numbers of the molecules in QM9.
    smiles : ndarray of shape (n_molecules,), dtype str
        SMILES of the molecules.
    charges : ndarray of shape (n_molecules, n_atoms), dtype uint8
        Nuclear charges, padded with zeros.
    positions : ndarray of shape (n_molecules, n_atoms, 3), dtype float64
        Positions in Å, padded with zeros.
    properties : ndarray of shape (n_molecules, 12), dtype float64
        Properties in the units of the files.
    """

    ids: NDArray[np.integer]
    smiles: NDArray[np.str_]
    charges: NDArray[np.uint8]
    positions: NDArray[np.float64]
    properties: NDArray[np.float64]


def qm9pack_folder() -> Path:
    """Find the data folder of the package qm9pack without importing it.

    The import would load all data, and requires the removed module pkg_resources.

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
            "The molecules of QM9 come from the package qm9pack, which is not "
            f"installed. {_INSTALL}",
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

    Raises
    ------
    ModuleNotFoundError
        If pandas is not installed.
    FileNotFoundError
        If the folder has no such files.
    """
    pd = _import_pandas("Reading the files of qm9pack")
    parts = sorted(Path(folder).glob("qm9_part*.csv"))
    if not parts:
        raise FileNotFoundError(
            f"{folder} has no file qm9_part*.csv. Install qm9pack again: "
            "pip install --force-reinstall qm9pack."
        )
    columns = [p.column for p in _PROPERTIES.values()]
    text = ["SMILES", "Elements", "XYZ_Ang"]
    table = pd.concat(
        pd.read_csv(part, usecols=["Index", "N_atoms", *text, *columns])
        for part in parts
    )
    n_atoms = table["N_atoms"].to_numpy()
    occupied = np.arange(n_atoms.max()) < n_atoms[:, np.newaxis]

    # The lists are written as ['C','H',...] and [[0.1,0.2,0.3],...]. Parsing all at
    # once is fast; one call for each molecule would need a minute.
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
    """Convert molecules to small integers and bytes, which compress well.

    Properties stay exact, and positions are rounded to 1e-5 Å.
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
    """Invert :func:`pack`."""
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


def _import_pandas(purpose: str) -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{purpose} requires pandas: pip install pandas.", name="pandas"
        ) from error
    return pd


def _read_sample() -> Records:
    """Read the molecules that come with the package."""
    with _DATA.joinpath("qm9_sample.npz").open("rb") as file:
        return unpack(np.load(file, allow_pickle=False))


def _read_all(data_home: str | PathLike[str] | None) -> Records:
    """Load all molecules from the data home, or parse and save them."""
    problem = None
    try:
        path = Path(get_data_home(data_home)) / "skscatharm_qm9.npz"
        kept = _load(path)
        if kept is not None:
            return kept
    except OSError as error:
        problem = error
    records = parse(qm9pack_folder())
    if problem is None:
        try:
            _save(records, path)
        except OSError as error:
            problem = error
    if problem is not None:
        warnings.warn(
            "QM9 was parsed but could not be saved, so the next call parses it again: "
            f"{problem}. Pass a folder with 123 MB of free space as data_home.",
            stacklevel=4,  # the caller of fetch_qm9
        )
    return records


def _load(path: Path) -> Records | None:
    """Load the saved molecules. Return None if there are none, or remove damaged ones.

    Raises
    ------
    PermissionError
        If the file or its folder may not be read.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            records = Records(**kept)
        n, n_atoms = records.charges.shape
        shapes = [(n,), (n,), (n, n_atoms), (n, n_atoms, 3), (n, len(_PROPERTIES))]
        if [array.shape for array in records] != shapes:
            raise ValueError("its arrays have wrong shapes")
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # damage to a zip file has errors of many kinds
        with suppress(OSError):
            path.unlink()
        warnings.warn(
            f"{path} cannot be read, so QM9 is parsed again: {error}",
            stacklevel=5,  # the caller of fetch_qm9
        )
        return None
    return records


def _save(records: Records, path: Path) -> None:
    """Save the molecules, so that no other process sees or writes half a file."""
    for other in path.parent.glob(f"{path.name}.*.tmp"):
        with suppress(OSError):  # another process can be faster
            if time() - other.stat().st_mtime > _ABANDONED:
                other.unlink()
    content = BytesIO()  # NumPy 2.0 does not close a file that it fails to write
    # Compressed, it would need half the space and five times as long to load.
    np.savez(content, **records._asdict())
    temporary = path.with_name(f"{path.name}.{uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content.getbuffer())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _choose(target: Any) -> list[str]:
    """Return the names of the properties to predict."""
    names = [target]
    if isinstance(target, str) and target == "all":
        names = list(_PROPERTIES)
    elif isinstance(target, list | tuple | np.ndarray):
        names = list(target)
    if not names or not all(isinstance(n, str) and n in _PROPERTIES for n in names):
        raise ValueError(
            f"target={target!r} is not a property of QM9: choose 'all' or one of "
            f"{', '.join(_PROPERTIES)}, or a list of them."
        )
    return names


def _dataset(
    read: Callable[[], Records],
    description: str,
    *,
    return_X_y: bool,
    as_frame: bool,
    target: str | Sequence[str],
) -> Any:
    """Convert the molecules that `read` returns to a dataset as in scikit-learn."""
    # Reading can be slow, so arguments are checked first.
    names = _choose(target)
    pd = _import_pandas("as_frame=True") if as_frame else None
    records = read()
    data = np.concatenate(
        [records.charges[:, :, np.newaxis], records.positions], axis=2
    )
    targets = _targets(records)
    y: Any = targets[:, [list(_PROPERTIES).index(name) for name in names]]
    extra = {}
    if pd is not None:
        frame = pd.DataFrame(
            targets, columns=list(_PROPERTIES), index=pd.Index(records.ids, name="id")
        )
        y = frame[names]
        frame.insert(0, "smiles", records.smiles)
        extra["frame"] = frame
    if isinstance(target, str) and target != "all":
        y = y[target] if as_frame else y[:, 0]

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
    *,
    return_X_y: bool = False,
    as_frame: bool = False,
    target: str | Sequence[str] = "U0",
) -> Any:
    r"""Load 2,000 molecules drawn at random from QM9, with twelve properties.

    QM9 contains relaxed geometries of small organic molecules with up to nine C, N, O
    and F atoms, besides H, and their properties computed with B3LYP/6-31G(2df,p).
    Energies are atomization energies, the energies to separate a molecule into its
    atoms. They are positive:

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
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return the target as a pandas Series or DataFrame indexed by `ids`, and all
        properties in `frame`. The molecules stay an array. Requires pandas.
    target : str or list of str, default="U0"
        Name of the property to predict, a list of names, or ``"all"`` for all twelve.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes:

        data : ndarray of shape (2000, n_atoms, 4)
            Molecules in random order, with columns Z, x, y, z. Positions are in Å,
            rounded to 1e-5 Å. Rows of zeros are padding.
        target : ndarray of shape (2000,) or (2000, n_targets)
            The property to predict, or one column for each name in `target_names`.
        target_names : list of str
            Names of the properties in `target`.
        target_units : list of str
            Units of the properties in `target`.
        ids : ndarray of shape (2000,)
            Numbers of the molecules in QM9.
        smiles : ndarray of shape (2000,)
            SMILES of the molecules.
        frame : DataFrame of shape (2000, 13)
            SMILES and all twelve properties. Only with ``as_frame=True``.
        DESCR : str
            Description of the data and their sources.

    (data, target) : tuple, if ``return_X_y=True``
        The molecules and the property to predict.

    Raises
    ------
    ValueError
        If `target` is not a property.
    ModuleNotFoundError
        If `as_frame` is True and pandas is not installed.

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
    >>> sample = load_qm9_sample(target=["gap", "mu"])
    >>> sample.target.shape, sample.target_units
    ((2000, 2), ['eV', 'D'])
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
    target: str | Sequence[str] = "U0",
) -> Any:
    """Load all 130,831 molecules of QM9, with twelve properties.

    The first call parses the files of the package qm9pack, which takes some seconds,
    and saves the molecules in the data home of scikit-learn, as ``skscatharm_qm9.npz``
    of 123 MB. It requires qm9pack and pandas: ``pip install qm9pack pandas``. Later
    calls load the saved file and require neither.
    :func:`~skscatharm.datasets.load_qm9_sample` lists the properties.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder for the saved molecules. None means the data home of scikit-learn, by
        default ``~/scikit_learn_data``; see :func:`sklearn.datasets.get_data_home`.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Return the target as a pandas Series or DataFrame indexed by `ids`, and all
        properties in `frame`. The molecules stay an array. Requires pandas.
    target : str or list of str, default="U0"
        Name of the property to predict, a list of names, or ``"all"`` for all twelve.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the attributes:

        data : ndarray of shape (130831, 29, 4)
            Molecules in the order of QM9, with columns Z, x, y, z. Positions are in Å
            and exactly those of qm9pack: they are not rounded as in
            :func:`~skscatharm.datasets.load_qm9_sample`. Rows of zeros are padding.
        target : ndarray of shape (130831,) or (130831, n_targets)
            The property to predict, or one column for each name in `target_names`.
        target_names : list of str
            Names of the properties in `target`.
        target_units : list of str
            Units of the properties in `target`.
        ids : ndarray of shape (130831,)
            Numbers of the molecules in QM9.
        smiles : ndarray of shape (130831,)
            SMILES of the molecules.
        frame : DataFrame of shape (130831, 13)
            SMILES and all twelve properties. Only with ``as_frame=True``.
        DESCR : str
            Description of the data and their sources.

    (data, target) : tuple, if ``return_X_y=True``
        The molecules and the property to predict.

    Raises
    ------
    ValueError
        If `target` is not a property.
    ModuleNotFoundError
        If nothing is saved yet and qm9pack or pandas is not installed, or if `as_frame`
        is True and pandas is not installed.

    Warns
    -----
    UserWarning
        If the saved file is damaged: it is removed, and the molecules are parsed again.
        If the molecules cannot be saved in `data_home`: they are returned all the same.

    See Also
    --------
    load_qm9_sample : 2,000 of the molecules, which are part of the package.

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

import importlib.util
import os
import re
import runpy
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import KDTree

from skscatharm.datasets import fetch_qm9, load_qm9_sample
from skscatharm.datasets._qm9 import (
    Records,
    _targets,
    pack,
    parse,
    qm9pack_folder,
    unpack,
)
from skscatharm.structures import check_structures

NAMES = ["mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv"]
SAMPLE = files("skscatharm.datasets") / "data" / "qm9_sample.npz"
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "qm9" / "draw_sample.py"
QM9PACK = importlib.util.find_spec("qm9pack")

# Methane, ammonia and water as qm9pack gives them.
FILE = """\
Index,SMILES,N_atoms,Elements,XYZ_Ang,Dipole_debye,Polarizability_bohr3,HOMO_au,\
LUMO_au,HOMO_LUMO_gap_au,R2_bohr2,ZPVE_au,InternalEnergy_0K_au,\
InternalEnergy_298K_au,Enthalphy_298K_au,GibbsFreeEnergy_298K_au,\
Heatcapacity_Cv_cal_mol_K
1,"C",5,"['C','H','H','H','H']","[[-0.0126981359,1.0858041578,0.0080009958],\
[0.002150416,-0.0060313176,0.0019761204],[1.0117308433,1.4637511618,0.0002765748],\
[-0.540815069,1.4475266138,-0.8766437152],[-0.5238136345,1.4379326443,0.9063972942]]",\
0.,13.21,-0.3877,0.1171,0.5048,35.3641,0.044749,-40.47893,-40.476062,-40.475117,\
-40.498597,6.469
2,"N",4,"['N','H','H','H']","[[-0.0404260543,1.0241077531,0.0625637998],\
[0.0172574639,0.0125452063,-0.0273771593],[0.9157893661,1.3587451948,-0.0287577581],\
[-0.5202777357,1.3435321258,-0.7755426124]]",1.6256,9.46,-0.257,0.0829,0.3399,\
26.1563,0.034358,-56.525887,-56.523026,-56.522082,-56.544961,6.316
3,"O",3,"['O','H','H']","[[-0.0343604951,0.9775395708,0.0076015923],\
[0.0647664923,0.0205721989,0.0015346341],[0.8717903737,1.3007924048,0.0006931336]]",\
1.8511,6.31,-0.2928,0.0687,0.3615,19.0002,0.021375,-76.404702,-76.401867,-76.400922,\
-76.422349,6.002
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data home of scikit-learn, not there yet."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a qm9pack of three molecules, which cannot be imported."""
    data = tmp_path / "packages" / "qm9pack" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("import pkg_resources_is_gone")
    (data / "qm9_part1.csv").write_text(FILE)
    monkeypatch.syspath_prepend(data.parents[1])
    return data / "qm9_part1.csv"


@pytest.fixture
def kept(home: Path, source: Path) -> Path:
    """The file that the first call has kept."""
    fetch_qm9()
    (file,) = home.iterdir()
    return file


@pytest.fixture
def records(source: Path) -> Records:
    return parse(source.parent)


def test_shapes(qm9) -> None:
    assert qm9.data.shape == (2000, 27, 4)
    assert qm9.target.shape == (2000, 12)
    assert qm9.target_names == NAMES
    assert len(qm9.target_units) == 12
    assert qm9.ids.shape == qm9.smiles.shape == (2000,)


def test_default_is_atomization_energy_at_0_K(qm9) -> None:
    sample = load_qm9_sample()
    assert sample.target_names == ["U0"]
    assert sample.target_units == ["kcal/mol"]
    assert_array_equal(sample.target, qm9.target[:, 7])


@pytest.mark.parametrize("name", NAMES)
def test_one_target(name: str, qm9) -> None:
    X, y = load_qm9_sample(return_X_y=True, target=name)
    assert_array_equal(X, qm9.data)
    assert_array_equal(y, qm9.target[:, NAMES.index(name)])


def test_all_targets(qm9) -> None:
    X, y = load_qm9_sample(return_X_y=True, target="all")
    assert_array_equal(X, qm9.data)
    assert_array_equal(y, qm9.target)


def test_series(qm9) -> None:
    X, y = load_qm9_sample(return_X_y=True, as_frame=True, target="gap")
    expected = pd.Series(qm9.target[:, 4], index=pd.Index(qm9.ids, name="id"))
    pd.testing.assert_series_equal(y, expected.rename("gap"))
    assert isinstance(X, np.ndarray)


def test_frame(qm9) -> None:
    sample = load_qm9_sample(as_frame=True, target="all")
    assert list(sample.target.columns) == NAMES
    assert_array_equal(sample.target.to_numpy(), qm9.target)
    assert list(sample.frame.columns) == ["smiles", *NAMES]
    assert_array_equal(sample.frame.index, qm9.ids)
    assert_array_equal(sample.frame["smiles"], qm9.smiles)


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_several_targets(kind, qm9) -> None:
    sample = load_qm9_sample(target=kind(["U0", "mu"]))
    assert_array_equal(sample.target, qm9.target[:, [7, 0]])
    assert list(sample.target_names) == ["U0", "mu"]
    assert sample.target_units == ["kcal/mol", "D"]
    assert load_qm9_sample(target=["gap"]).target.shape == (2000, 1)


def test_frame_of_several_targets(qm9) -> None:
    _, y = load_qm9_sample(return_X_y=True, as_frame=True, target=["U0", "mu"])
    expected = pd.DataFrame(
        qm9.target[:, [7, 0]], columns=["U0", "mu"], index=pd.Index(qm9.ids, name="id")
    )
    pd.testing.assert_frame_equal(y, expected)


UNKNOWN = ["u0", "energy", "", None, 7, [], ["U0", "u0"], ["U0", 7], [["U0"]], {"U0"}]


@pytest.mark.parametrize("target", UNKNOWN)
def test_unknown_target(target) -> None:
    message = re.escape(f"target={target!r} is not a property of QM9: choose")
    with pytest.raises(ValueError, match=message):
        load_qm9_sample(target=target)


def test_every_call_gives_arrays_of_its_own(qm9) -> None:
    sample = load_qm9_sample(target="all")
    sample.data[:] = sample.target[:] = 0
    assert_array_equal(load_qm9_sample(target="all").data, qm9.data)


def test_description_lists_properties_and_units(qm9) -> None:
    for name, unit in zip(qm9.target_names, qm9.target_units, strict=True):
        line = next(s for s in qm9.DESCR.splitlines() if s.startswith(f"    - {name}:"))
        assert line.endswith(f", {unit}")


def test_file_is_small_and_holds_no_objects() -> None:
    with SAMPLE.open("rb") as file:
        assert file.seek(0, 2) < 500_000
        file.seek(0)
        arrays = np.load(file, allow_pickle=False)
        assert all(arrays[name].dtype != object for name in arrays)


def test_molecules_are_distinct_and_in_random_order(qm9) -> None:
    assert len(set(qm9.ids)) == 2000
    assert qm9.ids.min() >= 1
    assert qm9.ids.max() <= 133_885
    # Of a random order, the correlation with the place is within 4/sqrt(2000).
    assert abs(np.corrcoef(qm9.ids, np.arange(2000))[0, 1]) < 0.09


def test_charges_agree_with_smiles(qm9) -> None:
    for molecule, smiles in zip(qm9.data, qm9.smiles, strict=True):
        heavy = np.sort(molecule[molecule[:, 0] > 1, 0])
        letters = [c.upper() for c in smiles if c in "CNOFcno"]
        assert_array_equal(heavy, np.sort([" H    CNOF".index(c) for c in letters]))


def test_geometries_are_those_of_molecules(qm9) -> None:
    for charges, positions, *_ in check_structures(qm9.data):
        distances, neighbours = KDTree(positions).query(positions, k=2)
        hydrogen = charges == 1
        to_heavy = charges[neighbours[:, 1]] > 1
        assert to_heavy[hydrogen].all()
        assert (np.abs(distances[hydrogen, 1] - 1.05) < 0.12).all()
        assert (distances[:, 1] < 1.6).all()


def test_gap_is_lumo_minus_homo(qm9) -> None:
    homo, lumo, gap = qm9.target[:, 2:5].T
    # All three were rounded to 1e-4 hartree.
    assert_allclose(gap, lumo - homo, rtol=0, atol=1.6e-4 * 27.2114)


def test_thermodynamics(qm9) -> None:
    targets = dict(zip(NAMES, qm9.target.T, strict=True))
    n_atoms = (qm9.data[:, :, 0] > 0).sum(axis=1)
    RT = 8.314462618e-3 / 4.184 * 298.15
    # The atoms and the molecule are ideal gases: H = U + RT for each of them.
    assert_allclose(targets["H"] - targets["U"], (n_atoms - 1) * RT, atol=0.02)
    assert (targets["G"] < targets["U0"]).all()
    assert (targets["U0"] < targets["U"]).all()
    # A bond of a stable molecule takes some 50 to 150 kcal/mol.
    assert (targets["U0"] / (n_atoms - 1) > 50).all()
    assert (targets["U0"] / (n_atoms - 1) < 200).all()
    # At least translation and rotation store heat.
    assert (targets["Cv"] > 3 * RT / 0.29815).all()


def test_parsed_molecules(records: Records) -> None:
    assert_array_equal(records.ids, [1, 2, 3])
    assert_array_equal(records.smiles, ["C", "N", "O"])
    expected = [[6, 1, 1, 1, 1], [7, 1, 1, 1, 0], [8, 1, 1, 0, 0]]
    assert_array_equal(records.charges, expected)
    assert_array_equal(
        records.positions[2, 1], [0.0647664923, 0.0205721989, 0.0015346341]
    )
    assert not records.positions[2, 3:].any()


def test_published_atomization_energies(records: Records) -> None:
    # The columns *_atom of QM9 in MoleculeNet, with the opposite sign.
    expected = [
        [395.999594594, 398.643290011, 401.014646522, 372.471772148],
        [276.861363363, 278.620270919, 280.399259105, 259.338802048],
        [213.087624424, 213.974294294, 215.159658374, 201.407171167],
    ]
    assert_allclose(_targets(records)[:, 7:11], expected, rtol=1e-6)


def test_units_of_methane(records: Records) -> None:
    methane = dict(zip(NAMES, _targets(records)[0], strict=True))
    assert methane["mu"] == 0
    assert methane["alpha"] == 13.21
    assert methane["r2"] == 35.3641
    assert methane["Cv"] == 6.469
    assert_allclose(methane["gap"], 13.7363, rtol=1e-5)
    assert_allclose(methane["zpve"], 1.21768, rtol=1e-5)


def test_pack_loses_no_more_than_stated(records: Records) -> None:
    unpacked = unpack(pack(records))
    assert_allclose(unpacked.positions, records.positions, rtol=0, atol=0.51e-5)
    for name in ("ids", "smiles", "charges", "properties"):
        assert_array_equal(getattr(unpacked, name), getattr(records, name))


def test_qm9pack_is_found_but_not_imported(source: Path) -> None:
    assert qm9pack_folder() == source.parent
    assert "qm9pack" not in sys.modules


def test_fetched_bunch(home: Path, source: Path, records: Records, qm9) -> None:
    fetched = fetch_qm9(target="all")
    assert set(fetched) == set(qm9)
    assert_array_equal(fetched.data[:, :, 0], records.charges)
    assert_array_equal(fetched.data[:, :, 1:], records.positions)
    assert_array_equal(fetched.target, _targets(records))
    assert fetched.target_names == qm9.target_names
    assert fetched.target_units == qm9.target_units
    assert_array_equal(fetched.ids, [1, 2, 3])
    assert_array_equal(fetched.smiles, ["C", "N", "O"])
    assert "130,831 molecules" in fetched.DESCR
    common = qm9.DESCR[qm9.DESCR.index(":Properties:") :]
    assert fetched.DESCR.endswith(common)


@pytest.mark.parametrize("name", NAMES)
def test_one_fetched_target(name: str, kept: Path, records: Records) -> None:
    X, y = fetch_qm9(return_X_y=True, target=name)
    assert X.shape == (3, 5, 4)
    assert_array_equal(y, _targets(records)[:, NAMES.index(name)])


def test_fetched_frame(kept: Path) -> None:
    fetched = fetch_qm9(as_frame=True, target="all")
    X, y = fetch_qm9(as_frame=True, target="gap", return_X_y=True)
    assert list(fetched.frame.columns) == ["smiles", *NAMES]
    assert list(fetched.frame.index) == [1, 2, 3]
    pd.testing.assert_frame_equal(fetched.target, fetched.frame[NAMES])
    pd.testing.assert_series_equal(y, fetched.frame["gap"])
    assert isinstance(X, np.ndarray)


def test_kept_positions_are_exact(kept: Path, source: Path) -> None:
    source.unlink()
    position = fetch_qm9().data[2, 1, 1:]
    assert_array_equal(position, [0.0647664923, 0.0205721989, 0.0015346341])


def test_files_are_parsed_once(
    kept: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch_qm9(target="all")
    source.unlink()
    for package in ("qm9pack", "pandas"):
        monkeypatch.setitem(sys.modules, package, None)
    second = fetch_qm9(target="all")
    for name in first:
        assert_array_equal(second[name], first[name])


@pytest.mark.parametrize("kind", [str, Path])
def test_data_home(
    kind: Callable[[Path], Any], home: Path, source: Path, tmp_path: Path
) -> None:
    fetch_qm9(data_home=kind(tmp_path / "elsewhere"))
    assert [file.suffix for file in (tmp_path / "elsewhere").iterdir()] == [".npz"]
    assert not home.exists()


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "short of a byte": lambda content: content[:-1],
    "of another kind": lambda content: b"Index,SMILES\n",
    "changed": lambda content: content.replace(
        np.float64(-40.47893).tobytes(), np.float64(-40.47892).tobytes()
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_file_is_replaced(
    damage: Callable[[bytes], bytes], kept: Path, records: Records
) -> None:
    content = kept.read_bytes()
    kept.write_bytes(damage(content))
    assert kept.read_bytes() != content
    with pytest.warns(UserWarning, match="skscatharm_qm9.npz cannot be read") as caught:
        fetched = fetch_qm9(target="all")
    assert str(kept) in str(caught[0].message)
    assert caught[0].filename == __file__
    assert_array_equal(fetched.target, _targets(records))
    # Any further warning would be an error.
    assert_array_equal(fetch_qm9(target="all").target, fetched.target)


@pytest.mark.parametrize(
    "arrays",
    [
        {"ids": np.arange(3)},
        {name: np.array([None, {}]) for name in Records._fields},
        {name: np.zeros(3) for name in Records._fields},
        {
            "ids": np.arange(2),
            "smiles": np.array(["C", "N"]),
            "charges": np.ones((2, 3), np.uint8),
            "positions": np.zeros((2, 4, 3)),
            "properties": np.zeros((2, 12)),
        },
    ],
    ids=["without molecules", "of objects", "without axes", "of unequal shapes"],
)
def test_file_with_other_arrays_is_replaced(
    arrays: dict[str, Any], kept: Path, records: Records
) -> None:
    np.savez(kept, **arrays)
    with pytest.warns(UserWarning, match="cannot be read"):
        fetched = fetch_qm9(target="all")
    assert_array_equal(fetched.target, _targets(records))


def test_damaged_file_is_removed_if_warnings_are_errors(kept: Path) -> None:
    kept.write_bytes(b"")
    with pytest.raises(UserWarning, match="cannot be read"):
        fetch_qm9()
    assert not kept.exists()
    fetch_qm9()
    assert kept.exists()


def fetch_without_saving(data_home: Path | None, reason: str) -> None:
    """Check that the molecules are returned with a warning."""
    with pytest.warns(UserWarning, match="could not be saved") as caught:
        fetched = fetch_qm9(data_home=data_home)
    assert_array_equal(fetched.ids, [1, 2, 3])
    (warning,) = caught
    assert reason in str(warning.message)
    assert "data_home" in str(warning.message)
    assert warning.filename == __file__


def test_full_disk(home: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode != "wb":
            return open(path, mode, *args, **options)
        path.touch()
        return Full()

    monkeypatch.setattr(Path, "open", opened)
    fetch_without_saving(None, "No space left")
    assert list(home.iterdir()) == []


def test_data_home_that_cannot_be_created(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    fetch_without_saving(file, "File exists")
    fetch_without_saving(file / "below", "Not a directory")


def refuse(*modes: str) -> Callable[..., Any]:
    """Refuse to open files in these modes: permissions would not stop root."""

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode in modes:
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, mode, *args, **options)

    return opened


def test_read_only_data_home(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", refuse("wb"))
    fetch_without_saving(None, "Permission denied")
    assert list(home.iterdir()) == []


def test_unreadable_file_stays(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", refuse("rb"))
    fetch_without_saving(None, "Permission denied")
    assert kept.stat().st_size > 0


def test_relative_data_home_and_home_of_the_user(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for data_home, folder in (
        ("relative", "relative"),
        (Path("relative", "deeper"), "relative/deeper"),
        ("~/data", "user/data"),
        (Path("~", "other"), "user/other"),
    ):
        fetch_qm9(data_home=data_home)
        assert (tmp_path / folder / "skscatharm_qm9.npz").is_file()
    assert not (tmp_path / "~").exists()


def test_concurrent_calls(home: Path, source: Path) -> None:
    with ThreadPoolExecutor(8) as executor:
        fetched = list(executor.map(lambda _: fetch_qm9(), range(24)))
    for one in fetched:
        assert_array_equal(one.data, fetched[0].data)
    assert [path.name for path in home.iterdir()] == ["skscatharm_qm9.npz"]


def test_abandoned_temporary_files_are_removed(home: Path, source: Path) -> None:
    home.mkdir()
    old, new = (home / f"skscatharm_qm9.npz.{name}.tmp" for name in ("old", "new"))
    for file in (old, new):
        file.touch()
    os.utime(old, (0, 0))
    fetch_qm9()
    assert not old.exists()
    assert new.exists()  # another process may be writing it


def test_missing_qm9pack(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qm9pack", None)
    with pytest.raises(
        ModuleNotFoundError, match="pip install qm9pack pandas"
    ) as raised:
        fetch_qm9()
    assert raised.value.name == "qm9pack"


def test_missing_files_of_qm9pack(home: Path, source: Path) -> None:
    source.unlink()
    with pytest.raises(FileNotFoundError, match="Install qm9pack again"):
        fetch_qm9()


def test_missing_pandas(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="qm9pack requires pandas: pip"):
        fetch_qm9()
    with pytest.raises(ModuleNotFoundError, match="as_frame=True requires pandas"):
        load_qm9_sample(as_frame=True)


@pytest.mark.parametrize("target", UNKNOWN)
def test_unknown_target_is_refused_before_parsing(target, home: Path) -> None:
    with pytest.raises(ValueError, match="choose 'all' or one of mu, alpha"):
        fetch_qm9(target=target)
    assert not home.exists()


@pytest.mark.skipif(QM9PACK is None, reason="qm9pack is not installed")
def test_all_molecules_include_the_sample(qm9) -> None:
    # pytest would keep the folder of tmp_path, and the file is large.
    with TemporaryDirectory() as folder:
        fetched = fetch_qm9(data_home=folder, target="all")
        again = fetch_qm9(data_home=folder, target="all")
    assert fetched.data.shape == (130_831, 29, 4)
    assert_array_equal(again.data, fetched.data)
    assert (np.diff(fetched.ids) > 0).all()
    same = np.searchsorted(fetched.ids, qm9.ids)
    assert_array_equal(fetched.ids[same], qm9.ids)
    assert_array_equal(fetched.smiles[same], qm9.smiles)
    assert_array_equal(fetched.target[same], qm9.target)
    molecules = fetched.data[same]
    assert not molecules[:, 27:].any()
    assert_array_equal(molecules[:, :27, 0], qm9.data[:, :, 0])
    assert_allclose(molecules[:, :27, 1:], qm9.data[:, :, 1:], rtol=0, atol=0.51e-5)


@pytest.mark.skipif(QM9PACK is None, reason="qm9pack is not installed")
def test_drawing_again_gives_the_shipped_file() -> None:
    drawn = runpy.run_path(str(SCRIPT))["draw"]()
    with SAMPLE.open("rb") as file:
        shipped = np.load(file, allow_pickle=False)
        assert set(drawn) == set(shipped)
        for name, array in drawn.items():
            assert array.dtype == shipped[name].dtype
            assert_array_equal(array, shipped[name])

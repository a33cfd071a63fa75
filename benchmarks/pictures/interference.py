"""Draw first-order fields of two molecules, for the front page of the documentation.

    python benchmarks/pictures/interference.py

runs in an environment with the package and Matplotlib, and writes
``doc/_static/interference.png``: methane, and a planar molecule of the sample of QM9.

The fields come from the formula alone, without the engines. The convolution of an atom
with a wavelet is a wavelet of another width. By the addition theorem

    sum over m of Y_lm(a) Y_lm(b) = (2l + 1) / (4 pi) * P_l(a . b)

of the spherical harmonics, the square of a modulus is a sum over pairs of atoms.
"""

from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray
from PIL import Image

from skscatharm.datasets import load_qm9_sample

OUTPUT = Path(__file__).resolve().parents[2] / "doc" / "_static" / "interference.png"

SIGMA = 0.22  # Å
SCALE = 1
DEGREES = (1, 2, 3)
MARGIN = 1.3  # Å
N_POINTS = 480
# Carbon and hydrogen of methane, in Å: two of the hydrogens lie in the plane z = 0.
METHANE = np.array(
    [
        [6, 0.0, 0.0, 0.0],
        [1, 0.89, 0.629, 0.0],
        [1, -0.89, 0.629, 0.0],
        [1, 0.0, -0.629, 0.89],
        [1, 0.0, -0.629, -0.89],
    ]
)


def modulus(
    molecule: NDArray[np.float64], points: NDArray[np.float64], degree: int
) -> NDArray[np.float64]:
    """U1 of the channel ``nuclear``, up to a constant factor.

    Parameters
    ----------
    molecule : ndarray of shape (n_atoms, 4)
        Columns Z, x, y, z.
    points : ndarray of shape (..., 3)
    degree : int
    """
    width = SIGMA * np.hypot(1, 2**SCALE)
    offsets = [(points - position) / width for position in molecule[:, 1:]]
    radii = [np.linalg.norm(offset, axis=-1) for offset in offsets]
    fields = [
        charge * radius**degree * np.exp(-(radius**2) / 2)
        for charge, radius in zip(molecule[:, 0], radii, strict=True)
    ]
    polynomial = np.eye(degree + 1)[degree]
    squared = np.zeros(points.shape[:-1])
    for a in range(len(molecule)):
        for b in range(len(molecule)):
            cosine = np.sum(offsets[a] * offsets[b], axis=-1) / (radii[a] * radii[b])
            squared += fields[a] * fields[b] * legendre.legval(cosine, polynomial)
    return np.sqrt(squared.clip(min=0))


def flattest(molecules: NDArray[np.float64]) -> NDArray[np.float64]:
    """The flattest molecule among the largest, turned into the plane z = 0."""
    found = []
    for padded in molecules:
        molecule = padded[padded[:, 0] > 0].copy()
        molecule[:, 1:] -= molecule[:, 1:].mean(axis=0)
        _, sizes, axes = np.linalg.svd(molecule[:, 1:], full_matrices=False)
        molecule[:, 1:] @= axes.T
        found.append((sizes[2] < 0.05, len(molecule), -sizes[2], molecule))
    return max(found, key=lambda entry: entry[:3])[3]


def main() -> None:
    """Draw the picture."""
    planar = flattest(load_qm9_sample(return_X_y=True)[0])
    figure, panels = plt.subplots(
        2, len(DEGREES), figsize=(9, 6), layout="constrained", facecolor="black"
    )
    figure.get_layout_engine().set(w_pad=0, h_pad=0, wspace=0, hspace=0)
    for row, molecule in zip(panels, (METHANE, planar), strict=True):
        low, high = molecule[:, 1:3].min(axis=0), molecule[:, 1:3].max(axis=0)
        half = (high - low).max() / 2 + MARGIN
        axis = np.linspace(-half, half, N_POINTS) + 1e-6  # no point is on an atom
        x, y = np.meshgrid(*(axis + middle for middle in (low + high) / 2))
        points = np.stack([x, y, np.zeros_like(x)], axis=-1)
        for panel, degree in zip(row, DEGREES, strict=True):
            field = modulus(molecule, points, degree)
            # The root shows the faint outer parts beside the bright ones.
            panel.imshow(np.sqrt(field / field.max()), origin="lower", cmap="magma")
            panel.set_axis_off()
            panel.text(
                0.04,
                0.96,
                f"degree {degree}",
                color="white",
                fontsize=14,
                va="top",
                transform=panel.transAxes,
            )
    picture = BytesIO()
    figure.savefig(picture, dpi=130)
    OUTPUT.parent.mkdir(exist_ok=True)
    # A palette of 256 colours makes the file a third as large.
    Image.open(picture).convert("RGB").quantize(256).save(OUTPUT, optimize=True)


if __name__ == "__main__":
    main()

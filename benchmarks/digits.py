"""Handwritten digits: errors by number of images to train on, and times.

    python benchmarks/digits.py FILE [--environment FOLDER]

runs in an environment with the package and its extra ``plot``. FILE is an npz file
with ``images`` of shape (n, height, width) and ``labels``, such as 7,000 images of
MNIST. The last 2,000 of each of three random orders are for testing, the first ones to
train on.
Two linear classifiers follow on the coefficients and on the pixels: ridge regression
with a penalty that leave-one-out errors choose, and the distance from an affine space
for each class, of 40 principal components.

kymatio computes the same coefficients in an environment that the script makes, or in
that of ``--environment``. Times are the better of two runs each, in turns, on one core.

``doc/measured`` gets ``digits.csv``, ``digits_times.csv`` and ``digits.svg``.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import RidgeClassifierCV
from sklearn.preprocessing import StandardScaler

from skscatharm import ImageScattering

PEERS = Path(__file__).resolve().parent / "peers"
MEASURED = Path(__file__).resolve().parents[1] / "doc" / "measured"
J, L = 3, 8
SIZES = (100, 300, 1000, 2000, 5000)
N_TEST, N_ORDERS, N_COMPONENTS, N_TIMED = 2000, 3, 40, 512
# Scattering with an affine space for each class, on the test images of MNIST: J. Bruna,
# S. Mallat, IEEE Transactions on Pattern Analysis and Machine Intelligence 35, 1872
# (2013), table 4.
PUBLISHED = {300: 4.7, 1000: 2.3, 2000: 1.3, 5000: 1.03}


def ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict labels by ridge regression."""
    return RidgeClassifierCV(np.logspace(-2, 4, 13)).fit(train, labels).predict(test)


def affine_spaces(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Predict the class whose affine space is nearest."""
    classes, distances = np.unique(labels), []
    for label in classes:
        own = train[labels == label]
        mean = own.mean(axis=0)
        components = np.linalg.svd(own - mean, full_matrices=False).Vh[:N_COMPONENTS]
        # All of the training images leave nothing over.
        components = components[: max(1, len(own) // 2)]
        off = test - mean
        squares = (off**2).sum(axis=1) - ((off @ components.T) ** 2).sum(axis=1)
        distances.append(squares)
    return classes[np.argmin(distances, axis=0)]


CLASSIFIERS = {"ridge": ridge, "affine spaces": affine_spaces}


def by_kymatio(
    python: Path, images: np.ndarray, folder: str
) -> tuple[np.ndarray, float]:
    """Coefficients, and seconds for an image on one core."""
    source, target = (str(Path(folder) / name) for name in ("in.npz", "out.npz"))
    np.savez(source, images=images, J=J, L=L, max_order=2, threads=1)
    worker = str(PEERS / "kymatio_images_worker.py")
    subprocess.run([python, worker, source, target], check=True)
    with np.load(target) as file:
        return file["coefficients"], float(file["seconds"]) / len(images)


def compare_times(images: np.ndarray, python: Path) -> None:
    """Print and write the times of both packages, and the largest difference."""
    scattering = ImageScattering(J, L).fit(images)
    scattering.transform(images[:8])
    ours, theirs = [], []
    with TemporaryDirectory() as folder:
        for _ in range(2):
            coefficients, seconds = by_kymatio(python, images, folder)
            theirs.append(seconds)
            start = perf_counter()
            found = scattering.transform(images)
            ours.append((perf_counter() - start) / len(images))
    coefficients = coefficients.reshape(found.shape)
    difference = np.abs(found - coefficients).max() / np.abs(coefficients).max()
    rows = [
        ["skscatharm", f"{1e3 * min(ours):.2g}", ""],
        ["kymatio, PyTorch", f"{1e3 * min(theirs):.2g}", f"{difference:.0e}"],
    ]
    print(*rows, f"ratio {min(theirs) / min(ours):.1f}", sep="\n", flush=True)
    header = ["Package", "Time of an image (ms)", "Largest difference, relative"]
    write("digits_times.csv", [header, *rows])


def write(name: str, rows: list[list[str]]) -> None:
    with (MEASURED / name).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def draw(errors: dict[tuple[str, str], list[float]]) -> None:
    plt.rcParams["svg.hashsalt"] = "skscatharm"
    figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
    for (features, classifier), values in errors.items():
        color = "C0" if features == "scattering" else "gray"
        style = "o-" if classifier == "ridge" else "s--"
        label = f"{features}, {classifier}"
        ax.loglog(SIZES[: len(values)], values, style, color=color, label=label)
    label = "scattering, affine spaces, published"
    ax.loglog(list(PUBLISHED), list(PUBLISHED.values()), "x", color="C1", label=label)
    ax.set(xlabel="Images to train on", ylabel="Error (%)")
    ax.grid(which="both", alpha=0.3)
    figure.legend(loc="outside right center")
    figure.savefig(MEASURED / "digits.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--environment", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    sys.path.insert(0, str(PEERS))
    from environments import environment

    with np.load(arguments.file) as file:
        images, labels = file["images"], file["labels"]
    python = environment("kymatio", arguments.environment)
    compare_times(images[:N_TIMED], python)

    features = {
        "scattering": ImageScattering(J, L, n_jobs=-1).fit_transform(images),
        "pixels": images.reshape(len(images), -1) / 255,
    }
    errors: dict[tuple[str, str], list[float]] = {}
    sizes = [n for n in SIZES if n <= len(images) - N_TEST]
    for name, values in features.items():
        for classifier, predict in CLASSIFIERS.items():
            means = []
            for n in sizes:
                wrong = []
                for seed in range(N_ORDERS):
                    order = np.random.default_rng(seed).permutation(len(images))
                    train, test = order[:n], order[-N_TEST:]
                    # Pixels at the border hardly vary: they are not scaled.
                    scaler = StandardScaler(with_std=name != "pixels")
                    scaler.fit(values[train])
                    found = predict(
                        scaler.transform(values[train]).astype(np.float32),
                        labels[train],
                        scaler.transform(values[test]).astype(np.float32),
                    )
                    wrong.append(100 * np.mean(found != labels[test]))
                means.append(float(np.mean(wrong)))
                print(name, classifier, n, f"{means[-1]:.2f} %", flush=True)
            errors[name, classifier] = means
    published = [f"{PUBLISHED[n]:g}" if n in PUBLISHED else "" for n in sizes]
    rows = [[f"{name}, {classifier}"] for name, classifier in errors]
    for row, means in zip(rows, errors.values(), strict=True):
        row += [f"{error:.2f}" for error in means]
    rows.append(["scattering, affine spaces, published", *published])
    write("digits.csv", [["Error (%)", *map(str, sizes)], *rows])
    draw(errors)


if __name__ == "__main__":
    main()

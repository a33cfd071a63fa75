"""Coefficients of a few images by kymatio, for the tests.

    python3 benchmarks/peers/images_reference.py

makes the environment of kymatio if need be (or uses that of ``--environment FOLDER``)
and writes ``tests/data/kymatio_images.npz``.
"""

import argparse
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from environments import HERE, environment

FILE = HERE.parents[1] / "tests" / "data" / "kymatio_images.npz"
# Height, width, J, L, largest order.
CASES = [(28, 28, 3, 4, 2), (20, 35, 2, 3, 2), (9, 8, 3, 2, 1), (80, 70, 4, 2, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, metavar="FOLDER")
    python = environment("kymatio", parser.parse_args().environment)
    rng = np.random.default_rng(0)
    kept = {}
    with TemporaryDirectory() as folder:
        source, target = (str(Path(folder) / name) for name in ("in.npz", "out.npz"))
        for case in CASES:
            height, width, J, L, max_order = case
            images = rng.normal(size=(2, height, width)).astype(np.float32)
            np.savez(source, images=images, J=J, L=L, max_order=max_order, threads=1)
            worker = str(HERE / "kymatio_images_worker.py")
            subprocess.run([python, worker, source, target], check=True)
            name = "_".join(map(str, case))
            kept[f"images_{name}"] = images
            with np.load(target) as file:
                kept[f"coefficients_{name}"] = file["coefficients"]
    np.savez_compressed(FILE, **kept)


if __name__ == "__main__":
    main()

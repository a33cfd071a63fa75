"""Virtual environments for the packages that this one is compared with.

They need older libraries than this package, or would weigh on its own environment. What
runs in them exchanges arrays with its caller by files.
"""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / ".envs"


def environment(requirements: Path, folder: Path | None = None) -> Path:
    """Make an environment from a file ``<name>_requirements.txt`` if need be.

    Return its Python. The folder is ``benchmarks/.envs/<name>`` unless given.
    """
    folder = folder or FOLDER / requirements.stem.removesuffix("_requirements")
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not folder.exists():
        venv.create(folder, with_pip=True)
        (folder / ".gitignore").write_text("*\n")
    # Again each time: it takes a second, and completes what was broken off.
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True
    )
    return python

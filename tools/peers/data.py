"""What a set is to those who are compared on it."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass
class Data:
    name: str
    folder: Path
    metric: str  # "cosine", with a base of unit length, or "ip"
    rows: int
    dim: int
    sweeps: dict = field(default_factory=dict)  # by peer or by kind of effort, in place of those of adapters/
    tonnage: list = field(default_factory=list)  # more arguments for `tonnage build`

    @property
    def base(self):
        return self.folder / "base.npy"

    @property
    def queries(self):
        return self.folder / "timed_queries.npy"

    @property
    def truth(self):
        return self.folder / "timed_truth.npy"

    @property
    def users(self):
        """Queries to learn from, none of them timed; or None."""
        users = self.folder / "train_users.npy"
        return users if users.exists() else None


def load(name, work):
    """Makes the set if it is not there. `twotower-1m` is the variant `1m` of the module twotower."""
    module, _, variant = name.partition("-")
    folder = work / name
    command = [sys.executable, HERE / f"{module}.py", folder, *([variant] if variant else [])]
    told = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    rows, dim = shape(folder / "base.npy")
    return Data(name, folder, rows=rows, dim=dim, **told)


def shape(path):
    """From the text at the head of a .npy file, without numpy: see compare.py."""
    head = path.open("rb").read(128).decode("latin-1")
    return tuple(int(size) for size in head.split("'shape': (")[1].split(")")[0].split(",") if size.strip())

"""Programs of this repository."""

import json
import subprocess
from pathlib import Path

REPO = Path(__file__).parents[2]


def compiled(name, *cargo):
    """Has cargo compile a target and returns where it went; a bench's file name holds a hash that only cargo knows."""
    lines = subprocess.run(["cargo", *cargo, name, "--message-format=json"],
                           cwd=REPO, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = (json.loads(line) for line in lines if line.startswith("{"))
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name)

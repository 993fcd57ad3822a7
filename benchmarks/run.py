"""Run every benchmark of this folder, one after another, each in a process of its own.

python benchmarks/run.py [--quick] [--list] [NAME ...]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run what was asked for; 1 if any of it failed, with their names at the end."""
    scripts = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.py")) if path.name != "run.py"}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all without a name")
    parser.add_argument("--quick", action="store_true", help="small counts: for correctness, not for numbers")
    parser.add_argument("--list", action="store_true", help="print their names and end")
    asked = parser.parse_args()
    if asked.list:
        sys.stdout.writelines(f"{name}\n" for name in scripts)
        return 0
    if unknown := [name for name in asked.names if name not in scripts]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(scripts)}")
    failed = [name for name in asked.names or scripts if not _run(scripts[name], quick=asked.quick)]
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


def _run(script: Path, *, quick: bool) -> bool:
    sys.stdout.write(f"── {script.stem}\n")
    sys.stdout.flush()
    return subprocess.run([sys.executable, str(script), *(["--quick"] if quick else [])], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

"""Do the oldest versions that pyproject.toml allows work, and the newest ones? docs/versions.md, from environments made for it.

    pip install uv packaging
    python scripts/check_versions.py lowest --python 3.10
    python scripts/check_versions.py newest --python 3.10 3.12 3.13

For every interpreter an environment is made outside the tree with all extras, each dependency of cnflow at the lowest version that
its bound admits (or the newest one), and what these ask for in turn at its newest. Then tests are run there, all of them unless
some are named with ``--tests``. What old versions say of features on their way out is not counted as an error. One run replaces
that of the same kind in ``docs/versions.json``; the table is made from all of them. Fails if a test fails. Needs Python 3.11, and
a few GB of disk where torch comes with CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs/versions.json"
TABLE = ROOT / "docs/versions.md"

QUIET = [
    part for name in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning") for part in ("-W", f"ignore::{name}")
]  # fmt: skip

INTRO = """# Versions

Made by `scripts/check_versions.py`. Every column is an environment of its own: the oldest versions that `pyproject.toml` allows,
or the newest that there were on that day, all extras included, and the tests that were run there.
"""


def bounds(project: dict[str, Any]) -> dict[str, str]:
    """Lower bound of every dependency, core and extras, by name.

    Args:
        project: the table ``project`` of pyproject.toml.

    Raises:
        ValueError: for a dependency without a lower bound.
    """
    found = {}
    for line in chain(project["dependencies"], *project["optional-dependencies"].values()):
        one = Requirement(line)
        if one.name == project["name"]:
            continue
        lowest = [each.version for each in one.specifier if each.operator in (">=", "==", "~=")]
        if len(lowest) != 1:
            raise ValueError(f"pyproject.toml: expected one lower bound, such as {one.name}>=1.0; got {line!r}")
        found[one.name] = lowest[0]
    return found


def uv(*arguments: str) -> str:
    """What uv prints.

    Raises:
        SystemExit: if it fails, with what it said.
    """
    done = subprocess.run([sys.executable, "-m", "uv", *arguments], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"uv {' '.join(arguments)}\n{done.stderr.strip()}")
    return done.stdout


def check(kind: str, python: str, project: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Make an environment, run the tests there.

    Args:
        kind: "lowest" or "newest".
        python: version or path of the interpreter.
        project: the table ``project`` of pyproject.toml.
        options: of the command line.

    Returns:
        What ``docs/versions.json`` keeps.
    """
    with tempfile.TemporaryDirectory(prefix="cnflow-versions-", dir=options.folder) as name:
        binary = Path(name) / "venv/bin/python"
        uv("venv", "--quiet", "--python", python, str(binary.parents[1]))
        extras = ",".join(project["optional-dependencies"])
        uv(
            "pip", "install", "--quiet", "--python", str(binary), "--only-binary", ":all:", "--no-binary", project["name"],
            "--resolution", "lowest-direct" if kind == "lowest" else "highest", "--editable", f"{ROOT}[{extras}]",
        )  # fmt: skip
        listed = json.loads(uv("pip", "list", "--python", str(binary), "--format", "json"))
        have = {each["name"].lower().replace("_", "-"): each["version"] for each in listed}
        begun = time.perf_counter()
        done = subprocess.run(
            [str(binary), "-m", "pytest", "-p", "no:cacheprovider", "-q", "--numprocesses", str(options.processes),
             "--dist", "loadfile", *(QUIET if kind == "lowest" else []), *options.tests],
            cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        version = subprocess.check_output([str(binary), "-V"], text=True).split()[1]
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped|deselected)", done.stdout)
    }
    if done.returncode:
        print(done.stdout[-6000:])
    return {
        "kind": kind, "python": version, "date": time.strftime("%Y-%m-%d"), "tests": options.tests or ["all"],
        "exit": done.returncode, "counts": counts, "seconds": round(seconds),
        "versions": {name: have[name.lower().replace("_", "-")] for name in bounds(project)},
    }  # fmt: skip


def table(rows: list[dict[str, Any]], low: dict[str, str]) -> str:
    """Markdown: one column per environment.

    Args:
        rows: what ``check`` returned.
        low: lower bounds by name.
    """
    lines = [
        "| | bound | " + " | ".join(f"{row['kind']}, Python {row['python']}" for row in rows) + " |",
        "|---" * (len(rows) + 2) + "|",
    ]
    for name, bound in low.items():
        lines.append(f"| {name} | {bound} | " + " | ".join(row["versions"].get(name, "–") for row in rows) + " |")
    counts = [", ".join(f"{number} {word}" for word, number in row["counts"].items()) for row in rows]
    lines.append("| **tests** | | " + " | ".join(counts) + " |")
    lines.append(
        "| run | | "
        + " | ".join(" ".join(part for part in row["tests"] if not part.startswith("-")) for row in rows)
        + " |"
    )
    lines.append("| on | | " + " | ".join(row["date"] for row in rows) + " |")
    return "\n".join(lines)


def main() -> None:
    """Check, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("lowest", "newest", "table"), help="table: only write docs/versions.md again")
    parser.add_argument("--python", nargs="+", default=["3.10"], help="versions, or paths of interpreters")
    parser.add_argument(
        "--tests", nargs=argparse.REMAINDER, default=[], help="last: files and options for pytest; default all tests"
    )
    parser.add_argument("--processes", default="auto", help="of the tests")
    parser.add_argument("--folder", type=Path, help="where environments are made, default the temporary folder")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = json.loads(RECORD.read_text()) if RECORD.is_file() else []
    for python in options.python if options.kind != "table" else []:
        new = check(options.kind, python, project, options)
        print(f"{new['kind']}, Python {new['python']}: {new['counts']}, {new['seconds']} s", flush=True)
        place = lambda row: (row["kind"], row["python"].split(".")[:2])  # noqa: E731
        rows = sorted(
            [row for row in rows if place(row) != place(new)] + [new], key=lambda row: (row["kind"], row["python"])
        )
        RECORD.write_text(json.dumps(rows, indent=1) + "\n")
    TABLE.write_text(f"{INTRO}\n{table(rows, bounds(project))}\n")
    if any(row["exit"] for row in rows):
        raise SystemExit("tests failed; see above, or docs/versions.md")


if __name__ == "__main__":
    main()

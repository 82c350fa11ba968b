"""The command line in processes of their own, forked from one that has imported what they need."""

import os
import runpy
import sys
import tempfile
from contextlib import contextmanager
from multiprocessing import forkserver, get_context
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/train.py"
PATHS = [str(ROOT), str(ROOT / "tests/app")]

# imported once by the process that the others are forked from, which starts no thread and draws no number
PRELOADED = [
    "cnflow.app._lightning_cli", "lightning.pytorch.strategies.launchers.subprocess_script", "matplotlib.pyplot",
    "sklearn.mixture", "torch.optim", "torch.utils.tensorboard", "torch._dynamo",
]  # fmt: skip


class Running:
    """The command line in a process that runs.

    Attributes:
        process: the process.
        output: files of what it writes to standard output and to standard error.
    """

    def __init__(self, process, output):
        self.process, self.output = process, output

    def poll(self):
        """Exit status, minus the number of the signal for a process that was killed; None while it runs."""
        return self.process.exitcode

    returncode = property(poll)

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def wait(self, timeout=None):
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running after {timeout} s"
        return self.process.exitcode

    def said(self):
        """What was written so far to standard output, and to standard error."""
        return [Path(file).read_text() for file in self.output]


@contextmanager
def running(*arguments):
    """``scripts/train.py`` with arguments in a process of its own, as :class:`Running`; killed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        output = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        process = _context().Process(target=_run, args=([str(SCRIPT), *map(str, arguments)], output))
        process.start()
        try:
            yield Running(process, output)
        finally:
            process.kill()
            process.join()


def call(*arguments, expect=0):
    """Run ``scripts/train.py`` with arguments to its end.

    Args:
        arguments: of the command line.
        expect: exit status.

    Returns:
        What it wrote to standard output, then what it wrote to standard error.
    """
    with running(*arguments) as process:
        status, said = process.wait(), process.said()
    assert status == expect, said[1][-3000:]
    return "".join(said)


def _context():
    """That of the fork server. It has one thread, which is enough for runs of this size."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context


def _run(arguments, output):
    """What the new process does."""
    for number, file in enumerate(output, 1):
        opened = os.open(file, os.O_CREAT | os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(ROOT)
    # for processes that it starts itself, too
    sys.path[:0] = PATHS
    os.environ["PYTHONPATH"] = os.pathsep.join(PATHS)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")

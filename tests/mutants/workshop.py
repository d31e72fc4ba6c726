"""Mutants: bugs sown on purpose, one at a time, to see that a layer of tests notices.

What lives here: what a mutant is, and how one is tried.  What may not: the bugs themselves;
they stand in `sown`.

A trial copies the packages and the tests into a scratch directory, edits one module there,
and runs the tests that must fail in a process of their own.  It proves three things:

1. The edited code ran: the edit calls `mutant_reached()`, which leaves a mark.  A test that
   fails for another reason (an import error, say) leaves none.
2. The tests failed: pytest's exit code 1.  A crash of pytest, a collection error or an
   overrun of the time limit is no proof, and counts as an error of the trial.
3. The same tests pass over the code as it is, in the same kind of copy (`try_clean`).

The copies share their bytes by hard links and bring their compiled modules along, so that a
trial costs hardly more than its tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

PACKAGE_FOLDERS: Final = ("model", "runtime", "spec", "chaos")
"""Folders of the import packages, in the repository."""

TRIAL_S: Final = 120.0
"""A trial that takes longer is an error: its tests are too slow for their purpose, or hang."""
CLEAN_S: Final = 600.0
"""The same, for all tests of a layer over the code as it is."""
WAIT_S: Final = 12
"""So long the tests of a mutant wait for what may never come, instead of a minute."""

OUTPUT_LINES: Final = 30
"""Lines of a trial's output that are kept."""

REACHED: Final = "mutant_reached()"
_FUTURE: Final = "from __future__ import annotations\n"
_MARKER: Final = (
    "mutant_reached = lambda: (lambda os: os.close(os.open("
    "{mark!r}, os.O_CREAT | os.O_WRONLY, 0o600)))(__import__('os'))\n"
)
"""No import statement, since tests look for those."""


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One bug: where it is sown, and which tests must see it."""

    name: str
    """Words with hyphens that say what goes wrong."""
    module: str
    """The module that is edited."""
    diff: str
    """What is changed, as lines with a sign before them: space, minus or plus.  The lines
    that stay or go stand exactly once in the module; `@@` begins another place."""
    tests: tuple[str, ...]
    """Arguments for pytest: the tests that must fail, all of one layer."""
    why: str
    """What would happen to a user, in one sentence."""

    @property
    def edits(self) -> list[tuple[str, str]]:
        """The places of `diff`: what stands there, and what replaces it."""
        hunks = self.diff.strip("\n").split("\n@@\n")
        return [(_side(hunk, " -"), _side(hunk, " +")) for hunk in hunks]

    @property
    def layer(self) -> str:
        """The folder of its tests."""
        return self.tests[0].split("::", 1)[0].rpartition("/")[0]


def _side(hunk: str, signs: str) -> str:
    return "".join(f"{line[1:]}\n" for line in hunk.split("\n") if (line or " ")[0] in signs)


class MutantOutdated(Exception):
    """A mutant does not fit the code any more: its catalogue has to follow the code."""


class Trial(msgspec.Struct, frozen=True):
    """What a run of tests over a copy gave."""

    exit_code: int | None
    """Of pytest; `None` where it did not end in time."""
    reached: bool
    seconds: float
    output: list[str]

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    @property
    def killed(self) -> bool:
        """True where the edited code ran and a test failed."""
        return self.exit_code == 1 and self.reached

    @property
    def killed_by(self) -> str:
        """The test that failed first; empty where none did."""
        failed = (line.split()[1] for line in self.output if line.startswith("FAILED "))
        return next(failed, "")

    @property
    def survived(self) -> bool:
        """True where the tests say nothing of the bug."""
        return self.exit_code == 0 or (self.exit_code == 1 and not self.reached)


def module_path(root: Path, module: str) -> Path:
    """Returns the file of a module of the repository.

    Raises:
        MutantOutdated: There is none.
    """
    relative = Path(*module.split("."))
    for folder in PACKAGE_FOLDERS:
        for path in (relative.with_suffix(".py"), relative / "__init__.py"):
            if (root / folder / path).exists():
                return root / folder / path
    raise MutantOutdated(f"there is no module {module}")


def mutated(source: str, mutant: Mutant, mark: str) -> str:
    """Returns the source of a module with the bug in it.

    Args:
        source: The module as it is.
        mutant: What to change.
        mark: Path of the file that says that the changed code ran.

    Raises:
        MutantOutdated: A text to be replaced does not stand there exactly once, or what
            comes out is no Python.
    """
    for old, new in mutant.edits:
        found = f"\n{source}".count(f"\n{old}")
        if found != 1:
            raise MutantOutdated(
                f"{mutant.name}: this stands {found} times in {mutant.module}, not once:\n{old}"
            )
        source = f"\n{source}".replace(f"\n{old}", f"\n{new}")[1:]
    if REACHED not in source or source.count(_FUTURE) != 1:
        raise MutantOutdated(f"{mutant.name}: the edit does not say that it was reached")
    source = source.replace(_FUTURE, _FUTURE + _MARKER.format(mark=mark))
    try:
        # Not `ast.parse`, which two threads must not run at once under Python 3.11.
        compile(source, mutant.module, "exec")
    except SyntaxError as error:
        raise MutantOutdated(f"{mutant.name}: the edit gives no Python: {error}") from error
    return source


class Workshop:
    """A scratch directory with a copy of the repository, where trials are made.

    Trials may run side by side in several threads.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        """Copies the repository, once for all trials.

        Args:
            root: The repository.
            scratch: An empty directory with a short path, on one file system.
        """
        self._root = root
        self._scratch = scratch
        self._pristine = scratch / "pristine"
        self._numbers = count(1)
        ignore = shutil.ignore_patterns("__pycache__")
        for folder in (*PACKAGE_FOLDERS, "tests"):
            shutil.copytree(root / folder, self._pristine / folder, ignore=ignore)
        shutil.copy2(root / "pyproject.toml", self._pristine)
        subprocess.run(
            [sys.executable, "-m", "compileall", "-qq", *PACKAGE_FOLDERS],
            cwd=self._pristine,
            env=_environment(),
            check=False,  # to save time: what does not compile is told by its trial
        )

    def try_clean(self, tests: Iterable[str]) -> Trial:
        """Runs tests over the code as it is."""
        with self._copy() as copy:
            return _run(copy, sorted(set(tests)), copy / "never", first_only=False)

    def try_mutant(self, mutant: Mutant) -> Trial:
        """Runs the tests of a mutant over the code with the bug in it.

        Raises:
            MutantOutdated: It does not fit the code.
        """
        with self._copy() as copy:
            path, mark = module_path(copy, mutant.module), copy / "reached"
            source = mutated(path.read_text(), mutant, str(mark))
            # A new file, since the old one is shared with every other copy; and without the
            # compiled module, whose check by time and size could take the one for the other.
            path.unlink()
            path.write_text(source)
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
                compiled.unlink()
            return _run(copy, mutant.tests, mark, first_only=True)

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Path]:
        """Makes a copy for one run.  Nothing ever runs in the copy that all are made of.

        Its name is short, since sockets are made below it.
        """
        copy = self._scratch / str(next(self._numbers))
        shutil.copytree(self._pristine, copy, copy_function=os.link)
        _make_interpreter(copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _make_interpreter(copy: Path) -> None:
    """Makes a virtual environment that imports the packages of a copy, and all else as we do.

    An environment variable would not do: tests and the program set `PYTHONPATH` themselves,
    and a trial has to be one in every process that its tests start.
    """
    places = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    lines = [str(copy / name) for name in PACKAGE_FOLDERS]
    lines += [f"import site; site.addsitedir({path!r})" for path in places]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = copy / "venv" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "mutant.pth").write_text("\n".join([*lines, ""]))
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (copy / "venv" / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\n"
    )
    (copy / "venv" / "bin").mkdir()
    (copy / "venv" / "bin" / "python").symlink_to(base)


def _environment() -> dict[str, str]:
    """Returns our environment without what concerns us, pytest and the repository."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BEAVER_", "PYTEST_", "PYTHON"))
    }
    environment["HYPOTHESIS_PROFILE"] = "mutants"
    return environment


def _run(copy: Path, tests: Sequence[str], mark: Path, *, first_only: bool) -> Trial:
    temporary = copy / "t"
    command = [
        *(str(copy / "venv" / "bin" / "python"), "-m", "pytest", "-q", "--no-header", "--tb=short"),
        *("-p", "no:cacheprovider", "--hypothesis-seed=1", f"--basetemp={temporary}"),
        *(["-x"] if first_only else []),
        *tests,
    ]
    started_s = time.monotonic()
    with (copy / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=copy,
            env=_environment() | ({"TESTS_WAIT_S": str(WAIT_S)} if first_only else {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(TRIAL_S if first_only else CLEAN_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        lines = output.read().splitlines()
    shutil.rmtree(temporary, ignore_errors=True)
    seconds = time.monotonic() - started_s
    return Trial(code, mark.exists(), seconds, lines[-OUTPUT_LINES:])

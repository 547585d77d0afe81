"""Runs one of CPython's test modules, as `python -m test` would. The program that the guest runs (run.py).

usage: guest.py MODULE [OVERLAY...]

Prints a line for each test, between what tests print themselves: an ASCII record separator, and as JSON the test's id,
`passed`, `skipped` or `failed`, and the reason or the traceback. The last line has an empty id.
"""

# ruff: noqa: N802, N815 - names of unittest

import importlib
import json
import os
import sys
import traceback
import unittest

from test import support

OVERLAY = "/suite/overlay"
FOLDER = "/tmp/work"
OUT = sys.stdout


def tell(name, outcome="", text=""):
    OUT.write(f"\x1e{json.dumps([name.removeprefix('test.'), outcome, text])}\n")
    OUT.flush()


class Result(unittest.TestResult):
    """Tells each test's outcome. The first failure of a test is the one that counts."""

    outcome = None

    def startTest(self, test):
        super().startTest(test)
        self.outcome = "passed", ""

    def stopTest(self, test):
        super().stopTest(test)
        tell(test.id(), *self.outcome)
        self.outcome = None

    def note(self, test, outcome, text):
        if self.outcome is None:  # no test: setUpClass, setUpModule
            tell(test.id(), outcome, text)
        elif self.outcome[0] != "failed":
            self.outcome = outcome, text

    def addError(self, test, err):
        self.note(test, "failed", "".join(traceback.format_exception(*err)))

    addFailure = addError

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.addError(test, err)

    def addSkip(self, test, reason):
        self.note(test, "skipped", reason)

    def addUnexpectedSuccess(self, test):
        self.note(test, "failed", "passed, which its author didn't expect")


def main(name, *overlays):
    # They are for WASI as others have it: without sockets. And what fails on any WASI shall be seen to.
    support.has_socket_support = True
    support.is_wasi = False
    from test.support import import_helper, os_helper, socket_helper, warnings_helper  # noqa: F401 - before overlays

    support.use_resources = []
    support._run_suite = lambda suite: suite.run(Result())
    sys.path.append(OVERLAY)
    for overlay in overlays:
        importlib.import_module(overlay)
    sys.path.remove(OVERLAY)
    os.makedirs(FOLDER)
    os.chdir(FOLDER)
    sys.path[0] = FOLDER
    try:
        module = importlib.import_module(f"test.{name}")
        if hasattr(module, "test_main"):
            module.test_main()
        else:
            unittest.defaultTestLoader.loadTestsFromModule(module).run(Result())
    except unittest.SkipTest as error:
        tell(name, "skipped", str(error))
    tell("")


main(*sys.argv[1:])

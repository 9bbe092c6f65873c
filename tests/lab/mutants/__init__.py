"""Endpoint tests against small defects: ``python -m pytest -p tests.lab.mutants --mutants all tests/endpoint``.

QEMU's igb is nearly always right, so a test of the endpoint suite is hardly ever seen to fail. Here each of them is run
with one small defect between it and the real device, in the real lab, and its outcome is turned round: it passes when
the test has failed, as an endpoint's fault and with the words that were expected of it.

A new mutant is one row in the file that is named for the test's. ``--mutants NAME`` runs a few, by name or pattern;
``-v`` shows what each of them was answered with.
"""

pytest_plugins = ["tests.lab.mutants.plugin"]

"""The SR-IOV endpoint test harness, stage by stage.

profile ──► machine spec ──► running lab ──► observation ──► rules / measurements ──► verdicts ──► report

Values travel from left to right; nothing on the right knows what is on the left of its input. Imports go one way
only, from the bottom of this list up (tests/unit/test_architecture.py says so):

errors      the whole exception tree: who must act, and how
waiting     wait for a named thing until a deadline
tomlfile    files of ours, checked on load, with the place of a mistake
pci         what config space says: addresses, capabilities            pure, standard library
profiles    what a design promises: TOML files and their loader
agent       the one program beside the device, and its client
host        the host role: functions, drivers, VFs
vm          QEMU: spec → argv → process; images, runtime, templates, clones
lab         emulated (and, to come, twin, local, ssh): each gives a host
measure     sampled measurements and their statistics
report      Allure, plots, evidence
plugin      pytest: options, fixtures, markers
cli         the same functions without pytest
"""

__version__ = "0.1.0"

"""pytest: options, fixtures, markers. No logic of its own: each of them calls the part that has it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError
from harness.host import Host, PhysicalFunction
from harness.lab import DEFAULT_LAB, Request, open_lab
from harness.lab.emulated import EmulatedLab, EmulatedMachine
from harness.lab.header import describe
from harness.lab.keeper import Keeper, how_to_get_in
from harness.lab.memory import check_workers
from harness.lab.registry import check_request
from harness.profiles import Profile
from harness.report.allure import write_session_files
from harness.report.collect import Collected, properties
from harness.report.evidence import attach_config, attach_texts, folder_for
from harness.report.failure import in_words
from harness.report.steps import Recording, recording, steps_text
from harness.vm.cache import Cache
from harness.vm.dying import die_with_parent
from harness.vm.rundir import RunFolder
from harness.vm.spec import Hotplug, MachineSpec

REQUEST = pytest.StashKey[Request]()
PROFILE = pytest.StashKey[Profile]()
KEEPER = pytest.StashKey[Keeper]()
FAILED = pytest.StashKey[bool]()
MACHINES = pytest.StashKey[list[EmulatedMachine]]()
SHOWN = pytest.StashKey[list[EmulatedMachine]]()
RECORDING = pytest.StashKey[Recording]()

SUMMARY = pytest.StashKey["Summary"]()
WORKER_KEPT = "sriov_harness_kept"
STUB = "pci-pf-stub"  # drivers/pci/pci-pf-stub.c, Linux 4.18 and later

Boot = Callable[..., AbstractContextManager[EmulatedMachine]]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sriov-harness", "SR-IOV endpoint tests")
    group.addoption("--lab", default=DEFAULT_LAB, metavar="LAB", help=f"where the endpoint is (default: {DEFAULT_LAB})")
    about = (
        "what the design promises (default: the lab's); a file with =, or pytest takes it for a test: --profile=FILE"
    )
    group.addoption("--profile", default="", metavar="NAME|FILE", help=about)
    group.addoption("--accel", default="auto", metavar="auto|kvm|tcg", help="how QEMU runs (default: what works)")
    group.addoption("--qemu", default="", metavar="PATH", help="a QEMU of this computer instead of the pinned one")
    group.addoption("--kernel", default="stock", metavar="NAME", help="a recipe of kernel-configs/ (default: stock)")
    group.addoption("--keep", action="store_true", help="leave the machine of the first failure, else the last, up")
    group.addoption(
        "--evidence",
        choices=("failure", "always"),
        default="failure",
        help="when to keep console, QMP, kernel log and config space with the result (default: failure)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "hotplug(how): 'acpi' or 'native', for the machine of this test")
    config.addinivalue_line("markers", "unplugged: the machine of this test starts without the endpoint")
    request = Request(
        lab=config.getoption("--lab"),
        profile=config.getoption("--profile"),
        accelerator=config.getoption("--accel"),
        qemu=config.getoption("--qemu"),
        kernel=config.getoption("--kernel"),
    )
    if hasattr(config, "workerinput"):
        die_with_parent()
    try:
        config.stash[PROFILE] = check_request(request)
        check_workers(len(getattr(config.option, "tx", None) or []), MachineSpec().memory_mib)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[REQUEST] = request
    config.stash[KEEPER] = Keeper()
    config.stash[SUMMARY] = Summary()
    config.pluginmanager.register(config.stash[SUMMARY], "sriov-harness-summary")


def pytest_report_header(config: pytest.Config) -> list[str]:
    try:
        return [f"{name}: {value}" for name, value in describe(config.stash[REQUEST], Cache.default().root).items()]
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``num_vfs``: 1, 2, a middle value, and the most that the profile's driver gives."""
    if "num_vfs" in metafunc.fixturenames:
        counts = metafunc.config.stash[PROFILE].vf_counts()
        metafunc.parametrize("num_vfs", counts, ids=[f"{count}-vfs" for count in counts])


@pytest.fixture(scope="session")
def profile(pytestconfig: pytest.Config) -> Profile:
    """What the design promises."""
    return pytestconfig.stash[PROFILE]


@pytest.fixture(scope="session")
def run_folder() -> Iterator[Path]:
    """Where machines of this run keep their files."""
    with RunFolder() as folder:
        yield folder.path


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config, run_folder: Path) -> EmulatedLab:
    """Where the endpoint is; what it needs is built now if it is not there yet."""
    return open_lab(pytestconfig.stash[REQUEST], Cache.default(), run_folder, _progress(pytestconfig))


@pytest.fixture
def boot(request: pytest.FixtureRequest, lab: EmulatedLab) -> Boot:
    """For more than one machine, or one of another kind: ``with boot(hotplug="native") as machine:``."""
    node = request.node
    machines = node.stash.setdefault(MACHINES, [])
    keep = request.config.getoption("--keep")

    @contextmanager
    def start(*, hotplug: Hotplug = "acpi", plugged: bool = True, driver: str = "") -> Iterator[EmulatedMachine]:
        with lab.machine(node.name, hotplug=hotplug, plugged=plugged, driver=driver, keep=keep) as machine:
            machines.append(machine)
            try:
                yield machine
            except KeyboardInterrupt:  # who stops a run wants no evidence, but the end of it
                raise
            except BaseException:
                node.stash[FAILED] = True
                attach_machine(node, machine)
                raise
            finally:
                if request.config.getoption("--evidence") == "always":
                    attach_machine(node, machine)
                machines.remove(machine)
                if keep:
                    failed = node.stash.get(FAILED, False)
                    request.config.stash[KEEPER].at_end(machine.vm, node.nodeid, failed=failed)

    return start


@pytest.fixture
def machine(request: pytest.FixtureRequest, boot: Boot) -> Iterator[EmulatedMachine]:
    """A machine for this test alone, with the endpoint in it."""
    hotplug = request.node.get_closest_marker("hotplug")
    plugged = request.node.get_closest_marker("unplugged") is None
    driver = STUB if "quiet_pf" in request.fixturenames else ""  # from the start: a probe by the PF's own takes 0.3 s
    with boot(hotplug=hotplug.args[0] if hotplug else "acpi", plugged=plugged, driver=driver) as started:
        yield started


@pytest.fixture
def host(machine: EmulatedMachine) -> Host:
    """The machine that holds the endpoint."""
    return machine.host


@pytest.fixture
def pf(machine: EmulatedMachine) -> PhysicalFunction:
    """The endpoint's PF, bound to its driver, with VFs off."""
    return machine.endpoint.pf


@pytest.fixture
def quiet_pf(pf: PhysicalFunction) -> PhysicalFunction:
    """The PF with a driver that only enables VFs, so that nothing but the test touches the device."""
    return pf


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    claim = getattr(item, "function", item).__doc__ or ""
    evidence = folder_for(item.nodeid, build_folder(item.config))
    shutil.rmtree(evidence, ignore_errors=True)  # an earlier run's
    with recording(evidence, claim) as recorded:
        item.stash[RECORDING] = recorded
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    recorded = item.stash[RECORDING]
    if call.excinfo:
        attach_texts(getattr(call.excinfo.value, "evidence", {}))
        if isinstance(call.excinfo.value, HarnessError) and not item.config.getoption("fulltrace"):
            report.longrepr = in_words(call.excinfo, item.config.rootpath)
    if report.failed:
        item.stash[FAILED] = True
        report.sections.append(("steps", steps_text(recorded.steps)))
    if report.when == "call" and (report.failed or item.config.getoption("--evidence") == "always"):
        for machine in item.stash.get(MACHINES, []):
            attach_machine(item, machine)
    if "lab" in getattr(item, "fixturenames", ()) and (report.when == "call" or not report.passed):
        error, message = (call.excinfo.value, call.excinfo.exconly()) if call.excinfo else (None, "")
        if reason := getattr(report, "wasxfail", ""):
            error, message = pytest.skip.Exception(reason), f"Skipped: {reason}"
        report.user_properties += properties(error, message, recorded)
    return report


def attach_machine(item: pytest.Item, machine: EmulatedMachine) -> None:
    """Everything that a machine can tell, with the result of the test; once."""
    shown = item.stash.setdefault(SHOWN, [])
    if machine in shown:
        return
    shown.append(machine)
    attach_texts(machine.evidence())
    for title, (before, after) in machine.config_spaces().items():
        attach_config(title, before, after)


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    left = config.stash[KEEPER].left
    lines = [how_to_get_in(left)] if left else []
    if hasattr(config, "workeroutput"):
        config.workeroutput[WORKER_KEPT] = lines
        return
    config.stash[SUMMARY].kept.extend(lines)
    if results := config.getoption("--alluredir", default=None):
        write_session_files(Path(results), describe(config.stash[REQUEST], Cache.default().root))


class Summary:
    """The lines at the end of a run; with xdist, the controller's."""

    def __init__(self) -> None:
        self.collected = Collected()
        self.kept: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.collected.add(report.nodeid, report.user_properties)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """An xdist worker ended: what it kept is told by us."""
        self.kept.extend(getattr(node, "workeroutput", {}).get(WORKER_KEPT, []))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        lines = [*self.collected.lines(build_folder(config) / "evidence"), *self.kept]
        if lines:
            terminalreporter.section("SR-IOV endpoint")
            terminalreporter.write("\n".join(lines) + "\n")


def build_folder(config: pytest.Config) -> Path:
    return config.rootpath / "build"


def _progress(config: pytest.Config) -> Callable[[str], None]:
    """Say what is being built, past pytest's capturing."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n[sriov-harness] {line}", file=sys.stderr, flush=True)  # noqa: T201  # progress is for a person

    return say

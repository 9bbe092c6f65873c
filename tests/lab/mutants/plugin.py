"""pytest: an endpoint test once for each mutant that names it, with its outcome turned round."""

from __future__ import annotations

from collections.abc import Generator
from fnmatch import fnmatchcase
from textwrap import indent

import pytest

from tests.lab.mutants.assertions import never_failed, place_of
from tests.lab.mutants.model import Mutant, complaint
from tests.lab.mutants.table import MUTANTS, NOTHING_WRONG

MUTANT = pytest.StashKey[Mutant]()
TEXTS = pytest.StashKey[tuple[str, ...]]()
WITNESS = "witness"  # in a report's properties: the failure's text …
PLACE = "place"  # … and the line of the suite at which it failed
NOT_SEEN = "assertions that no mutant has made fail"
TEXT_LIMIT_CHARACTERS = 4000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("sriov-harness").addoption(
        "--mutants",
        default="",
        metavar="all|NAME[,NAME…]",
        help="run endpoint tests with these defects, and pass when they notice them; * in a name is any text",
    )


@pytest.hookimpl(trylast=True)  # after the test's own parameters, so that a mutant's name ends the test's ID
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test once for each mutant that names it, whatever its other parameters."""
    test = f"{metafunc.definition.path.name}::{metafunc.function.__name__}"
    mutants = [mutant for mutant in chosen(metafunc.config) if mutant.names(test)]
    if mutants:
        metafunc.fixturenames.append(mutant_at_work.__name__)
        names = [mutant.name for mutant in mutants]
        metafunc.parametrize(mutant_at_work.__name__, mutants, ids=names, indirect=True)


@pytest.fixture
def mutant_at_work(request: pytest.FixtureRequest) -> Mutant:
    """The defect that this test must notice."""
    found: Mutant = request.param
    return found


@pytest.hookimpl(tryfirst=True)  # before -k, so that it can select by the mutants' names
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of these, only those whose parameters are meant, too; and no test without a mutant."""
    if not chosen(config):
        return
    for item in items:
        mutant = getattr(item, "callspec", None) and item.callspec.params.get(mutant_at_work.__name__)
        if mutant and (texts := mutant.texts_for(without(item, mutant))):
            item.stash[MUTANT], item.stash[TEXTS] = mutant, texts
    items[:] = [item for item in items if MUTANT in item.stash]
    order = [mutant.name for mutant in (*MUTANTS, NOTHING_WRONG)]
    items.sort(key=lambda item: order.index(item.stash[MUTANT].name))


def chosen(config: pytest.Config) -> list[Mutant]:
    """The mutants that were asked for."""
    if not (wanted := config.getoption("--mutants")):
        return []
    if wanted == "all":
        return list(MUTANTS)
    known = (*MUTANTS, NOTHING_WRONG)
    found = [one for one in known if any(fnmatchcase(one.name, pattern) for pattern in wanted.split(","))]
    if not found:
        raise pytest.UsageError(f"no mutant is called {wanted}; there are: {', '.join(one.name for one in MUTANTS)}")
    return found


def without(item: pytest.Item, mutant: Mutant) -> str:
    """ "test_x.py::test_y[1-vfs]" for "…/test_x.py::test_y[1-vfs-NAME]"."""
    name = item.name.replace(f"[{mutant.name}]", "").replace(f"-{mutant.name}]", "]")
    return f"{item.path.name}::{name}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """The mutant is at work from before the fixtures until after them."""
    with pytest.MonkeyPatch.context() as patch:
        if MUTANT in item.stash:
            for tap in item.stash[MUTANT].taps:
                tap(patch, item)
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """What the profile promises is the session's, so it is changed in the arguments of this one test."""
    mutant = pyfuncitem.stash.get(MUTANT, None)
    if mutant is not None and mutant.promise is not None:
        pyfuncitem.funcargs["profile"] = mutant.promise(pyfuncitem.funcargs["profile"])


@pytest.hookimpl(wrapper=True, trylast=True)  # innermost: whoever else looks at the report sees it turned round
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if MUTANT not in item.stash or call.when == "teardown":
        return report
    error = call.excinfo.value if call.excinfo else None
    if call.when == "setup" and error is None:
        return report
    text = complaint(item.stash[MUTANT], item.stash[TEXTS], error)
    if call.when == "setup":
        text = text or f"IN THE SET-UP, where no test has a say: {error}"
    if text:
        report.outcome, report.longrepr = "failed", "\n\n".join((text, report.longreprtext)).strip()
        call.excinfo = as_failure(text, error)
        return report
    assert call.excinfo is not None  # there is no complaint, so there is a failure
    report.user_properties.append((WITNESS, str(error)[:TEXT_LIMIT_CHARACTERS]))
    report.user_properties.append((PLACE, place_of(call.excinfo, item.path.parent)))
    report.outcome, report.longrepr, report.sections = "passed", None, []
    call.excinfo = None
    return report


def as_failure(text: str, cause: BaseException | None) -> pytest.ExceptionInfo[AssertionError]:
    """What others find in the place of the test's own failure."""
    try:
        raise AssertionError(text) from cause
    except AssertionError:
        return pytest.ExceptionInfo.from_current()


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    noticed = report.when == "call" and report.passed and any(name == WITNESS for name, _ in report.user_properties)
    return ("noticed", ".", "NOTICED") if noticed else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    noticed = {report.nodeid: dict(report.user_properties) for report in terminalreporter.stats.get("noticed", [])}
    if noticed and config.get_verbosity() > 0:
        terminalreporter.section("how each mutant was noticed")
        for name, said in sorted(noticed.items()):
            shown = said[WITNESS] if config.get_verbosity() > 1 else said[WITNESS].partition("\nassert ")[0]
            terminalreporter.write_line(name.rpartition("/")[2] + "\n" + indent(shown, "    "))
    if config.getoption("--mutants") == "all":
        files = {config.rootpath / name.partition("::")[0] for name in noticed}
        if lines := list(never_failed(files, {tuple(said[PLACE]) for said in noticed.values()})):
            terminalreporter.section(NOT_SEEN)
            terminalreporter.write_line("\n".join(lines))

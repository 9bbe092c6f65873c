"""One HTML file from Allure results, by Allure 3, without a network once it is installed.

Allure 3 is an npm package; ``ci/allure`` says which and how it is configured. Its modules are installed once into our
cache, by the hash of the lock file. A computer without Node loses the HTML and nothing else: the results are plain
files, and any other computer can make the report from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError, HostLacks, UsageError
from harness.vm.cache import BUILD_LOG, Cache, Entry, Progress, silent

NODE_AT_LEAST = (20, 19)  # chokidar and readdirp, which Allure 3.18 loads, ask for it
INSTALL_WITHIN_S = 600
GENERATE_WITHIN_S = 300
INSTALLED_BYTES = 120_000_000  # 53 MB of modules, twice while they are checked

# The page loads Google's tag manager when it is opened, and Allure's Awesome plugin has no switch for it
# (plugin-awesome/dist/generators.js: analyticsEnable: true). A lab's report tells nobody that it was read.
_ANALYTICS = re.compile(
    rb'<script async src="https://www\.googletagmanager\.com/[^"]*"></script>\s*<script>.*?</script>\s*', re.DOTALL
)


def generate(
    results: Path,
    output: Path,
    *,
    cache: Cache,
    name: str = "SR-IOV endpoint",
    history: Path | None = None,
    progress: Progress = silent,
) -> Path:
    """Make ``output/index.html``: one file that holds the whole report.

    Args:
        results: the folder that ``--alluredir`` named.
        output: the report's folder; only index.html is written there, whole or not at all.
        cache: where Allure's modules are kept; the first report installs them, which needs npm and a network.
        name: the report's title.
        history: one line of JSON a run, which gives each test its history; made when it is not there, and kept at the
            last 20 runs. A report that is made again from the same results counts once. None: no history.
        progress: told that modules are being installed.

    Returns:
        The path of index.html.

    Raises:
        UsageError: there are no results.
        HostLacks: Node or npm is missing or too old, or npm could not get the modules; the message says where the
            results are. The caller prints it and goes on: the run itself is not worse for it.
        HarnessError: Allure failed; the message has its words.
    """
    results, output = results.absolute(), output.absolute()  # Allure runs in another folder
    starts = _start_times(results)
    if not starts:
        raise UsageError("make the HTML report", on=str(results), got="no Allure results", fix="run pytest first")
    node = _node(results)
    entry = cache.obtain(
        "report",
        "allure",
        _key(),
        lambda folder: _install(folder, node, progress),
        inputs={"lock": "ci/allure/package-lock.json"},
        progress=progress,
        needs_bytes=INSTALLED_BYTES,
    )
    output.mkdir(parents=True, exist_ok=True)
    with entry.in_use(), tempfile.TemporaryDirectory(prefix=".allure-", dir=output) as scratch:
        draft = Path(scratch)
        _put_history(history, draft / "history.jsonl", starts)
        _run_allure(node, entry, results, draft, {"REPORT_NAME": name})
        page = draft / "report" / "index.html"
        page.write_bytes(_without_analytics(page.read_bytes()))
        if history is not None and (draft / "history.jsonl").is_file():
            history.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(draft / "history.jsonl", history)
        return page.replace(output / "index.html")


def recipe_folder() -> Path:
    """Where package.json, its lock and allurerc.mjs are: in an installed package, or in the source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_share" / "allure"
    return installed if installed.is_dir() else package.parent / "ci" / "allure"


def _key() -> str:
    files = [recipe_folder() / name for name in ("package.json", "package-lock.json")]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def _node(results: Path) -> str:
    """The path of a Node that is new enough: the first in PATH, else the one that `[html]` put beside our Python."""
    complaints = []
    for folder in (None, str(Path(sys.executable).parent)):
        node = shutil.which("node", path=folder)
        complaint = "node is not installed" if node is None else _too_old(node)
        if node is not None and not complaint:
            return node
        complaints.append(complaint)
    raise _no_html(results, complaints[0])


def _too_old(node: str) -> str:
    """What is wrong with a Node; empty when nothing is."""
    try:
        said = subprocess.run(
            [node, "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"{node} --version: {error}"
    version = tuple(int(number) for number in re.findall(r"\d+", said)[:2])
    return "" if version >= NODE_AT_LEAST else f"{node} is {said or 'of an unknown version'}, which is too old"


def _no_html(results: Path, got: str) -> HostLacks:
    wanted = ".".join(map(str, NODE_AT_LEAST))
    return HostLacks(
        "make the HTML report",
        got=got,
        fix=f"the results are in {results}; to get the HTML, install Node.js {wanted} or newer with npm "
        f"(pip install 'sriov-harness[html]' brings one), here or elsewhere, then: sriov-harness report {results}",
    )


def _install(folder: Path, node: str, progress: Progress) -> Mapping[str, str]:
    """Fill a cache entry: ``npm ci`` of what the lock names, without running any package's scripts."""
    npm = shutil.which("npm", path=str(Path(node).parent)) or shutil.which("npm")
    if npm is None:
        raise HostLacks(
            "install Allure 3 for the HTML report",
            got="npm is not installed",
            fix="install npm (it comes with Node.js; on Debian: apt install npm), then: sriov-harness report",
        )
    progress("HTML report: installing Allure 3 with npm, once (53 MB)")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(recipe_folder() / name, folder / name)
    options = ["--ignore-scripts", "--no-bin-links", "--no-audit", "--no-fund", "--no-update-notifier"]
    done = _run([npm, "ci", *options], cwd=folder, within_s=INSTALL_WITHIN_S)
    if done.returncode:
        (folder / BUILD_LOG).write_text(done.stdout)
        raise HostLacks(
            "install Allure 3 for the HTML report",
            on="npm ci",
            got=_tail(done.stdout),
            fix="npm needs its registry once; set npm's registry or proxy if there is a mirror, then: "
            "sriov-harness report",
        )
    return {"allure": json.loads((folder / "node_modules/allure/package.json").read_text())["version"]}


def _run_allure(node: str, entry: Entry, results: Path, draft: Path, more: Mapping[str, str]) -> None:
    cli = entry.file("node_modules") / "allure" / "cli.js"
    config = recipe_folder() / "allurerc.mjs"
    own = {
        "ALLURE_RESULTS": str(results),
        "REPORT_OUTPUT": str(draft / "report"),
        "REPORT_HISTORY": str(draft / "history.jsonl"),
    }
    command = [node, str(cli), "generate", "--config", str(config), str(results)]
    done = _run(command, cwd=draft, within_s=GENERATE_WITHIN_S, more={**own, **more})
    if done.returncode or not (draft / "report" / "index.html").is_file():
        raise HarnessError(
            "make the HTML report",
            on=str(results),
            got=_tail(done.stdout) or f"Allure wrote no index.html (status {done.returncode})",
            fix="the results themselves are whole: this concerns the HTML only",
        )


def _run(
    command: list[str], *, cwd: Path, within_s: float, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end, both outputs in one; a program that takes too long is a failure with that as its words."""
    try:
        return subprocess.run(
            command, cwd=cwd, env={**os.environ, **(more or {})}, timeout=within_s, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"{Path(command[0]).name} did not end within {within_s:g} s")


def _without_analytics(page: bytes) -> bytes:
    clean = _ANALYTICS.sub(b"", page, count=1)
    if b"googletagmanager.com/gtag" in clean:
        raise HarnessError(
            "make the HTML report",
            got="it would tell Google when it is opened, in a way that harness/report/html.py does not know",
            fix="see what Allure's new version writes into index.html, and take that out too",
        )
    return clean


def _start_times(results: Path) -> frozenset[int]:
    """When each result began, in ms: what tells one run from another. Unreadable files are left to Allure."""
    starts = set()
    for file in results.glob("*-result.json"):
        try:
            starts.add(int(json.loads(file.read_bytes())["start"]))
        except (ValueError, KeyError, TypeError):
            continue
    return frozenset(starts)


def _put_history(history: Path | None, draft: Path, starts: frozenset[int]) -> None:
    """Copy the history without lines that a killed run left half-written and without an earlier report of this run."""
    if history is None or not history.is_file():
        return
    lines = [line for line in history.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    kept = [line for line in lines if (began := _began(line)) is not None and not (began and began <= starts)]
    draft.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _began(line: str) -> frozenset[int] | None:
    """The start times in one line of the history; None for a line that is not one of Allure's."""
    try:
        return frozenset(int(each["start"]) for each in json.loads(line)["testResults"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _tail(output: str, lines: int = 12) -> str:
    return "\n".join(output.strip().splitlines()[-lines:])

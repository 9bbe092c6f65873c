"""How the HTML report is asked for, with a node and an npm that are shell scripts."""

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.report import report
from harness.errors import HarnessError, HostLacks, UsageError
from harness.report.html import generate, recipe_folder
from harness.vm.cache import Cache

ANALYTICS = """\
    <script async src="https://www.googletagmanager.com/gtag/js?id=G-1"></script>
    <script>
        gtag('js', new Date());
    </script>
"""

NPM = """\
test -f package-lock.json || { echo "no lock"; exit 1; }
echo "$@" > npm-was-called-with
mkdir -p node_modules/allure && echo '{"version": "3.18.0"}' > node_modules/allure/package.json
"""

NODE = """\
if [ "$1" = --version ]; then echo v20.19.0; exit; fi
echo "$@" > "$ALLURE_RESULTS/../node-was-called-with"
cp "$REPORT_HISTORY" "$ALLURE_RESULTS/../history-before" 2>/dev/null
echo '{"testResults": {"a": {"start": 1000}}}' >> "$REPORT_HISTORY"
mkdir "$REPORT_OUTPUT"
cat > "$REPORT_OUTPUT/index.html" <<END
<title>$REPORT_NAME</title>
PAGE<p>the report</p>
END
""".replace("PAGE", ANALYTICS)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with only the programs that a test puts there (and the shell's own)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "cp", "mkdir", "test", "echo"):
        source = next(Path(at) / name for at in ("/bin", "/usr/bin") if (Path(at) / name).exists())
        (folder / name).symlink_to(source)
    monkeypatch.setenv("PATH", str(folder))

    def put(**scripts):
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}")
            (folder / name).chmod(0o755)

    return put


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "1-result.json").write_text('{"start": 1000}')
    return folder


@pytest.fixture
def make(tmp_path, results):
    def call(**more):
        return generate(results, tmp_path / "out", cache=Cache(tmp_path / "cache"), **more)

    return call


def test_the_report_is_one_file_that_tells_nobody_when_it_is_read(tmp_path, programs, make, results):
    programs(node=NODE, npm=NPM)
    said = []
    page = make(name="igb on a laptop", progress=said.append)
    assert page == tmp_path / "out" / "index.html"
    assert page.read_text() == "<title>igb on a laptop</title>\n    <p>the report</p>\n"
    assert list((tmp_path / "out").iterdir()) == [page]
    assert said == ["HTML report: installing Allure 3 with npm, once (53 MB)"]
    called = (tmp_path / "node-was-called-with").read_text().split()
    assert called[1:3] == ["generate", "--config"]
    assert called[4] == str(results)


def test_relative_paths_are_those_of_the_caller(tmp_path, programs, results, monkeypatch):
    programs(node=NODE, npm=NPM)
    monkeypatch.chdir(tmp_path)
    generate(Path(results.name), Path("out"), cache=Cache(tmp_path / "cache"), history=Path("kept/history.jsonl"))
    assert (tmp_path / "out" / "index.html").exists()
    assert (tmp_path / "kept" / "history.jsonl").exists()


def test_modules_are_installed_once_from_the_lock_without_scripts(tmp_path, programs, make):
    programs(node=NODE, npm=NPM)
    make()
    programs(npm="exit 1")
    make()
    (entry,) = Cache(tmp_path / "cache").entries()
    assert entry.facts == {"allure": "3.18.0"}
    options = entry.file("npm-was-called-with").read_text().split()
    assert options[:2] == ["ci", "--ignore-scripts"]


@pytest.mark.parametrize(
    ("scripts", "words"),
    [
        ({}, "node is not installed"),
        ({"node": "echo v18.20.4"}, "is v18.20.4, which is too old"),
        ({"node": "echo v20.18.3"}, "is v20.18.3, which is too old"),
        ({"node": "exit 3"}, "returned non-zero exit status 3"),
        ({"node": NODE}, "npm is not installed"),
        ({"node": NODE, "npm": "echo npm error network EAI_AGAIN; exit 1"}, "npm error network EAI_AGAIN"),
    ],
)
def test_a_computer_that_lacks_something_is_told_what(programs, make, results, scripts, words):
    programs(**scripts)
    with pytest.raises(HostLacks, match=re.escape(words)) as caught:
        make()
    assert "sriov-harness report" in caught.value.fix
    assert not list(results.parent.glob("out/index.html"))


def test_without_node_the_message_says_where_the_results_are(programs, make, results):
    programs()
    with pytest.raises(HostLacks) as caught:
        make()
    assert f"the results are in {results}; to get the HTML, install Node.js 20.19 or newer with npm" in str(
        caught.value
    )


def test_words_of_allure_reach_the_reader(programs, make):
    programs(npm=NPM, node='[ "$1" = --version ] && echo v22.0.0 && exit; echo "The report is too large"; exit 1')
    with pytest.raises(HarnessError, match="The report is too large"):
        make()


def test_an_allure_that_writes_nothing_is_a_failure(programs, make):
    programs(npm=NPM, node='[ "$1" = --version ] && echo v22.0.0; exit 0')
    with pytest.raises(HarnessError, match=r"wrote no index\.html"):
        make()


def test_unknown_analytics_are_refused(programs, make):
    programs(npm=NPM, node=NODE.replace("<script async src", "<script defer src"))
    with pytest.raises(HarnessError, match="it would tell Google"):
        make()


def test_no_results_is_the_callers_mistake(programs, make, results):
    programs()
    (results / "1-result.json").write_text("not JSON")
    with pytest.raises(UsageError, match="no Allure results"):
        make()


def test_history_keeps_earlier_runs_and_drops_broken_lines_and_this_run(tmp_path, programs, make):
    programs(node=NODE, npm=NPM)
    earlier = '{"testResults": {"a": {"start": 500}}}'
    this = '{"testResults": {"a": {"start": 1000}}}'
    history = tmp_path / "kept" / "history.jsonl"
    history.parent.mkdir()
    history.write_text(f'{earlier}\n[1]\n{this}\n{{"testRes')
    make(history=history)
    assert (tmp_path / "history-before").read_text() == f"{earlier}\n"
    assert history.read_text() == f"{earlier}\n{this}\n"


def test_the_command_prints_the_path(tmp_path, programs, results, monkeypatch):
    programs(node=NODE, npm=NPM)
    monkeypatch.setenv("SRIOV_HARNESS_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(report, [str(results), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'out' / 'index.html'}\n"
    assert (tmp_path / "history.jsonl").exists()


def test_the_command_without_node_fails_in_words(tmp_path, programs, results):
    programs()
    done = CliRunner().invoke(report, [str(results), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: make the HTML report: node is not installed\n  → ")


def test_the_lock_fits_the_package_and_names_no_registry():
    package = json.loads((recipe_folder() / "package.json").read_text())
    lock = json.loads((recipe_folder() / "package-lock.json").read_text())
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    assert lock["packages"]["node_modules/allure"]["version"] == package["dependencies"]["allure"]
    others = {name: one for name, one in lock["packages"].items() if name}
    assert len(others) > 100
    assert [name for name, one in others.items() if "resolved" in one or not one.get("integrity")] == []


def test_modules_are_found_by_the_content_of_the_lock(tmp_path, monkeypatch, programs, make):
    programs(node=NODE, npm=NPM)
    make()
    other = tmp_path / "recipe"
    other.mkdir()
    for file in recipe_folder().iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes() + b"\n")
    monkeypatch.setattr("harness.report.html.recipe_folder", lambda: other)
    make()
    assert len(Cache(tmp_path / "cache").entries()) == 2
    assert os.fspath(other) not in (tmp_path / "out" / "index.html").read_text()

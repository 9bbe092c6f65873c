"""The agent as a file: the same bytes everywhere, nothing but the standard library, Python 3.9."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import zipfile

import agent_kit
import pytest

from harness.agent import pack
from harness.agent.remote import verbs

MEMBERS = sorted(pack.members())


def test_the_same_sources_give_the_same_bytes(monkeypatch):
    first = pack.pack()
    pack.pack.cache_clear()
    backwards = dict(reversed(pack.members().items()))
    monkeypatch.setattr(pack, "members", lambda: backwards)
    assert pack.pack() == first
    pack.pack.cache_clear()
    assert re.fullmatch("[0-9a-f]{64}", pack.pack_key())


def test_the_key_changes_with_a_source(monkeypatch):
    before = pack.pack_key()
    changed = {**pack.members(), "harness/agent/frames.py": b"# changed"}
    monkeypatch.setattr(pack, "members", lambda: changed)
    pack.pack.cache_clear()
    assert pack.pack_key() != before
    pack.pack.cache_clear()


def test_nothing_in_the_file_depends_on_the_day_or_the_machine():
    with zipfile.ZipFile(io.BytesIO(pack.pack())) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == MEMBERS
    assert {(entry.date_time, entry.compress_type, entry.create_system, entry.external_attr) for entry in entries} == {
        ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 3, 0o100644 << 16)
    }


@pytest.mark.parametrize("name", MEMBERS)
def test_only_the_standard_library_and_itself_are_imported(name):
    modules = {re.sub(r"(/__init__)?\.py$", "", member).replace("/", ".") for member in MEMBERS}
    for node in ast.walk(ast.parse(pack.members()[name])):
        if isinstance(node, ast.Import):
            wanted = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            wanted = {node.module}
        else:
            continue
        for module in wanted:
            assert module in modules or module.partition(".")[0] in sys.stdlib_module_names, module


def test_every_verb_exists_and_says_what_it_does():
    for verb in verbs.VERBS:
        assert (verbs.find(verb).__doc__ or "").strip(), verb


def test_python_3_9_is_enough(tmp_path):
    """By vermin, which reads the sources; the conformance tests run them."""
    for name, data in pack.members().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    pytest.importorskip("vermin", reason="vermin is not installed (pip install vermin)")
    argv = [
        "-c",
        "import vermin; vermin.main()",
        "--target=3.9-",
        "--no-tips",
        "--violations",
        "--exclude",
        "os.eventfd",
        str(tmp_path),
    ]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_imported_whole_by_the_oldest_python(tmp_path):
    python = agent_kit.oldest_python()
    if python is None:
        pytest.skip(f"this computer has no Python {agent_kit.OLDEST}")
    code = "import sys; sys.path[0] = sys.argv[1]; from harness.agent.remote import verbs; verbs.load_all()"
    subprocess.run([python, "-I", "-S", "-W", "error", "-c", code, agent_kit.packed(tmp_path)], check=True)

"""The cache and its disk: one that is full, and files with holes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.vm import manifest as manifests

FILL_A_DISK = """
import sys
from pathlib import Path
from harness.vm.cache import Cache
from harness.errors import HostLacks

def build(folder):
    for number in range(64):
        (folder / str(number)).write_bytes(b"x" * 100_000)
    return {}

root = Path(sys.argv[1])
try:
    Cache(root).obtain("image", "guest", "ab" * 32, build, inputs={})
except HostLacks as error:
    print(error)
print("left:", sorted(path.name for path in root.rglob("*")))
"""


def test_full_disk_names_folder_need_and_room_and_leaves_nothing(tmp_path: Path) -> None:
    """On a true file system of 2 MB, in a mount namespace of its own: no root needed where those are allowed."""
    script = tmp_path / "fill.py"
    script.write_text(FILL_A_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = 'mount -t tmpfs -o size=2m disk "$1" && exec "$2" "$3" "$1"'
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    argv = ["unshare", "-rm", "sh", "-c", inside, "sh", str(disk), sys.executable, str(script)]
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("this computer does not let us make a mount namespace (unshare -rm)")
    result = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    assert f"({disk}/image): the disk is full: more than 2 MB needed, 2 MB free" in result.stdout, result.stderr
    assert "image clean --outdated" in result.stdout
    assert result.stdout.splitlines()[-1] == "left: ['.guest-abababababababab.lock', 'image']"


def test_sparse_file_is_hashed_by_content_and_without_reading_its_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gigabyte of guest memory with a few pages in it; a copy without holes has the same sum."""
    (tmp_path / "one").mkdir()
    with (tmp_path / "one/memory").open("wb") as file:
        for offset in (0, 5_000_000, 700_000_000):
            file.seek(offset)
            file.write(b"page")
        file.truncate(1 << 30)
    reads: list[int] = []
    pread = os.pread
    monkeypatch.setattr("os.pread", lambda fd, size, at: reads.append(at) or pread(fd, size, at))
    (item,) = manifests.survey(tmp_path / "one")
    assert len(reads) < 10, "read holes"
    assert item.digest.startswith("holes:")
    manifest = manifests.Manifest("template", "t", "ab" * 32, "", items=(item,))
    manifests.check(tmp_path / "one", manifest)
    with (tmp_path / "one/memory").open("r+b") as file:
        file.seek(6_000_000)
        file.write(bytes(1_000_000))  # fills a hole with zeros: nothing has changed
    manifests.check(tmp_path / "one", manifest)
    with (tmp_path / "one/memory").open("r+b") as file:
        file.seek(900_000_000)
        file.write(b"x")
    with pytest.raises(manifests.Damaged, match="memory has holes:"):
        manifests.check(tmp_path / "one", manifest)

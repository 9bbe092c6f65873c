"""The agent as one file: ``agent.pyz``, the same bytes for the same sources."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
START = b"import sys\nfrom harness.agent.remote.main import main\nsys.exit(main(sys.argv[1:]))\n"


def members() -> dict[str, bytes]:
    """Every file of the agent by its name in the zip: the same packages as here, with empty ``__init__.py`` above."""
    files = {"__main__.py": START, "harness/__init__.py": b"", "harness/agent/__init__.py": b""}
    files["harness/agent/frames.py"] = (HERE / "frames.py").read_bytes()
    for path in (HERE / "remote").glob("*.py"):
        files[f"harness/agent/remote/{path.name}"] = path.read_bytes()
    return files


@cache
def pack() -> bytes:
    """``agent.pyz``, to be started as ``python3 agent.pyz --port|--stdio|--fd``.

    Stored, not compressed: what zlib makes of the same bytes differs from version to version, and the guest starts
    sooner.
    """
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(members().items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # Unix, wherever this runs
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return whole.getvalue()


def pack_key() -> str:
    """SHA-256 of ``pack()`` in hex: part of the key of every image and template that carries the agent."""
    return hashlib.sha256(pack()).hexdigest()

"""What is kept with a result: how to run it again, what was said, and what config space was before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.pci.dump import changes, hex_dump
from harness.report.steps import attach_text

SHELL_SCRIPT, PLAIN = "sh", "txt"


def folder_for(node_id: str, build: Path) -> Path:
    """The evidence folder of one test: its ID, safe as a file name."""
    return build / "evidence" / re.sub(r"[^A-Za-z0-9._-]+", "-", node_id).strip("-")[:150]


def attach_texts(texts: Mapping[str, str]) -> None:
    """Attach texts by file name, the empty ones left out."""
    for name, text in texts.items():
        stem, _, extension = name.rpartition(".")
        if text.strip():
            attach_text(stem, text, extension=extension or PLAIN)


def attach_config(title: str, before: bytes | None, after: bytes | None) -> None:
    """Attach both dumps of a function's config space, and which dwords differ."""
    for moment, config in (("before", before), ("after", after)):
        if config is not None:
            attach_text(f"config space of {title}, {moment}", hex_dump(config))
    if before is not None and after is not None and before != after:
        attach_text(f"config space of {title}, changes", "\n".join(changes(before, after)) + "\n")

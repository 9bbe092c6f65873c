"""Profiles by name (built in) or by path (the user's own)."""

from __future__ import annotations

from pathlib import Path

from harness.errors import unknown_name
from harness.profiles.model import Profile
from harness.tomlfile import load

BUILT_IN = Path(__file__).parent


def known_profiles() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in BUILT_IN.glob("*.toml")))


def load_profile(name: str) -> Profile:
    """A built-in profile by its name, or a file by its path (anything with a slash or ending in ``.toml``).

    Raises:
        UsageError: no such profile; the known ones are listed.
        ProfileError: a mistake in the file, with file, line and key.
    """
    if "/" in name or name.endswith(".toml"):
        return load(Path(name), Profile)
    if name not in known_profiles():
        raise unknown_name("profile", name, known_profiles())
    return load(BUILT_IN / f"{name}.toml", Profile)

"""What a design promises. One TOML file a design; the built-in ones are found by being in this folder."""

from harness.profiles.loader import known_profiles, load_profile
from harness.profiles.model import Bar, Emulation, MsixPromise, Profile, RegisterWrite, Trigger

__all__ = ["Bar", "Emulation", "MsixPromise", "Profile", "RegisterWrite", "Trigger", "known_profiles", "load_profile"]

"""Where the endpoint is. Each lab gives machines that hold it; a test never asks which lab it runs in."""

from harness.lab.base import Endpoint, Lab, Machine
from harness.lab.registry import DEFAULT_LAB, Request, check_lab_name, known_labs, open_lab

__all__ = ["DEFAULT_LAB", "Endpoint", "Lab", "Machine", "Request", "check_lab_name", "known_labs", "open_lab"]

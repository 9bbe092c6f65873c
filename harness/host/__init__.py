"""The host role: the machine that holds the endpoint. Written once, against an agent, wherever that agent is."""

from harness.host.function import Function
from harness.host.host import Host
from harness.host.physical import PhysicalFunction, VirtualFunction

__all__ = ["Function", "Host", "PhysicalFunction", "VirtualFunction"]

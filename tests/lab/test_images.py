"""What the recipes promise is in the images, and each image boots."""

from __future__ import annotations

from dataclasses import replace

from harness.vm.cache import Cache
from harness.vm.images import image
from harness.vm.spec import MachineSpec
from harness.vm.vm import Vm

TOOLS = ("python3", "modprobe", "lspci", "ethtool", "nvme", "ip")


def test_the_guest_image_boots_and_has_its_tools(lab, run_folder):
    stack = replace(lab.stack, image=image(Cache.default(), "guest"))
    spec = MachineSpec(memory_mib=384, accelerator=lab.template().spec.accelerator)
    with Vm(stack.launch(spec, "guest image"), run_folder / "guest-image") as vm:
        agent = vm.greet(within_s=120)
        missing = [tool for tool in TOOLS if agent.run(["which", tool], check=False).status]
        assert not missing, f"the guest image lacks {missing}"
        assert agent.run(["which", "qemu-system-x86_64"], check=False).status, "the guest image needs no QEMU"


def test_the_host_image_has_the_pinned_qemu(lab):
    with lab.machine("host image", plugged=False) as machine:
        said = machine.vm.agent.run(["qemu-system-x86_64", "--version"]).text
    assert f"version {lab.stack.qemu.version_text} " in said

"""MSI-X: the promised vectors, each delivered once and only to its own eventfd, masked and disabled as asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.host import PhysicalFunction
from harness.host.interrupts import Vectors, open_vectors
from harness.pci.layout import Msix
from harness.profiles import MsixPromise, Profile
from harness.report.matrix import Matrix
from harness.report.pictures import show_msix
from harness.report.steps import step


@pytest.fixture
def promise(profile: Profile) -> MsixPromise:
    """What the profile promises of its VFs' vectors, with a way to fire them."""
    if profile.vf.msix is None or profile.vf.msix.trigger is None:
        pytest.skip("not run: the profile names no way to fire a VF's vector ([vf.msix.trigger])")
    return profile.vf.msix


def test_pf_capability_is_as_promised(pf: PhysicalFunction, profile: Profile) -> None:
    """The PF has the promised number of vectors, and table and PBA where promised."""
    check_capability(str(pf), pf.usable_msix(), profile.pf.msix)


def test_vf_capabilities_are_as_promised(quiet_pf: PhysicalFunction, profile: Profile, num_vfs: int) -> None:
    """Each VF has the promised number of vectors, and table and PBA where promised, inside its own BARs."""
    for vf in quiet_pf.enable_vfs(num_vfs):
        check_capability(str(vf), vf.usable_msix(), profile.vf.msix)


def test_every_vector_arrives_once_at_its_own_eventfd(quiet_pf: PhysicalFunction, promise: MsixPromise) -> None:
    """Every vector of every VF, fired alone: one event at its own eventfd, none at any other, on any VF."""
    rows: list[tuple[str, list[int]]] = []
    with open_vectors(quiet_pf, quiet_pf.enable_vfs(quiet_pf.most_vfs()), promise) as opened:
        for vectors in opened:
            for vector in range(vectors.count):
                label = f"{name_of(vectors)} vector {vector}"
                with step(f"fire {label}"):
                    rows.append((label, fire_and_listen_everywhere(vectors, vector, opened)))
    show_msix(rows)
    faults = Matrix.of(rows).faults()
    assert not faults, "\n".join(faults)


def test_masked_vectors_stay_pending_and_arrive_unmasked(quiet_pf: PhysicalFunction, promise: MsixPromise) -> None:
    """A masked vector sends nothing and sets its pending bit; unmasked, it sends once and the bit clears (6.1.4)."""
    with open_vectors(quiet_pf, quiet_pf.enable_vfs(1), promise) as (vectors,):
        for vector in range(vectors.count):
            label = f"{name_of(vectors)} vector {vector}"
            with step(f"mask {label} and fire it"):
                vectors.mask(vector)
                assert not vectors.fire(vector, expect=0).total, f"{label}: it came though masked"
                assert vectors.pending(vector), f"{label}: its pending bit is not set, masked and fired"
            with step(f"unmask {label}"):
                vectors.unmask(vector)
                counts = vectors.received(expect=1).counts
                assert counts == only(vector, vectors.count), f"{label}: events by eventfd after unmasking"
                assert not vectors.pending(vector), f"{label}: its pending bit is still set after it came"


def test_other_vectors_arrive_while_one_is_masked(quiet_pf: PhysicalFunction, promise: MsixPromise) -> None:
    """The mask of one vector holds back no other."""
    with open_vectors(quiet_pf, quiet_pf.enable_vfs(1), promise) as (vectors,):
        for masked in range(vectors.count):
            vectors.mask(masked)
            for vector in set(range(vectors.count)) - {masked}:
                counts = vectors.fire(vector).counts
                label = f"{name_of(vectors)} vector {vector}"
                assert counts == only(vector, vectors.count), f"{label}: events by eventfd while {masked} is masked"
            vectors.unmask(masked)


def test_nothing_arrives_with_msix_off(quiet_pf: PhysicalFunction, promise: MsixPromise) -> None:
    """With MSI-X Enable clear no vector sends anything; enabled again, each works as before (7.7.2.2)."""
    with open_vectors(quiet_pf, quiet_pf.enable_vfs(1), promise) as (vectors,):
        with step("turn MSI-X off and fire every vector"), vectors.msix_off():
            for vector in range(vectors.count):
                label = f"{name_of(vectors)} vector {vector}"
                assert not vectors.fire(vector, expect=0).total, f"{label}: it came though MSI-X is off"
        with step("turn MSI-X on again"):
            vectors.received()  # what was held back may come now, once; from here on each event counts
            for vector in range(vectors.count):
                counts = vectors.fire(vector).counts
                label = f"{name_of(vectors)} vector {vector}"
                assert counts == only(vector, vectors.count), f"{label}: events by eventfd after MSI-X was off"


def check_capability(name: str, seen: Msix | None, promised: MsixPromise | None) -> None:
    if promised is None:
        assert seen is None, f"{name}: an MSI-X capability that the profile does not promise"
        return
    assert seen is not None, f"{name}: no MSI-X capability"
    assert seen.vectors == promised.vectors, f"{name}: MSI-X vectors"
    table, pba = place(promised.table_bar, promised.table_offset), place(promised.pba_bar, promised.pba_offset)
    assert place(seen.table_bar, seen.table_offset) == table, f"{name}: MSI-X table"
    assert place(seen.pba_bar, seen.pba_offset) == pba, f"{name}: MSI-X PBA"


def place(bar: int, offset: int) -> str:
    return f"BAR {bar} + {offset:#x}"


def fire_and_listen_everywhere(vectors: Vectors, vector: int, opened: Sequence[Vectors]) -> list[int]:
    """Counts of all eventfds of all functions, in order, after one vector was fired."""
    own = vectors.fire(vector).counts
    return [count for each in opened for count in (own if each is vectors else each.received().counts)]


def only(vector: int, count: int) -> tuple[int, ...]:
    """One event at ``vector``'s eventfd and none at the others."""
    return tuple(int(number == vector) for number in range(count))


def name_of(vectors: Vectors) -> str:
    return str(vectors.function).partition(" (")[0]

from __future__ import annotations

from geostore.node.leases import Leases

NAME = ("d", "s")


def test_a_lease_ends_when_its_holder_is_silent() -> None:
    leases = Leases(started_s=0.0, lease_s=10.0)
    leases.renew(NAME, "a", 100.0)
    assert leases.is_held(NAME, 109.0)
    assert not leases.is_held(NAME, 109.0, except_by="a")
    assert not leases.is_held(NAME, 110.0)
    leases.renew(NAME, "a", 110.0)
    leases.drop(NAME, "a")
    leases.drop(NAME, "a")
    assert not leases.is_held(NAME, 111.0)


def test_after_a_start_nobody_is_taken_for_gone_before_all_had_time_to_renew() -> None:
    leases = Leases(started_s=100.0, lease_s=10.0)
    assert leases.is_held(NAME, 109.0)
    assert leases.is_held(NAME, 109.0, except_by="a")
    assert not leases.is_held(NAME, 110.0)


def test_who_was_silent_for_too_long_is_forgotten() -> None:
    leases = Leases(started_s=0.0, lease_s=10.0)
    leases.renew(NAME, "a", 100.0)
    leases.renew(NAME, "b", 105.0)
    leases.drop_ended(NAME, 112.0)
    assert leases.is_held(NAME, 112.0)
    leases.drop_ended(NAME, 115.0)
    assert leases == Leases(started_s=0.0, lease_s=10.0)
    leases.drop_ended(NAME, 120.0)

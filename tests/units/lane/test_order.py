"""Owns: steering among strangers: listeners of others in the kernel's group, which come and
go without telling, so that no index is what the engine's own calls would make it."""

import contextlib
import random
import socket

import pytest

from ..harness import accept_all, check, needs_ipv6, spread

REUSEPORT = socket.SO_REUSEPORT


class World:
    """Lanes of workers by number, and strangers at the same address."""

    def __init__(self, engine, stack, host):
        self.engine, self.stack = engine, stack
        self.lanes, self.strangers, self.last = {}, [], 0
        self.address = (host, 0)
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def lane(self):
        self.last += 1
        lane = self.stack.enter_context(self.engine.lane(self.last, self.address, self.family))
        self.address = lane.getsockname()[:2]
        self.lanes[self.last] = lane

    def bury(self, number):
        self.lanes.pop(number).close()
        self.engine.bury(number)

    def stranger(self):
        sock = self.stack.enter_context(socket.socket(self.family))
        sock.setsockopt(socket.SOL_SOCKET, REUSEPORT, 1)
        sock.bind(self.address)
        sock.listen()
        sock.setblocking(False)
        self.strangers.append(sock)

    def shared(self):
        """(how many strangers there are, whether steering is unsure)."""
        places = self.engine.ffi.new("struct rc_place[]", 4)
        count = check(self.engine.lib.rc_shared(self.engine.pointer, places, 4))
        if not count:
            return (0, False)
        told = self.engine.ffi.string(places[0].address).decode()
        assert told.endswith(f":{self.address[1]}")
        return (places[0].listeners, bool(places[0].unsure))

    def check(self, *live):
        """New connections come to these lanes, all of them, and to nobody else."""
        self.engine.steer(*live)
        counts = spread({number: self.lanes[number] for number in live}, self.address, 8)
        assert sum(counts.values()) == 8
        assert not any(accept_all(sock) for sock in self.strangers)


@pytest.fixture(params=["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def world(request, engine):
    with contextlib.ExitStack() as stack:
        yield World(engine, stack, request.param)


@pytest.mark.parametrize("seed", range(6))
def test_steering_is_right_whoever_comes_and_goes(world, seed):
    chance = random.Random(seed)
    world.lane()
    for _ in range(30):
        what = chance.choice(["lane", "lane", "bury", "stranger", "leaves"])
        if what == "lane" and len(world.lanes) < 6:
            world.lane()
        elif what == "bury" and len(world.lanes) > 1:
            world.bury(chance.choice(sorted(world.lanes)))
        elif what == "stranger" and len(world.strangers) < 4:
            for _ in range(chance.randint(1, 2)):
                world.stranger()
        elif what == "leaves" and world.strangers:
            world.shared()
            world.strangers.pop(chance.randrange(len(world.strangers))).close()
            assert world.shared() == (len(world.strangers), False)
        world.check(chance.choice(sorted(world.lanes)))
    assert world.shared() == (len(world.strangers), False)


def test_strangers_behind_all_lanes_may_go_at_once(world):
    world.lane()
    for _ in range(3):
        world.stranger()
    assert world.shared() == (3, False)
    for at in (1, 0, 0):
        world.strangers.pop(at).close()
    assert world.shared() == (0, False)
    world.lane()
    world.check(2)


def test_when_several_go_from_among_the_lanes_it_is_said(world):
    world.lane()
    for _ in range(2):
        world.stranger()
    world.lane()
    for _ in range(2):
        world.strangers.pop().close()
    assert world.shared() == (0, True)


def test_where_sock_diag_is_refused_lanes_go_on(world, fault):
    world.lane()
    fault.arm(1, 1, "sendmsg", sticky=True)
    world.lane()
    world.bury(1)
    fault.disarm()
    world.check(2)


def test_each_address_has_strangers_of_its_own(engine):
    """All are asked for at once."""
    with contextlib.ExitStack() as stack:
        worlds = [World(engine, stack, f"127.0.0.{host}") for host in (1, 2, 3)]
        for at, world in enumerate(worlds):
            world.last = 10 * at
            world.lane()
            for _ in range(at):
                world.stranger()
            world.lane()
        places = engine.ffi.new("struct rc_place[]", 4)
        assert check(engine.lib.rc_shared(engine.pointer, places, 4)) == 2
        assert sorted(places[at].listeners for at in range(2)) == [1, 2]
        for at, world in enumerate(worlds):
            world.check(10 * at + 1)
            world.check(10 * at + 2)
            world.bury(10 * at + 1)
            world.check(10 * at + 2)


def test_lanes_that_nothing_leads_to_yet_are_put_in_their_places_together(engine, fault):
    """As at a reload: of many addresses, with a stranger or two among them."""
    with contextlib.ExitStack() as stack:
        worlds = [World(engine, stack, f"127.0.0.{host}") for host in range(1, 41)]
        for at, world in enumerate(worlds):
            world.last = 10 * at
            world.lane()
        engine.steer(*range(1, 400, 10))
        names = []
        with fault.before_each_call(names.append):
            for at, world in enumerate(worlds):
                for _ in range(at % 3):
                    world.stranger()
                world.lane()
                if at % 2:
                    world.stranger()
                world.lane()
        assert names.count(b"sendmsg") < 60  # instead of 80
        for at, world in enumerate(worlds[:12]):
            assert len(world.strangers) == at % 3 + at % 2
            world.check(10 * at + 2)
            world.check(10 * at + 3)
            world.bury(10 * at + 2)
            world.check(10 * at + 3)
            world.check(10 * at + 1)

"""How a master comes to have the parts that need an engine, in the order in which they depend
on each other; and how it begins, or goes on in the place of another.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from .. import _engine
from ..base.socketfile import Refused
from ..control.control import open_control
from ..control.names import name_of
from ..host.actions import SignalActions
from ..host.signals import Signals
from ..host.terminal import Terminal
from ..mold.hint import Hint
from ..mold.nursery import nursery_for
from ..mold.target import can_be
from ..options.variables import strangers
from ..population import population
from ..start import balancing
from ..start.doors import ClusterError, OtherDoor, choose
from ..start.identity import assume
from ..start.inherit import give
from ..systemd.unit import open_unit
from . import succeeding
from .executor import Executor
from .handlers import Handlers
from .hooks import open_hooks
from .links import Links
from .questions import prepare
from .spawner import Spawner
from .supervisor import Supervisor
from .upgrading import Upgrading
from .watching import Watching
from .wishes import Wishes


def start(core: Supervisor, *, signals: bool, subreaper: bool) -> None:
    """Raises ClusterError, OSError; RuntimeError where it was started before."""
    if core.engine is not None or core.exit_code is not None:
        raise RuntimeError("the cluster was started before")
    core.begin(_engine.Engine(subreaper))
    try:
        _outputs(core)
        _parts(core, subreaper)
        if signals or subreaper:
            take_signals(core, subreaper)
    except BaseException as error:
        core.release()
        core.fall_silent()
        if isinstance(error, Refused):
            raise ClusterError(str(error)) from None
        raise
    core.make_room(core.options.workers)
    core.links = Links(core.program.cwd())
    if core.heritage:
        succeeding.go_on(core, core.heritage)
    else:
        population.start(core.population, time.monotonic())
    core.work()


def _outputs(core: Supervisor) -> None:
    """Who is told, and who may ask."""
    options, left, asked = core.options, core.heritage, Wishes(core)
    if core.to_watch:
        core.outputs.append(Watching(core.to_watch, asked, core.eventlog.line))
    if hooks := open_hooks(options.on, core.population, core.eventlog, core.publisher.emitter):
        core.outputs.insert(0, hooks)  # what they print at the end is logged
        core.pump.attend(hooks)
    for output in core.outputs:
        output.attach(core)
    core.eventlog.waits()
    upgrading = Upgrading(core)
    core.pump.attend(upgrading)
    called = name_of(core.program.target)
    before = left["control"] if left else None
    core.control = open_control(core, asked, upgrading.ask, called, before)
    if core.control:
        core.pump.attend(core.control.listener)
    if left:
        core.eventlog.goes_on()
    else:
        _say_first(core)
    if options.metrics is not None:
        from ..metrics.exporter import Exporter  # nobody's who does not want it

        core.exporter = Exporter.opened(core, left["metrics"] if left else None)
        core.pump.attend(core.exporter)


def _say_first(core: Supervisor) -> None:
    path = core.control.path if core.control else None
    core.eventlog.begins(core.program.described(), core.name, path)
    core.revision.starts()
    if nested := core.program.reloader():
        core.eventlog.warn(nested)
    for stranger in strangers(os.environ):
        core.eventlog.warn(stranger)


def _parts(core: Supervisor, subreaper: bool) -> None:
    engine, options, program = core.alive(), core.options, core.program
    population, workers, eventlog = core.population, core.workers, core.eventlog
    left = core.heritage
    on_fork: list[Callable[[], object]] = [partial(os.close, fd) for fd in core.given_fds]
    core.tally.spent = partial(core.census.spent, engine)
    if core.keeps_terminal:
        core.publisher.at_exit.append(Terminal(engine).ended)
    identity = assume(engine, program, options, eventlog.line)
    if left:
        door, core.balance = left["door"], left["balance"]
        engine.balance(options.balance)
    else:
        door = choose(engine, identity.door, eventlog.warn)
        core.balance = balancing.choose(engine, options, eventlog.line)
    asking = prepare(engine, core.pump, options, population, eventlog, core.work)
    on_fork += [asking.abandon] if asking else []
    engine.flows_stay(options.drain_settle)
    engine.handover_idle(options.handover_idle)
    # A host's descriptors are the host's own.
    activation = os.environ if core.may_fork else {}
    core.unit = open_unit(population, options, activation, eventlog.warn)
    if left:
        given = succeeding.given(core, left)
    else:
        given = give(engine, options.bind, activation, eventlog.warn, identity.owner)
    population.offered, core.unneeded = given.offered, given.unneeded
    program.change(dict.fromkeys(given.unneeded))
    if core.unit:
        on_fork.append(core.unit.close)
        store = core.unit.store(engine, given.restored, Wishes(core).reload)
        core.pump.attend(core.unit)
        core.pump.attend(store)
    core.spawner = Spawner(
        engine,
        program,
        door,
        may_fork=core.may_fork and not (asking and asking.tls),
        receives=options.door == "auto",
        rings=options.handover == "auto",
        output=core.pipes.open if core.pipes else None,
    )
    core.spawner.on_fork += on_fork
    core.nursery = core.spawner.nursery = nursery_for(
        engine,
        program,
        options,
        population,
        workers,
        eventlog,
        subreaper=subreaper,
        door=door,
        terminal=core.keeps_terminal,
    )
    gains = options.workers > 1 and "preload" not in options.given and can_be(program)
    core.hint = Hint(workers, eventlog, gains)
    core.executor = Executor(engine, population, workers, options, eventlog, asking)
    core.handlers = Handlers(
        engine,
        population,
        workers,
        options,
        eventlog,
        core.publisher.message,
        OtherDoor(engine, options.door, core.spawner),
    )


def take_signals(core: Supervisor, reaps: bool) -> None:
    actions = SignalActions(Wishes(core), core.eventlog.line, core.containment.signal)
    core.signals = Signals(core, core.alive(), actions.contained, reaps)

"""Which tests are the core: the main job, respawn, reload, failures, the master's death.

They are what .ci/run repeats under seccomp profiles (`python tests/deny.py
pidfd_getfd,bpf -- python -m pytest -m core`). Those of one Python server more are
`peer`: to the engine's C code they are all the same, so its sanitizer run leaves them out, and
those of the `surface`, where the C code does what it does in all others.

`python -m pytest` alone runs the first of each list that an integration test goes through, and
of the long ones none; the rest is `whole`. Who names files or tests, or says --whole, gets all.
"""

import os
import signal
from pathlib import Path

import hypothesis
import pytest
from inherit_signals import MARK

# What nohup or a shell's background ignores would be inherited by every master.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Of a hostile start (inherit_signals.py) this is for the masters only: a test wants the exit
# codes of its own children.
if MARK in os.environ:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)

CORE = {"test_servers.py", "test_failures.py", "test_lanes_live.py", "test_master_death.py"}
SURFACE = {
    f"test_{name}.py"
    for name in (
        "agents", "asyncio", "config", "container", "dev", "exporter", "exporter_clients", "hints",
        "hooks", "init", "log", "metrics", "operations", "pictures", "prefix", "preload_auto",
        "prometheus_client", "proxies", "recycling", "same_as_python", "systemd", "terminal", "top",
        "unit", "verbs", "words",
    )
}  # fmt: skip
PEERS = ("aiohttp", "gunicorn", "granian", "grpcio", "hypercorn", "tornado", "wsgiref")


LONG = {  # five seconds and more, mostly of waiting
    f"test_{name}"
    for name in (
        "256_slots_under_the_usual_limit",
        "a_connection_in_use_is_not_closed_under_a_request",
        "a_group_without_a_worker_is_noticed",
        "a_hang_is_counted",
        "a_held_stream_delays_nobody_and_lives_on",
        "a_held_stream_ends_at_the_timeout",
        "a_queue_that_stands_for_a_moment_takes_its_turn_away_from_nobody",
        "a_server_of_ones_own_says_nothing_of_its_worker",
        "a_server_that_was_seen_to_die_of_the_signal_is_not_cut_again",
        "a_slow_answer_is_waited_for",
        "a_stranger_in_the_group_gets_nothing_and_is_told_of",
        "a_stream_keeps_all_of_them",
        "between_network_namespaces_nothing_fails",
        "children_that_left_the_group_hold_nothing_up",
        "drain_quiet_holds_for_who_catches_the_signal_when_it_is_given",
        "event_loops_of_retired_workers_are_calm",
        "event_loops_of_what_a_worker_leaves_behind_are_calm",
        "events_that_nobody_reads_are_counted",
        "lanes_of_serving_workers_go",
        "listening_is_not_ready",
        "looking_up_attributes_does_not_touch_the_molds_names",
        "many_in_a_row_under_load_lose_nothing",
        "many_reloads_leave_nothing",
        "metrics_in_a_program_of_ones_own",
        "no_address_is_lost_to_a_signal",
        "npm_start",
        "of_one_queue_for_all_generations_who_waits_there_is_looked_at",
        "quick_run_of_a_built_in_server",
        "ready_timeout_is_one_workers_own",
        "round_robin_is_exact",
        "started_does_not_wait_for_a_listen",
        "stopping_twice_and_telling_no_guard_are_harmless",
        "the_control_socket_the_name_and_the_metrics_are_the_same",
        "the_end_does_not_wait_for_a_child_that_keeps_the_pipe",
        "the_master_goes_on_while_hooks_hang_and_gives_them_little_time_at_its_end",
        "the_master_leaves_the_mode_alone",
        "uvicorn_is_replaced_first_while_it_still_answers",
        "who_asks_for_nothing_is_held_so_long",
        "who_has_so_much_to_do_that_it_never_waits_is_ready",
        "who_is_at_work_for_long_before_it_accepts_is_not_taken_for_idle",
        "who_is_never_seen_to_wait_is_ready_when_it_has_been_idle",
        "who_is_silent_at_the_preload_door_is_sent_away",
        "who_says_nothing_is_let_go",
        "who_served_and_leaves_a_helper_has_not_gone_to_the_background",
        "who_was_asked_in_vain_is_asked_again",
        "who_would_gain_by_it_is_told_once",
        "workers_differ_where_they_must",
        "workers_of_before_are_still_given_connections_of_others",
    )
}


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="all lists, which is twice the time")


def is_whole(item, seen):
    """One more of a list, or long."""
    first = seen.setdefault((item.path, item.function), item)
    listed = item.path.parent.name == "integration" and first is not item
    return listed or item.function.__name__ in LONG


@pytest.hookimpl(tryfirst=True)  # -m comes after it
def pytest_collection_modifyitems(config, items):
    seen = {}
    for item in items:
        if is_whole(item, seen):
            item.add_marker(pytest.mark.whole)
        if item.path.name in CORE:
            item.add_marker(pytest.mark.core)
        if item.path.name in SURFACE:
            item.add_marker(pytest.mark.surface)
        if any(peer in item.name for peer in PEERS):
            item.add_marker(pytest.mark.peer)
    named = config.invocation_params.args and any(
        Path(one.partition("::")[0]).exists() for one in config.invocation_params.args
    )
    if not (named or config.option.whole or config.option.keyword or config.option.markexpr):
        rest = [item for item in items if item.get_closest_marker("whole")]
        items[:] = [item for item in items if not item.get_closest_marker("whole")]
        config.hook.pytest_deselected(items=rest)


# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

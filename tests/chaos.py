"""Everything at once, from a seed, and every client's history is checked.

    python tests/chaos.py [--seconds 60] [--seed N] [--round K] [--peer gunicorn|uvicorn]

Rounds of about fifteen seconds. Each is drawn from the seed: who gets a connection, the door,
how many workers; and then what happens, several things a second: reloads of good code and of
five kinds of broken code, of code that crashes when it serves, crashes, workers that stop and
go on, scaling, canaries, promote and roll back, the guard killed, reloads upon reloads; with
clients all the time, and control clients that ask, hang and speak nonsense.

Right is: each connection that was established and sent a whole request got exactly one whole
answer, its own, unless its worker was killed after it had accepted it; after a cutover no new
connection gets old code, and none ever code that was deployed broken; at rest there are N
workers of the newest good generation, the master makes no system call, and at the end no
process is left. `--round K` runs one round again, exactly as drawn.

`--peer` holds the same checker against another tool, whose reload it must catch losing
requests: exit code 0 if it does.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "integration")]

from chaoslib import peers, processes  # noqa: E402
from chaoslib.checker import read, wrong  # noqa: E402
from chaoslib.cluster import BROKEN, Asker, Cluster  # noqa: E402
from harness import free_port  # noqa: E402

BALANCES = ("auto", "reuseport", "shared", "source_ip", "weighted", "round_robin",
            "least_connections")  # fmt: skip
CLIENTS = 12
ROUND = 15.0
SHOWN = 10  # wrong lines of a round


class Load:
    def __init__(self, port, directory, seed):
        self.log = directory / "clients.log"
        words = [HERE / "chaoslib" / "load.py", port, self.log, seed, CLIENTS]
        self._process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE)
        assert self._process.stdout.readline() == b"begins\n"

    def end(self):
        """All that was begun is over, or is lost."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(120)
        self._process.stdout.close()
        return read(self.log)


# ---- what happens ---------------------------------------------------------------------


def reload_good(cluster, chance):
    version = cluster.deploy()
    cluster.reload()
    if cluster.outcome()["ok"]:
        cluster.raise_floor(version)


def reload_broken(cluster, chance):
    """It fails, and then it is mended on the disk."""
    mode = chance.choice(BROKEN)
    cluster.deploy(mode)
    cluster.reload()
    outcome = cluster.outcome()
    assert not outcome["ok"], f"{mode} was deployed, and is said to serve: {outcome}"
    cluster.deploy()


def reload_crashing(cluster, chance):
    """Code that dies when it serves: what it takes with it is its own."""
    cluster.deploy("crashes")
    cluster.reload()
    cluster.outcome()
    cluster.deploy()
    reload_good(cluster, chance)


def reload_upon_reload(cluster, chance):
    version = cluster.deploy()
    count = chance.randrange(2, 5)
    for _ in range(count):
        cluster.reload()
    if cluster.newest_outcome()["ok"]:
        cluster.raise_floor(version)


def crash(cluster, chance):
    cluster.kill_a_worker(chance, "serving")


def crash_in_a_reload(cluster, chance):
    version = cluster.deploy()
    cluster.reload()
    cluster.kill_a_worker(chance, "serving", "starting", "ready")
    if cluster.outcome()["ok"]:
        cluster.raise_floor(version)


def all_crash(cluster, chance):
    for _ in range(cluster.workers):
        cluster.kill_a_worker(chance, "serving")


def stand_still(cluster, chance):
    pids = cluster.in_state("serving")
    if pids:
        pid = chance.choice(pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(chance.random() * 1.5)
            os.kill(pid, signal.SIGCONT)


def scale(cluster, chance):
    more = chance.choice([1, -1])
    if 2 <= cluster.workers + more <= 5:
        # Refused while a canary is on probation; a signal would not say so.
        cluster.begins()
        asked = cluster.ask({"cmd": "scale", "workers": cluster.workers + more})
        if asked.get("ok"):
            cluster.workers += more
            if more < 0 and cluster.shares:
                cluster.outcome()  # there it is a reload


def canary(cluster, chance):
    version = cluster.deploy()
    cluster.begins()
    if not cluster.ask({"cmd": "reload", "canary": 0.3}).get("ok"):
        return
    time.sleep(chance.random())
    decided = cluster.ask({"cmd": chance.choice(["promote", "rollback"])}).get("ok")
    if decided and cluster.outcome()["ok"]:
        cluster.raise_floor(version)


def kill_the_guard(cluster, chance):
    cluster.kill_the_guard()


DEEDS = {
    reload_good: 6, reload_broken: 3, reload_crashing: 1, reload_upon_reload: 2, crash: 4,
    crash_in_a_reload: 3, all_crash: 1, stand_still: 3, scale: 2, canary: 2, kill_the_guard: 1,
}  # fmt: skip


# ---- rounds ---------------------------------------------------------------------------


def drawn(chance):
    """The options of a round."""
    balance = chance.choice(BALANCES)
    options = ["--balance", balance]
    if balance == "weighted":
        options += ["--weights", "0=2"]
    if balance in ("round_robin", "least_connections"):
        options += ["--balance-by", chance.choice(["auto", "dispatch"])]
    if chance.random() < 0.25:
        options += ["--preload", chance.choice(["auto", "asyncio,json"])]
    return [*options, "--door", chance.choice(["auto", "auto", "preload"])]


def one_round(seed, number):
    chance = random.Random(f"{seed}/{number}")
    options, workers = drawn(chance), chance.randrange(2, 5)
    denied = chance.choice([[], [], ["pidfd_getfd"], ["pidfd_getfd", "bpf"]])
    tag = f"{os.getpid()}-{seed}-{number}"
    print(f"round {number}: {workers} workers {' '.join(options)} without {denied}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="recluster-chaos-"))
    directory.chmod(0o755)
    shutil.copy(HERE / "apps" / "chaos_app.py", directory)
    cluster = Cluster(directory / "chaos_app.py", free_port(), workers, options, tag, denied)
    with cluster.running:
        cluster.running.wait_each("ready", workers)
        load = Load(cluster.port, directory, f"{seed}/{number}")
        asker = Asker(cluster, random.Random(seed))
        asker.start()
        try:
            until, deeds = time.monotonic() + ROUND, []
            while time.monotonic() < until:
                deed = chance.choices(list(DEEDS), list(DEEDS.values()))[0]
                deeds.append(deed.__name__)
                deed(cluster, chance)
                time.sleep(chance.random() * 0.3)
            found = cluster.come_to_rest()
        finally:
            asker.close()
            lines = load.end()
        cluster.note_crashes()
        found += wrong(lines, cluster.deeds) + cluster.idles()
        code = cluster.end()
        found += [f"exit code {code}"] if code else []
        log = cluster.running.stderr()
    left = processes.tagged(f"CHAOS={tag}".encode())
    found += [f"left behind: {left}"] if left else []
    asked = sum(line["sent"] for line in lines)
    print(f"  {' '.join(deeds)}\n  {asked} requests, {len(found)} wrong", flush=True)
    if found:
        print("\n".join(found[:SHOWN]))
        print(f"  again: python tests/chaos.py --seed {seed} --round {number}; its log:\n{log}")
    shutil.rmtree(directory)
    return asked, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--round", type=int)
    parser.add_argument("--peer", choices=sorted(peers.PEERS))
    given = parser.parse_args()
    print(f"seed {given.seed}, as uid {os.getuid()}", flush=True)
    if given.peer:
        return peers.caught(given.peer, given.seed, Load)
    first = given.round or 1
    end, number, total, bad = time.monotonic() + given.seconds, first, 0, []
    while True:
        asked, found = one_round(given.seed, number)
        bad += [f"round {number}: {one}" for one in found]
        total, number = total + asked, number + 1
        if given.round or time.monotonic() > end:
            break
    print("\n".join(bad[:SHOWN]))  # once more, where the end of a long output shows it
    print(f"{total} requests in {number - first} rounds, {len(bad)} wrong (seed {given.seed})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

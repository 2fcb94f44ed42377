"""What a worker has that `python FILE` has not: an identity, and a process of its own."""

import os
import textwrap

from harness import Running


def program(directory, text):
    (directory / "program.py").write_text(textwrap.dedent(text).lstrip("\n"))


def test_workers_do_not_share_their_random_numbers(tmp_path):
    program(
        tmp_path,
        """
        import os, random, signal, tempfile
        numbers = [random.getrandbits(64), next(tempfile._get_candidate_names())]
        line = f'{{"numbers": "{numbers}"}}\\n'
        os.write(int(os.environ["NODE_CHANNEL_FD"]), line.encode())
        signal.pause()
        """,
    )
    options = ("--workers", 2, "--ready-when", "started")
    with Running(*options, "program.py", cwd=tmp_path) as running:
        messages = running.wait_each("message", 2)
        assert messages[0]["message"] != messages[1]["message"]


def test_web_concurrency_counts_workers_and_is_not_passed_on(tmp_path):
    program(
        tmp_path,
        """
        import json, os, signal
        line = json.dumps([os.environ.get("WEB_CONCURRENCY"), os.environ["WORKER_ID"]])
        os.write(int(os.environ["NODE_CHANNEL_FD"]), line.encode() + b"\\n")
        signal.pause()
        """,
    )
    args = ("--ready-when", "started", "program.py")
    with Running(*args, cwd=tmp_path, env={"WEB_CONCURRENCY": "3"}) as running:
        messages = running.wait_each("message", 3)
        found = [messages[slot]["message"] for slot in range(3)]
        assert found == [[None, "0"], [None, "1"], [None, "2"]]
        assert running.count("online") == 3


def test_leads_its_own_process_group(tmp_path):
    program(
        tmp_path,
        """
        import os, signal
        answer = str(os.getpgid(0) == os.getpid()).lower().encode()
        os.write(int(os.environ["NODE_CHANNEL_FD"]), answer + b"\\n")
        signal.pause()
        """,
    )
    with Running("--workers", 1, "--ready-when", "started", "program.py", cwd=tmp_path) as running:
        assert running.wait_for("message")["message"] is True
        assert os.getpgid(running.pids()[0]) == running.pids()[0]

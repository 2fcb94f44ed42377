"""A unit for systemd(1)."""

from __future__ import annotations

import os
import re
import subprocess

from .subject import Subject

NOTIFY_RELOAD = 253  # the first that knows Type=notify-reload,
FDSTORE = 254  # and that says how many descriptors it keeps


def version() -> int:
    """Of systemd here; a current one where there is none."""
    try:
        said = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else NOTIFY_RELOAD


def quoted(word: str) -> str:
    """One word of ExecStart= or Environment= (systemd.service(5), "Command lines")."""
    word = word.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    if word and not re.search(r"[\s\"';]", word):
        return word
    escaped = word.replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _path(text: str) -> str:
    return text.replace("%", "%%")


def _reload(subject: Subject, known: int) -> list[str]:
    if known >= NOTIFY_RELOAD:
        return [
            "# Wants systemd 253. Before: Type=notify, with",
            f"# ExecReload={quoted(subject.interpreter)} -m recluster reload --wait $MAINPID",
            "Type=notify-reload",
        ]
    return [
        f"# This is systemd {known}. From 253 on: Type=notify-reload, and no ExecReload=.",
        "Type=notify",
        f"ExecReload={quoted(subject.interpreter)} -m recluster reload --wait $MAINPID",
    ]


def _user(subject: Subject) -> list[str]:
    if subject.options.user or subject.options.group:
        return ["# The master stays root; its workers are not (--user)."]
    if os.geteuid() == 0:
        return ["# Workers are root's: add --user NAME to ExecStart=, or User=NAME here."]
    import pwd

    where = f"recluster-{subject.name}"
    return [
        f"User={pwd.getpwuid(os.geteuid()).pw_name}",
        f"RuntimeDirectory={where}",
        "RuntimeDirectoryMode=0700",
        f"Environment=RECLUSTER_RUN_DIRECTORY=/run/{where}",
    ]


def _store(subject: Subject, known: int) -> list[str]:
    most = subject.options.workers * (subject.options.max_draining + 2)
    lines = [
        "# Listeners are kept: a master that is killed finds who waits in them.",
        f"FileDescriptorStoreMax={most}",
    ]
    return lines if known >= FDSTORE else [*lines, f"Environment=FDSTORE={most}"]


def unit(subject: Subject, known: int | None = None) -> str:
    known = version() if known is None else known
    start = subject.starts_within
    words = [subject.interpreter, "-m", "recluster", *subject.words()]
    environment = [
        f"Environment={quoted(f'{name}={value}')}" for name, value in subject.environment.items()
    ]
    return "\n".join(
        [
            f"# /etc/systemd/system/{subject.name}.service, by: {subject.typed}",
            "# `systemctl reload` swaps the code, and fails if the new code does not get ready.",
            "[Unit]",
            f"Description={_path(subject.name)} (recluster)",
            "After=network.target",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            *_reload(subject, known),
            *_user(subject),
            f"WorkingDirectory={_path(subject.folder)}",
            *environment,
            f"ExecStart={' '.join(quoted(word) for word in words)}",
            "# The stop signal is for the master: it lets workers answer what they have begun.",
            "KillMode=mixed",
            f"TimeoutStartSec={'infinity' if start is None else start}",
            f"TimeoutStopSec={subject.stops_within}",
            "WatchdogSec=30",
            *_store(subject, known),
            "Restart=on-failure",
            "RestartSec=200ms",
            "# Bad usage, or nothing to run: again would be the same.",
            "RestartPreventExitStatus=2",
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ]
    )

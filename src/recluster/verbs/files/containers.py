"""A Dockerfile, and a Deployment for Kubernetes."""

from __future__ import annotations

import json
import math

from .subject import GUESS, Subject

RUN = "/run/recluster"
UID = 10001
LEAVES_SERVICE = 5  # seconds until nobody sends connections to a pod that is to end
PROBE_EVERY = 5


def _entry(subject: Subject) -> list[str]:
    return ["python", "-m", "recluster", *subject.words_inside()]


def _is_root(subject: Subject) -> bool:
    """The master's: it has workers of another user."""
    return bool(subject.options.user or subject.options.group)


def _reach(subject: Subject, mark: str = "# ") -> list[str]:
    """What is not reached from outside, and what is guessed."""
    found = subject.address
    if found is None:
        return [f"{mark}The port is a guess: nothing in the command line says it."]
    if found[0] == "tcp" and (found[1].startswith("127.") or found[1] in ("localhost", "::1")):
        return [f"{mark}It listens on {found[1]}, which nobody outside reaches: use 0.0.0.0."]
    return []


def _port(subject: Subject) -> int:
    return (subject.address or GUESS)[2] or GUESS[2]


def dockerfile(subject: Subject) -> str:
    within, port = math.ceil(subject.options.ready_timeout or 60), _port(subject)
    own = f"{RUN}:uid={UID},mode=0700"
    if _is_root(subject):
        user, own = [], f"{RUN}:mode=0700"
    else:
        user = [f"RUN mkdir -m 700 {RUN} && chown {UID}:{UID} {RUN}", f"USER {UID}:{UID}"]
    environment = [
        f"ENV {name}={json.dumps(value)}"
        for name, value in {"RECLUSTER_RUN_DIRECTORY": RUN, **subject.environment}.items()
    ]
    return "\n".join(
        [
            f"# Dockerfile, by: {subject.typed}",
            f"# docker build -t {subject.name} .",
            f"# docker run --name {subject.name} -p {port}:{port} --stop-timeout "
            f"{subject.stops_within} \\",
            f"#     --read-only --tmpfs {own} {subject.name}",
            f"# docker exec {subject.name} python -m recluster reload --wait",
            *_reach(subject),
            "FROM python:3-slim",
            "WORKDIR /app",
            "COPY . .",
            "RUN pip install --no-cache-dir recluster",
            "RUN if [ -f requirements.txt ]; then pip install -r requirements.txt; fi",
            "ENV PYTHONUNBUFFERED=1",
            *environment,
            *user,
            f"EXPOSE {port}",
            "STOPSIGNAL SIGTERM",
            f"HEALTHCHECK --interval=10s --timeout=3s --start-period={within}s \\",
            f"    CMD {json.dumps(['python', '-m', 'recluster', 'health', '--min-ready', '1'])}",
            "# As a list: a shell in between would keep the stop signal.",
            f"ENTRYPOINT {json.dumps(_entry(subject))}",
        ]
    )


def _probe(name: str, every: int, failures: int) -> list[str]:
    command = ["python", "-m", "recluster", "health", "--min-ready", "1"]
    return [
        f"          {name}:",
        f"            exec: {{command: {json.dumps(command)}}}",
        f"            periodSeconds: {every}",
        "            timeoutSeconds: 3",
        f"            failureThreshold: {failures}",
    ]


def manifest(subject: Subject) -> str:
    name, port = json.dumps(subject.name.lower().replace("_", "-")), _port(subject)
    options = subject.options
    sleep = max(0, LEAVES_SERVICE - math.floor(options.shutdown_delay))
    boots = math.ceil((options.ready_timeout or 3600) / PROBE_EVERY) + 1
    environment = {"RECLUSTER_RUN_DIRECTORY": f"{RUN}/own", **subject.environment}
    security = [] if _is_root(subject) else ["runAsNonRoot: true", f"runAsUser: {UID}"]
    lines = [
        f"# Kubernetes, by: {subject.typed}",
        *_reach(subject),
        "apiVersion: apps/v1",
        "kind: Deployment",
        "metadata:",
        f"  name: {name}",
        "spec:",
        "  replicas: 2",
        f"  selector: {{matchLabels: {{app: {name}}}}}",
        "  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}",
        "  template:",
        f"    metadata: {{labels: {{app: {name}}}}}",
        "    spec:",
        "      # preStop, shutdown_delay and shutdown_timeout, and some.",
        f"      terminationGracePeriodSeconds: {sleep + subject.stops_within}",
        "      containers:",
        f"        - name: {name}",
        f"          image: {name}",
        f"          command: {json.dumps(_entry(subject))}",
        "          ports:",
        f"            - {{name: http, containerPort: {port}}}",
        "          env:",
        *(
            f"            - {{name: {key}, value: {json.dumps(value)}}}"
            for key, value in environment.items()
        ),
    ]
    if sleep:
        lines += [
            "          # It goes on accepting until nobody sends it anything.",
            f'          lifecycle: {{preStop: {{exec: {{command: ["sleep", "{sleep}"]}}}}}}',
        ]
    lines += [
        *_probe("startupProbe", PROBE_EVERY, boots),
        *_probe("readinessProbe", PROBE_EVERY, 2),
        "          # The master replaces workers itself: this one is for the master.",
        *_probe("livenessProbe", 10, 6),
        "          securityContext:",
        "            readOnlyRootFilesystem: true",
        f"            allowPrivilegeEscalation: {'true' if _is_root(subject) else 'false'}",
        *(f"            {line}" for line in security),
        "          volumeMounts:",
        f"            - {{name: run, mountPath: {RUN}}}",
        "            - {name: tmp, mountPath: /tmp}",
        "      volumes:",
        "        - {name: run, emptyDir: {medium: Memory}}",
        "        - {name: tmp, emptyDir: {}}",
        "---",
        "apiVersion: v1",
        "kind: Service",
        "metadata:",
        f"  name: {name}",
        "spec:",
        f"  selector: {{app: {name}}}",
        "  ports:",
        "    - {name: http, port: 80, targetPort: http}",
    ]
    return "\n".join(lines)

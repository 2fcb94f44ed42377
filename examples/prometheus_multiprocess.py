"""A cluster whose workers have prometheus_client's metrics, served as one sum:

    export PROMETHEUS_MULTIPROC_DIR=/run/app/metrics   # made, and emptied, by this program
    python prometheus_multiprocess.py 127.0.0.1:9465 server.py [ARG...]

Each worker writes files of its own there. Who has ended is marked as dead, or gauges of
"live" modes would count it for ever: recluster says so by the `exit` event.
"""

import glob
import os
import sys

# Before prometheus_client is imported: it looks for the folder once.
FOLDER = os.environ["PROMETHEUS_MULTIPROC_DIR"]
os.makedirs(FOLDER, exist_ok=True)
for left in glob.glob(os.path.join(FOLDER, "*.db")):
    os.unlink(left)

from prometheus_client import CollectorRegistry, start_http_server  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402

from recluster import Cluster  # noqa: E402

host, _, port = sys.argv[1].rpartition(":")
registry = CollectorRegistry()
MultiProcessCollector(registry)
start_http_server(int(port), host, registry)
cluster = Cluster(sys.argv[2], args=sys.argv[3:])
cluster.on("exit", lambda event: mark_process_dead(event.worker.pid))
sys.exit(cluster.run())

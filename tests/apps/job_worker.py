"""No server: job_worker.py GATE. Hears a disconnect, finishes its job (the FIFO GATE), ends."""

import sys
import threading

from recluster import worker

told = threading.Event()
worker.on_message(lambda message: message == {"cmd": "disconnect"} and told.set())
worker.send({"job": "begun"})
told.wait()
with open(sys.argv[1], "rb") as job:
    job.read()
worker.send({"job": "done"})

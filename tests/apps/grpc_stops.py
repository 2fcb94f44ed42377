"""grpcio that stops its server on SIGUSR1 and stays: grpc_stops.py PORT GO.

stop() shuts the listener down. Otherwise as shuts_listener.py.
"""

import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from grpc_server import answer

CHANNEL = int(os.environ["NODE_CHANNEL_FD"])


def tell_when_told():
    with open(f"{sys.argv[2]}.{os.environ['WORKER_ID']}", "rb") as fifo:
        fifo.read()
    os.write(CHANNEL, b'{"cmd": "ready"}\n')


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
methods = {"Get": grpc.unary_unary_rpc_method_handler(answer)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Facts", methods),))
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
threading.Thread(target=tell_when_told, daemon=True).start()
signal.sigwait([signal.SIGUSR1])
server.stop(None).wait()
os.write(CHANNEL, b'"shut"\n')
signal.pause()

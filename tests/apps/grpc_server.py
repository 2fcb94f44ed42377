"""grpcio with a generic handler, no protobuf: grpc_server.py PORT."""

import json
import os
import sys
from concurrent import futures

import grpc

VERSION = "1"


def answer(request, context):
    facts = {"version": VERSION, "worker": os.environ["WORKER_ID"], "pid": os.getpid()}
    return json.dumps(facts).encode()


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    methods = {"Get": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Facts", methods),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()

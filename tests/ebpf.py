"""Whether this process may load eBPF programs: then UDP flows stay through a reload."""

import ctypes
import os
import struct

BPF_MAP_TYPE_LRU_HASH = 9
NUMBER = {"x86_64": 321, "aarch64": 280}


def may_load_programs():
    """As the engine finds out: by asking for a map that nobody needs."""
    attributes = struct.pack("=IIIII", BPF_MAP_TYPE_LRU_HASH, 4, 4, 1, 0) + bytes(100)
    number = NUMBER[os.uname().machine]
    made = ctypes.CDLL(None).syscall(number, 0, attributes, len(attributes))
    if made >= 0:
        os.close(made)
    return made >= 0

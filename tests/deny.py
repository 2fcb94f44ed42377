"""Run a command under a seccomp profile that refuses some system calls, as container
runtimes do:

    python tests/deny.py pidfd_getfd,bpf -- COMMAND...

Each refused call fails with EPERM. `unix_seqpacket` stands for
socket(AF_UNIX, SOCK_SEQPACKET), without which the preload door cannot open.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

NUMBERS = {
    "x86_64": {
        "bpf": 321, "pidfd_getfd": 438, "process_vm_readv": 310, "seccomp": 317, "socket": 41,
        "chroot": 161, "unshare": 272, "kcmp": 312, "close_range": 436,
    },
    "aarch64": {
        "bpf": 280, "pidfd_getfd": 438, "process_vm_readv": 270, "seccomp": 277, "socket": 198,
        "chroot": 51, "unshare": 97, "kcmp": 272, "close_range": 436,
    },
}[platform.machine()]  # fmt: skip
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, AND, JUMP_IF, RETURN = 0x20, 0x54, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
OFFSET_NR, OFFSET_ARGS = 0, 16
TYPE_MASK = 0xF


def program(names):
    """(code, jt, jf, k) of each instruction."""
    text = [(LOAD, 0, 0, OFFSET_NR)]
    for name in names:
        if name == "unix_seqpacket":
            text += [
                (JUMP_IF, 0, 6, NUMBERS["socket"]),
                (LOAD, 0, 0, OFFSET_ARGS),
                (JUMP_IF, 0, 4, socket.AF_UNIX),
                (LOAD, 0, 0, OFFSET_ARGS + 8),
                (AND, 0, 0, TYPE_MASK),
                (JUMP_IF, 0, 1, socket.SOCK_SEQPACKET),
                (RETURN, 0, 0, REFUSE),
                (LOAD, 0, 0, OFFSET_NR),
            ]
        else:
            text += [(JUMP_IF, 0, 1, NUMBERS[name]), (RETURN, 0, 0, REFUSE)]
    return [*text, (RETURN, 0, 0, ALLOW)]


def install(names):
    text = program(names)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in text))
    head = struct.pack("HxxxxxxQ", len(text), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


def main():
    names, dashes, command = sys.argv[1], sys.argv[2], sys.argv[3:]
    assert dashes == "--" and command, __doc__
    install(names.split(","))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

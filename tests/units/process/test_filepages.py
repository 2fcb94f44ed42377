"""Owns: which pages of files a mold lets go."""

import ctypes
import mmap
import re

import pytest

PAGES = 4
LENGTH = PAGES * mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)


class Mapping:
    """Of a file of four pages, private, as a library's are: all of it was read."""

    def __init__(self, path, written=False, rights=mmap.PROT_READ):
        path.write_bytes(b"f" * LENGTH)
        self.path = path
        with path.open("rb") as file:
            both = mmap.PROT_READ | mmap.PROT_WRITE
            self.map = mmap.mmap(file.fileno(), LENGTH, mmap.MAP_PRIVATE, both)
        self.bytes = (ctypes.c_char * LENGTH).from_buffer(self.map)
        if written:
            self.bytes[0] = b"w"
        at = ctypes.c_void_p(ctypes.addressof(self.bytes))
        assert libc.mprotect(at, ctypes.c_size_t(LENGTH), rights) == 0
        self.read()

    def read(self):
        return b"".join(self.bytes[at * mmap.PAGESIZE] for at in range(PAGES))

    def resident(self):
        """KiB."""
        with open("/proc/self/smaps") as file:
            told = file.read().partition(str(self.path))[2]
        return int(re.search(r"^Rss:\s+(\d+)", told, re.M)[1])


def test_what_was_only_read_is_let_go(lib, tmp_path):
    mapping = Mapping(tmp_path / "library")
    assert mapping.resident() == LENGTH / 1024
    lib.rc_file_pages_forget()
    assert mapping.resident() == 0
    assert mapping.read() == b"ffff", "and can be read again"


@pytest.mark.parametrize("rights", [mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE])
def test_what_was_written_stays(lib, tmp_path, rights):
    """A library's relocated tables, which are read-only afterwards, and its variables."""
    mapping = Mapping(tmp_path / "library", written=True, rights=rights)
    lib.rc_file_pages_forget()
    assert mapping.read() == b"wfff"
    assert mapping.resident() == LENGTH / 1024


def test_what_can_be_written_stays(lib, tmp_path):
    mapping = Mapping(tmp_path / "library", rights=mmap.PROT_READ | mmap.PROT_WRITE)
    lib.rc_file_pages_forget()
    assert mapping.resident() == LENGTH / 1024

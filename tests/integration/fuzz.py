"""Lines that a worker or a client may send: a seed makes the same ones again.

Mostly what the master knows, with something wrong about it; the rest is any JSON, and any
bytes. Imported by tests, and run by workers (tests/apps/fuzzes_channel.py).
"""

import json
import random

LINE_MAX = 1 << 20  # RC_LINE_MAX
TEXTS = [
    "",
    "a",
    "caf\u00e9",
    "\ud800",
    "\u2028",
    "\x00",
    "\x1b[2J",
    "x" * 300,
    "\U0001f600",
    "1e999",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**64), 0.5, -0.0, 1e308, float("nan"), float("inf"), 10**400]
CONSTANTS = [None, True, False]


class Lines:
    """`known`: requests or messages that mean something, each a dict; `meant`: whether a
    decoded line would do something that the test does not want."""

    def __init__(self, seed, known, meant, longest=LINE_MAX, long_ones=20_000):
        self._random = random.Random(seed)
        self._known = known
        self._meant = meant
        self._longest = longest
        self._long_ones = long_ones  # one in so many lines is as long as it may be, or longer
        self._kinds = [self._altered, self._altered, self._mutated, self._value, self._bytes]

    def take(self, count):
        """So many lines, without their newlines."""
        found = 0
        while found < count:
            line = self._line().replace(b"\n", b" ")
            try:
                meant = self._meant(json.loads(line))
            except (ValueError, RecursionError):
                meant = False
            if not meant:
                found += 1
                yield line

    def _line(self):
        if self._random.randrange(self._long_ones) == 0:
            size = self._longest + self._random.choice([-1, 0, 1, 4096])
            return self._random.choice([b"x", b"[", b'{"a":', b"\xff"]) * size
        return self._random.choice(self._kinds)()

    def _bytes(self):
        return self._random.randbytes(int(self._random.expovariate(1 / 40)))

    def _any(self, depth=3):
        kind = self._random.randrange(8 if depth else 5)
        if kind < 2:
            return self._random.choice(TEXTS)
        if kind < 4:
            return self._random.choice(NUMBERS)
        if kind == 4:
            return self._random.choice(CONSTANTS)
        if kind == 5:
            return [self._any(depth - 1) for _ in range(self._random.randrange(4))]
        names = [*TEXTS, "cmd", "wait", "error"]
        size = self._random.randrange(4)
        return {self._random.choice(names): self._any(depth - 1) for _ in range(size)}

    def _said(self, value):
        text = json.dumps(value, ensure_ascii=self._random.random() < 0.5)
        return text.encode(errors="surrogatepass")

    def _value(self):
        if self._random.randrange(200) == 0:  # deeper than a stack
            return self._random.choice([b"[", b'{"a":']) * self._random.choice(
                [900, 10_000, 100_000]
            )
        return self._said(self._any())

    def _altered(self):
        """One that is known, with another value, or one value more or less."""
        one = dict(self._random.choice(self._known))
        name = self._random.choice([*one, "cmd", "more"])
        if self._random.random() < 0.2:
            one.pop(name, None)
        elif self._random.random() < 0.8:
            one[name] = self._any()
        return self._said(one)

    def _mutated(self):
        line = bytearray(self._said(self._random.choice(self._known)))
        for _ in range(self._random.randrange(1, 4)):
            at = self._random.randrange(len(line) + 1)
            how = self._random.randrange(4)
            if how == 0:
                line[at:at] = self._random.randbytes(1)
            elif how == 1:
                del line[at : at + self._random.randrange(1, 5)]
            elif how == 2:
                line[at : at + 1] = self._random.randbytes(1)
            else:
                line += line[at:]
        return bytes(line)


def pieces(seed, lines):
    """The lines, ended, cut anywhere: what one write(2) each sends."""
    cut, data = random.Random(seed), b""
    for line in lines:
        data += line + b"\n"
        if len(data) > 1 << 14:
            size = cut.randrange(len(data))
            yield data[:size]
            data = data[size:]
    yield data

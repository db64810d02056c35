#!/usr/bin/env python3
"""Runs the steps of the reference protocol with recorded masks and writes reference.json.

    python3 generate.py PATH/TO/reference.py [OUTPUT]

The reference is imported and left as it is. Its `prg` is replaced by one that records every draw,
and a profile hook reads the local variables of its functions when they return: that names the
draws and yields the messages and public values that the functions do not return.
"""
import importlib.util
import itertools
import json
import pathlib
import sys

import numpy as np

U = np.uint64


def load(path):
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ring(values):
    """Ring elements as integers, matrices row by row."""
    return [int(v) for v in np.asarray(values).ravel()]


def plane(bits):
    """A row of bits as 64-bit words, lowest bit first."""
    bits = ring(bits)
    assert set(bits) <= {0, 1}
    return [sum(b << i for i, b in enumerate(bits[w:w + 64])) for w in range(0, len(bits), 64)]


class Recorder:
    """One execution of a step: its draws in order, and named values computed from them."""

    def __init__(self, ref):
        self.ref, self.path = ref, ref.linear.__code__.co_filename
        self.draws, self.values = [], {}

    def __enter__(self):
        self.ref.TRAFFIC.clear()
        self.original = self.ref.prg
        self.ref.prg = self.draw
        sys.setprofile(self.profile)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)
        self.ref.prg = self.original

    def draw(self, shape, k=64):
        values = self.original(shape, k)
        self.draws.append([None, k, values])
        return values

    def name(self, label, values):
        """Names the draw that yielded this very array."""
        mine = [d for d in self.draws if d[2] is values]
        assert len(mine) == 1 and mine[0][0] is None, label
        mine[0][0] = label

    def profile(self, frame, event, result):
        if event == "return" and frame.f_code.co_filename == self.path:
            handler = getattr(self, "on_" + frame.f_code.co_name, None)
            if handler:
                handler(frame, frame.f_locals, result)

    # -------------------------------------------------------- one handler per function of the reference

    def on_linear_setup(self, _, local, result):
        self.name("A", local["a"])
        self.values["S>C F"] = ring(result["f"])

    def on_linear(self, _, local, __):
        self.name("c0", local["c0"])
        self.values["D>S c1"] = ring(local["c1"])

    def on_nibble_bits(self, frame, local, _):
        j = frame.f_back.f_locals["j"]
        for positions, (c, s) in local["shares"].items():
            label = f"nibble {j} t" + " t".join(map(str, positions))
            self.name(label, c)
            self.values["D>S " + label] = plane(s)

    def on_opened(self, frame, local, masked):
        nibble = frame.f_back
        which = "P" if "G" in nibble.f_locals else "G"
        label = f"nibble {nibble.f_back.f_locals['j']} {which}"
        client, server = local["acc"]
        self.opened(label, masked, client ^ masked.lam_c, server ^ masked.lam_s)

    def on_deal_products(self, frame, _, dealt):
        for names, (c, s) in dealt.items():
            label = self.chunk(frame) + " " + " ".join(names)
            self.name(label, c)
            self.values["D>S " + label] = plane(s)

    def on_combine(self, frame, local, masked):
        which = "G" if any(name[0] == "g" for name in local["groups"][0]) else "P"
        self.opened(f"{self.chunk(frame)} {which}", masked, local["acc_c"], local["acc_s"])

    def chunk(self, frame):
        """Level (the nibbles are level 1) and group of up to four inputs, from the frame of carry_out."""
        local = frame.f_back.f_locals
        return f"level {local['rounds'] + 1} chunk {local['i'] // 4}"

    def opened(self, label, masked, client, server):
        self.name(label + " lam", masked.lam)
        self.name(label + " lam_c", masked.lam_c)
        self.values[f"C>S {label}"] = plane(client)
        self.values[f"S>C {label}"] = plane(server)
        self.values[f"{label} hat"] = plane(masked.hat)

    def on_carry_out(self, _, __, result):
        carry, _ = result
        for part in ("hat", "lam", "lam_c"):
            self.values["carry " + part] = plane(getattr(carry, part))

    def on_block_relu(self, _, local, result):
        for name in ("a_c", "a_s", "A_c", "r_c", "rA_c", "b"):
            self.name(name, local[name])
        k, L = local["k"], local["L"]
        self.values["C>S c - a_c"] = ring((local["c"] - local["a_c"]) & self.ref.mask(k))
        self.values["S>C s - a_s"] = ring((local["s"] - local["a_s"]) & self.ref.mask(k))
        self.values["C>S y_c - b"] = ring((local["y_c"] - local["b"]) & self.ref.mask(L))
        # e and t are the sums' bits from lo on; rA shares rho * A per pixel, r shares rho per pixel.
        for name in ("eps", "e", "t", "pub", "A", "A_s", "r_s", "rA_s", "y_c", "y_s"):
            self.values[name] = ring(local[name])
        for name in ("top", "delta", "rho"):
            self.values[name] = plane(local[name])
        self.values["out c"], self.values["out s"] = map(ring, result[:2])

    # --------------------------------------------------------

    def case(self, **fields):
        assert all(label for label, _, _ in self.draws)
        draws = [[label, k, plane(values) if k == 1 else ring(values)] for label, k, values in self.draws]
        traffic = {f"{phase} {a}>{b}": bits for (phase, a, b), bits in self.ref.TRAFFIC.items()}
        return {**fields, "draws": draws, "values": self.values, "traffic_bits": traffic}


def truncate(ref, rng, k, f):
    """Both shares as they are, and with the centring unit 2^f added to the server's."""
    n = 40
    bound = min(k - 2, 40)
    z = rng.integers(-(1 << bound), 1 << bound, n)
    z[:8] = [0, 1, -1, 1 << f, -(1 << f), (1 << f) - 1, (1 << bound) - 1, -(1 << bound)]
    c = ref.prg(n, k)
    c[[0, 9, 10]] = [0, 0, ref.mask(k)]
    s = (z.astype(U) - c) & ref.mask(k)
    low_c, low_s, out = ref.truncate(c, s, f, k)
    _, centred_s, _ = ref.truncate(c, s + U(1 << f), f, k)
    return {"k": k, "f": f, "out_bits": out, "c": ring(c), "s": ring(s), "out c": ring(low_c), "out s": ring(low_s),
            "out s centred": ring(centred_s)}


def columns(maps, kernel, pad):
    """The matrix whose columns are the taps of each output pixel, zeros in the padding."""
    channels, height, width = maps.shape
    padded = np.pad(maps, ((0, 0), (pad, pad), (pad, pad)))
    rows = [padded[c, y:y + height + 2 * pad - kernel + 1, x:x + width + 2 * pad - kernel + 1].ravel()
            for c in range(channels) for y in range(kernel) for x in range(kernel)]
    return np.array(rows, dtype=U)


def linear(ref, rng, L, outputs, inputs, size, kernel, pad):
    """A convolution of `inputs` maps of `size`; a matrix product where size and kernel are 1."""
    w = rng.integers(-2000, 2000, (outputs, inputs * kernel * kernel)).astype(U) & ref.mask(L)
    x = rng.integers(-(1 << 20), 1 << 20, (inputs, *size)).astype(U)
    c = ref.prg(x.shape, L)
    s = (x - c) & ref.mask(L)
    with Recorder(ref) as record:
        layer = ref.linear_setup(w, L)
        out_c, out_s = ref.linear(layer, columns(c, kernel, pad), columns(s, kernel, pad))
    assert (((out_c + out_s) ^ (w @ columns(x, kernel, pad))) & ref.mask(L) == 0).all()
    return record.case(L=L, outputs=outputs, inputs=inputs, size=size, kernel=kernel, pad=pad, w=ring(w), c=ring(c),
                       s=ring(s), **{"out c": ring(out_c), "out s": ring(out_s)})


def compare(ref, rng, bits):
    n = 66
    public, secret = ref.prg(n, bits), ref.prg(n, bits)
    # Long chains: all ones plus 0 and 1, and everything propagates up to a random bit.
    secret[0:24] = ~public[0:24]
    secret[8:24] += rng.integers(0, 3, 16).astype(U) << rng.integers(0, bits, 16).astype(U)
    public[24:28] = [0, 0, ref.mask(bits), ref.mask(bits)]
    secret[24:28] = [0, ref.mask(bits), 1, ref.mask(bits)]
    secret &= ref.mask(bits)
    with Recorder(ref) as record:
        carry, levels = ref.carry_out(public, secret, bits)
    want = [(p + s) >> bits for p, s in zip(ring(public), ring(secret))]
    assert ring(carry.hat ^ carry.lam) == want
    return record.case(bits=bits, columns=n, levels=levels, public=ring(public), secret=ring(secret))


def block_ids(height, width, blocks):
    """Block of every pixel: channel by channel, row by row, cut off at the right and bottom."""
    ids, first = [], 0
    for bh, bw in blocks:
        across, down = -(-width // bw), -(-height // bh)
        ids += [first + y // bh * across + x // bw for y, x in itertools.product(range(height), range(width))]
        first += across * down
    return np.array(ids)


def block_relu(ref, rng, L, f, k, blocks, size, lo=0, hi=None):
    ids = block_ids(*size, blocks)
    n = ids.size
    z = np.rint(rng.normal(0, 3.0, n) * 2**f).astype(np.int64)
    z[:3] = [0, 1, -1]
    if hi is None and (np.bincount(ids) == 1).all():
        edge = (1 << k - 2) - 1
        z[3:7] = [edge, -edge, edge // 2, -edge // 2]
    c = ref.prg(n, k)
    s = (z.astype(U) - c) & ref.mask(k)
    with Recorder(ref) as record:
        out_c, out_s, levels = ref.block_relu(c, s, k, ids, L, lo, hi)
    got = ref.to_signed(out_c + out_s, L).astype(np.int64)
    total = np.zeros(ids.max() + 1, np.int64)
    np.add.at(total, ids, z)
    exact = np.where(total[ids] >= 0, z, 0)
    assert lo > 0 or (got == exact).all()
    return record.case(L=L, k=k, lo=lo, hi=k if hi is None else hi, levels=levels, map=size, blocks=blocks, z=ring(z),
                       c=ring(c), s=ring(s))


def main(path, output):
    ref = load(path)
    np.seterr(over="ignore")
    rng = np.random.default_rng(1)
    row = [1, 48]
    cases = {
        "truncate": [truncate(ref, rng, k, f) for k, f in ((64, 12), (40, 10), (32, 8))],
        "linear": [linear(ref, rng, L, *shape) for L in (64, 32)
                   for shape in ((7, 33, [1, 1], 1, 0), (9, 5, [3, 4], 1, 0), (9, 3, [4, 5], 3, 1))],
        "compare": [compare(ref, rng, bits) for bits in (4, 8, 15, 16, 17, 21, 31, 51, 63)],
        # The reference's own list, then: nothing to lift (k = L), one level only, maps of several channels
        # with blocks cut off at the borders.
        "block_relu": [block_relu(ref, rng, *args) for args in (
            (64, 12, 52, [[1, 1]], row), (64, 12, 52, [[1, 16]], row, 0, 30), (64, 12, 52, [[1, 16]], row, 6, 23),
            (40, 10, 28, [[1, 16]], row, 0, 24), (40, 10, 28, [[1, 1]], row, 0, 17), (32, 8, 20, [[1, 4]], row, 0, 16),
            (64, 12, 64, [[1, 1]], row), (32, 8, 32, [[4, 4]], [6, 8], 0, 20), (32, 8, 20, [[1, 1]], row, 8, 13),
            (32, 8, 20, [[2, 3], [1, 1], [9, 9]], [5, 7], 0, 18))],
    }
    with open(output, "w", encoding="ascii") as file:
        json.dump(cases, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else pathlib.Path(__file__).with_name("reference.json"))

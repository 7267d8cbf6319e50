#!/usr/bin/env python3
"""Recomputes docs/golden-tree.json from the definitions in docs/format.md, with the standard library alone."""
import base64, hashlib, json, sys

sha = lambda data: hashlib.sha256(data).digest()
node = lambda left, right: sha(b"\x01" + left + right)


def root(leaves):
    """RFC 6962 section 2.1: split at the largest power of two below the number of leaves."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha(b"")
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node(root(leaves[:split]), root(leaves[split:]))


def inclusion(index, leaves):
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return inclusion(index, leaves[:split]) + [root(leaves[split:])]
    return inclusion(index - split, leaves[split:]) + [root(leaves[:split])]


def consistency(old, leaves, whole=True):
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= split:
        return consistency(old, leaves[:split], whole) + [root(leaves[split:])]
    return consistency(old - split, leaves[split:], False) + [root(leaves[:split])]


def cover(begin, end, leaves):
    """The widest subtrees, each at a multiple of its own width."""
    hashes = []
    while begin < end:
        width = 1
        while begin % (2 * width) == 0 and begin + 2 * width <= end:
            width *= 2
        hashes.append(root(leaves[begin : begin + width]))
        begin += width
    return hashes


def text(hashes):
    return [base64.b64encode(h).decode() for h in hashes]


golden = json.load(open(sys.argv[1]))
count = golden["leaves"]["count"]
mac = bytes.fromhex(golden["leaves"]["mac_hex"])
leaves = [sha(b"\x00" + n.to_bytes(8, "big") + mac) for n in range(count)]
assert text(leaves[:1]) == [golden["leaves"]["first"]]
for case in golden["roots"]:
    assert text([root(leaves[: case["size"]])]) == [case["root"]], case
for case in golden["inclusion"]:
    assert text(inclusion(case["index"], leaves[: case["size"]])) == case["proof"], case
for case in golden["consistency"]:
    assert text(consistency(case["old"], leaves[: case["size"]])) == case["proof"], case
for case in golden["range"]:
    hashes, at = [], 0
    for begin, end in case["runs"] + [[case["size"], case["size"]]]:
        hashes += cover(at, begin, leaves)
        at = end
    assert text(hashes) == case["proof"], case

note = golden["checkpoint"]["note"]
body, signatures = note.rsplit("\n\n", 1)
origin, size, made = body.split("\n")
assert text([root(leaves[: int(size)])]) == [made]
for line, (kind, key) in zip(signatures.splitlines(), golden["checkpoint"]["keys"]):
    dash, name, signature = line.split(" ")
    identity = sha(name.encode() + b"\n" + bytes([kind]) + bytes.fromhex(key))[:4]
    decoded = base64.b64decode(signature)
    assert dash == "\u2014" and decoded[:4] == identity
    assert len(decoded) == {1: 68, 4: 76}[kind]
print("every tree vector agrees")

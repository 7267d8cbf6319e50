#!/usr/bin/env python3
"""Recomputes the golden vectors of docs/format.md. Needs nothing but Python 3."""
import hashlib, hmac, json, pathlib, sys


def hkdf_sha256(secret, info, length=32):
    """RFC 5869 with an empty salt, which is a salt of 32 zero bytes."""
    prk = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    block, out, count = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([count]), hashlib.sha256).digest()
        out, count = out + block, count + 1
    return out[:length]


path = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("golden.json")
vectors = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
bad = 0 if vectors else 1
for number, v in enumerate(vectors):
    origin = f"{v['cluster']}/{v['node_id']}/{v['generation']}"
    info = b"piperoll entry mac v1" + origin.encode() + v["epoch"].to_bytes(4, "big")
    key = hkdf_sha256(bytes.fromhex(v["secret"]), info)
    mac = hmac.new(key, v["body"].encode("utf-8"), hashlib.sha256).hexdigest()
    for name, found in (("origin", origin), ("info_hex", info.hex()), ("key_hex", key.hex()), ("mac_hex", mac)):
        if v[name] != found:
            print(f"vector {number}: {name} is {found}, the file says {v[name]}", file=sys.stderr)
            bad += 1
if bad:
    sys.exit(1)
print(f"{len(vectors)} vectors agree")

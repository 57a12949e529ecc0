"""Item vectors out of Redis, by row: python3 read_items.py HOST PORT NAMESPACE ROW... (docs/wire-format.md draws it all)"""
import json, socket, struct, sys

host, port, ns, *rows = sys.argv[1:]
wire = socket.create_connection((host, port)).makefile("rwb")

def ask(*words):
    words = [str(word).encode() for word in words]
    wire.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
    wire.flush()
    head = wire.readline()
    if head[:1] != b"$" or head[:2] == b"$-":
        sys.exit(f"{words}: {head.decode().strip()}")
    return wire.read(int(head[1:]) + 2)[:-2]

current = ask("GET", f"{ns}:current").decode().split("\n")[0] or sys.exit(f"{ns} has no active release")
release, name = current.split(" ", 1)
manifest = json.loads(ask("GET", f"{ns}:r:{name}").split(b"\n", 1)[1])
pages = f"{ns}:{manifest.get('keys') or release}:"
codec, dim, slots = manifest["codec"], manifest["dim"], manifest["addressing"]["dense"]["slots"]
size = {"f32": 4 * dim, "f16": 2 * dim, "int8": dim + 2, "int4": (dim + 1) // 2 + 2}[codec]
tag = int(release, 16) & 0xFFFF or 1

def decode(record):
    if codec in ("f32", "f16"):
        return struct.unpack(f"<{dim}{'f' if codec == 'f32' else 'e'}", record)
    (scale,), codes = struct.unpack("<f", b"\0\0" + record[-2:]), struct.unpack(f"{size - 2}b", record[:-2])
    if codec == "int4":  # blocks of 64 dimensions: the low nibbles, then the high ones
        blocks = [(codes[at // 2 : at // 2 + 32], min(64, dim - at)) for at in range(0, dim, 64)]
        codes = [code - 8 for block, n in blocks for code in [*(b & 15 for b in block), *(b >> 4 & 15 for b in block)][:n]]
    return [scale * code for code in codes]

for row in map(int, rows):
    first = row % slots * (size + 2)
    slot = ask("GETRANGE", f"{pages}{row // slots}", first, first + size + 1)
    if row >= manifest["users"] or len(slot) != size + 2 or int.from_bytes(slot[size:], "little") != tag:
        sys.exit(f"row {row} is not of release {name}")
    print(row, *decode(slot[:size]))

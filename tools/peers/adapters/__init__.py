"""Who takes part, by name. Kept apart from the adapters themselves, so that telling costs no import of theirs."""

from dataclasses import dataclass, field

# What one sweep of each kind of effort tries. A set may bring a sweep of its own for a kind, or for one peer.
SWEEPS = {
    "ef": [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280],
    "nprobe": [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512],
}


@dataclass
class Peer:
    module: str  # in this folder
    variant: str = ""  # handed to the module
    sweep: str = "ef"
    index: str = ""  # whose index file it searches, if not its own
    about: str = ""  # for the tables of the report
    default: bool = field(default=False, kw_only=True)


PEERS = {
    "tonnage": Peer("tonnage", about="Tonnage, its own defaults", default=True),
    "tonnage_mapped": Peer("tonnage", "mapped", index="tonnage", about="the same index, mapped and not copied into memory"),
    "tonnage_avx2": Peer("tonnage", "avx2", index="tonnage", about="the same index, AVX2 only"),
    "hnswlib": Peer("hnswlib", about="HNSW, f32, M 16, efC 200", default=True),
    "faiss": Peer("faiss", "flat", about="IndexHNSWFlat, f32, M 16, efC 200", default=True),
    "faiss_sq8": Peer("faiss", "sq8", about="IndexHNSWSQ, 8 bits, M 16, efC 200, refined with f16"),
    "faiss_ivfpq": Peer("faiss_ivfpq", sweep="nprobe", about="IVF, PQ 4 bits FastScan, refined with f32"),
    "usearch_f32": Peer("usearch", "f32", about="HNSW, f32, M 16, efC 200"),
    "usearch_f16": Peer("usearch", "f16", about="HNSW, f16, M 16, efC 200"),
    "usearch_i8": Peer("usearch", "i8", about="HNSW, int8, M 16, efC 200"),
    "voyager": Peer("voyager", about="HNSW, f32, M 16, efC 200"),
    "svs_f32": Peer("svs", "f32", about="Vamana, f32, degree 32, window 200, alpha .95"),
    "svs_f16": Peer("svs", "f16", about="Vamana, f16, degree 32, window 200, alpha .95", default=True),
    "svs_lvq": Peer("svs", "lvq", about="Vamana, LVQ 4x8, degree 32, window 200, alpha .95"),
    "scann": Peer("scann", sweep="nprobe", about="tree, anisotropic hashing, reordered with f32"),
    "hnsw_rs": Peer("hnsw_rs", about="HNSW, f32, M 16, efC 200, Rust"),
}

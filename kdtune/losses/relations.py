"""Temporal knowledge transfer: match teacher and student in how the features of a tuple's three clips relate.

This is Relational Knowledge Distillation (RKD; Park et al., arXiv 1904.05068, Eq. 4) within a tuple instead of a batch,
so that it relates the moments of one video. The potentials are the cosine and RKD's distance-wise potential (Eqs. 5 and
6). Neither depends on the number of features or their scale.

Legend: B tuples, F features, 3 pairs of clips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdtune.losses.lengths import safe_divide, unit_vectors

#: Pairs of clips of a tuple, in the order of the relations.
PAIRS = ((0, 1), (0, 2), (1, 2))


def relations(features: Tensor) -> Tensor:
    """(B, 3, F) → (B, 6): the cosines of the three pairs, then their distances divided by the tuple's mean distance.

    A feature of length 0 has cosine 0 with any other. Where all three features are equal, the distances are 0.
    """
    clips, units = features.unbind(1), unit_vectors(features).unbind(1)
    cosines = torch.stack([(units[i] * units[j]).sum(1) for i, j in PAIRS], 1)
    distances = torch.stack([torch.linalg.vector_norm(clips[i] - clips[j], dim=1) for i, j in PAIRS], 1)
    return torch.cat((cosines, safe_divide(distances, distances.mean(1, keepdim=True))), 1)


def relation_loss(student_features: Tensor, teacher_relations: Tensor) -> Tensor:
    """Return the mean squared difference of the cosines plus that of the distances.

    RKD uses Huber's loss (Eq. 8) against outliers. Here there are none: a cosine lies in [−1, 1] and, by the triangle
    inequality, a distance divided by the mean of its tuple's three lies in [0, 1.5].

    Shape: student features (B, 3, F), teacher relations (B, 6) → scalar. The teacher gets no gradient.
    """
    difference = relations(student_features) - teacher_relations.detach()
    cosines, distances = difference.square().chunk(2, dim=1)
    return cosines.mean() + distances.mean()

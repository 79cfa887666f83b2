"""Temporal knowledge transfer: how the features of a tuple's three clips relate to each other, teacher against student.

Relational Knowledge Distillation (RKD; Park et al., arXiv 1904.05068, Eq. 4) within a tuple instead of within a batch,
so that the relations are those of one video's moments. The potentials are the cosine and RKD's distance-wise one
(Eqs. 5 and 6). Neither depends on how many features a network has, nor on their scale.

Legend: B tuples, F features, 3 pairs of clips.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdtune.losses.lengths import directions, over

#: Of the clips of a tuple, in the order of the relations.
PAIRS = ((0, 1), (0, 2), (1, 2))


def relations(features: Tensor) -> Tensor:
    """(B, 3, F) → (B, 6): the cosines of the three pairs, then their distances divided by the tuple's mean distance.

    A feature of no length has cosine 0 with any other, and where all three are the same the distances are 0.
    """
    clips, pointing = features.unbind(1), directions(features).unbind(1)
    cosines = torch.stack([(pointing[i] * pointing[j]).sum(1) for i, j in PAIRS], 1)
    distances = torch.stack([torch.linalg.vector_norm(clips[i] - clips[j], dim=1) for i, j in PAIRS], 1)
    return torch.cat((cosines, over(distances, distances.mean(1, keepdim=True))), 1)


def relation_loss(student_features: Tensor, teacher_relations: Tensor) -> Tensor:
    """Mean squared difference of the cosines plus that of the distances.

    Squares where RKD has Huber's loss (Eq. 8) against outliers. Here there are none: a cosine lies in [−1, 1] and, by
    the triangle inequality, a distance over the mean of its tuple's three in [0, 1.5].

    Shape: student (B, 3, F), teacher (B, 6) as `relations` gives them → scalar. The teacher gets no gradient.
    """
    difference = relations(student_features) - teacher_relations.detach()
    cosines, distances = difference.square().chunk(2, dim=1)
    return cosines.mean() + distances.mean()

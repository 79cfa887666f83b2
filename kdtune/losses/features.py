"""Feature distillation through a small projector: the student learns to predict the teacher's features.

The idea is HalluciNet's (Parmar & Morris, arXiv 1912.04430), in which a 2D network that sees one frame predicts what a
3D network computes from the clip. This loss differs in three points. Both networks see the same clip. The projector is
linear; the published code has a ReLU after it. And that code compares logistic sigmoids of the features by 50 times
their mean squared error, which depends on the scale of the teacher's features. The distance of unit vectors does not,
so a weight means the same for every teacher.

Legend: B samples of n clips, Fs features of the student, Ft of the teacher.
"""

from __future__ import annotations

from torch import Tensor, nn

from kdtune.losses.lengths import unit_vectors


class FeatureProjector(nn.Module):
    """One linear layer, trained with the student and dropped afterwards."""

    def __init__(self, student_size: int, teacher_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(student_size, teacher_size)

    def forward(self, student: Tensor) -> Tensor:
        """(B, n, Fs) → (B, n, Ft)."""
        return self.linear(student)


def feature_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of the two as unit vectors, 2 − 2 cos, from 0 to 4, averaged over all clips.

    Shape: both (B, n, Ft) → scalar. The teacher gets no gradient, nor does a projection of length 0, whose loss is 1.
    """
    return (unit_vectors(projected) - unit_vectors(teacher.detach())).square().sum(-1).mean()

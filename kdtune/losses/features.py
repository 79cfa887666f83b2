"""Feature distillation through a small projector: the student learns to imagine the teacher's features.

The idea is HalluciNet's (Parmar & Morris, arXiv 1912.04430), but this is not HalluciNet. There a 2D network that sees
one frame hallucinates what a 3D network computes from the clip. Three things differ here. Both networks see the same
clip. The projector is linear, where the published code has a ReLU after it. And that code compares logistic sigmoids of
the features by their mean squared error, weighted by 50: a figure that depends on the scale of the teacher's features.
The distance of unit vectors does not, so that a weight means the same for every teacher.

Legend: B samples of n clips, Fs features of the student, Ft of the teacher.
"""

from __future__ import annotations

from torch import Tensor, nn

from kdtune.losses.lengths import directions


class FeatureProjector(nn.Module):
    """One linear layer, trained with the student and dropped after it."""

    def __init__(self, student_size: int, teacher_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(student_size, teacher_size)

    def forward(self, student: Tensor) -> Tensor:
        """(B, n, Fs) → (B, n, Ft)."""
        return self.linear(student)


def feature_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between the two as unit vectors, 2 − 2 cos: from 0 to 4, mean over all clips.

    Shape: both (B, n, Ft) → scalar. The teacher gets no gradient; nor does a projection of no length, whose loss is 1.
    """
    return (directions(projected) - directions(teacher.detach())).square().sum(-1).mean()

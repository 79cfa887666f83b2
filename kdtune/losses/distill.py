"""Knowledge distillation on logits (Hinton et al., arXiv 1503.02531; KD Eqs. 3–7 with their misprints corrected)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation_loss(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """Return tau² · KL(softmax(teacher / tau) ‖ softmax(student / tau)), averaged over the batch.

    Shape: student and teacher logits (B, classes) → scalar, in nats. The teacher gets no gradient.
    """
    log_student = F.log_softmax(student / tau, dim=1)
    log_teacher = F.log_softmax(teacher.detach() / tau, dim=1)
    return tau**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)

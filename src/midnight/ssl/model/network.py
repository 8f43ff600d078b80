"""Student and teacher: a backbone with its two heads, twice."""

import copy

import torch
from torch import nn

from midnight.config import Loss, Recipe, choose
from midnight.ssl.loss.centering import Centres
from midnight.ssl.model.backbone import MaskedViT, build_vit, check_sizes
from midnight.ssl.model.heads import DINOHead


class Network(nn.Module):
    """A backbone, the head of the CLS token and the head of the patches (the same one if shared)."""

    def __init__(self, backbone: MaskedViT, dino_head: DINOHead, ibot_head: DINOHead | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.dino_head = dino_head
        self.own_ibot_head = ibot_head
        self.centres: Centres | None = None  # a teacher's only

    @property
    def ibot_head(self) -> DINOHead:
        """The head of the patches."""
        return self.dino_head if self.own_ibot_head is None else self.own_ibot_head

    def parts(self) -> list[nn.Module]:
        """Backbone and heads, each once: what gradients are clipped by."""
        return [part for part in (self.backbone, self.dino_head, self.own_ibot_head) if part is not None]


def build_student(recipe: Recipe) -> Network:
    """The student at random init; the backbone's weights depend on `recipe.seed` and the architecture only.

    Raises:
        ConfigError: timm can't build the backbone, a crop's size does not fit its patches, or torch can't compile.
    """
    torch.manual_seed(recipe.seed)
    vit = build_vit(recipe.backbone, recipe.crops.global_size, recipe.backbone.drop_path)
    check_sizes(vit.patch_embed.patch_size[0], global_size=recipe.crops.global_size, local_size=recipe.crops.local_size)
    dino_head = DINOHead(vit.embed_dim, recipe.heads)
    ibot_head = None if recipe.heads.shared else DINOHead(vit.embed_dim, recipe.heads, recipe.heads.ibot_bottleneck)
    backbone = MaskedViT(vit, recipe.training.activation_checkpointing, recipe.backbone.pos_interpolation)
    if recipe.training.compile:
        backbone.compile_blocks()
    elif recipe.training.precision == "bfloat16":
        backbone.fuse_blocks()
    return Network(backbone, dino_head, ibot_head)


def teacher_of(student: Network, loss: Loss | None = None) -> Network:
    """A copy of the student that is never trained and drops no paths, with what its targets need.

    Args:
        student: at its start.
        loss: says how targets are made; by Sinkhorn–Knopp if None.
    """
    teacher = copy.deepcopy(student)
    if loss and choose(loss.centering, {"sinkhorn": False, "softmax": True}, "loss.centering"):
        teacher.centres = Centres(student.dino_head.prototypes.shape[0], loss.center_momentum)
    if student.backbone.compiled:  # what was compiled is not copied
        teacher.backbone.compile_blocks()
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(student: Network, teacher: Network, momentum: float) -> None:
    """Exponential moving average: teacher ← momentum · teacher + (1 − momentum) · student; its centres move on."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
    if teacher.centres is not None:
        teacher.centres.move()

"""NAT, DiNAT, DiNAT_s and the isotropic models: every published variant, by name, and its checkpoints."""

from dinat_ref.models.backbone import DinatBackbone
from dinat_ref.models.checkpoints import load_checkpoint
from dinat_ref.models.config import DinatConfig
from dinat_ref.models.dinat import DiNAT
from dinat_ref.models.dinat_model import DinatForImageClassification, DinatModel
from dinat_ref.models.dinat_s import DiNATs
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.variants import create_model, list_models
from dinat_ref.models.weight_files import CheckpointError, read_checkpoint

__all__ = [
    "CheckpointError",
    "DiNAT",
    "DiNATs",
    "DinatBackbone",
    "DinatConfig",
    "DinatForImageClassification",
    "DinatModel",
    "Isotropic",
    "create_model",
    "list_models",
    "load_checkpoint",
    "read_checkpoint",
]

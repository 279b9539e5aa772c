"""NAT, DiNAT, DiNAT_s and the isotropic models: every published variant, by name."""

from dinat_ref.models.config import DinatConfig
from dinat_ref.models.dinat import DiNAT
from dinat_ref.models.dinat_s import DiNATs
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.variants import create_model, list_models

__all__ = ["DiNAT", "DiNATs", "DinatConfig", "Isotropic", "create_model", "list_models"]

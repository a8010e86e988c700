"""SKNet: networks by name, their sizes, their folded form, and probes of their attention."""

from sknet.models.folding import fold
from sknet.models.probes import attention_probe, profile
from sknet.models.registry import create_model, list_models
from sknet.sizes import ModelProfile

__all__ = ["ModelProfile", "attention_probe", "create_model", "fold", "list_models", "profile"]

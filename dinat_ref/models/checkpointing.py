"""Gradient checkpointing: layers forget what they computed, and compute it again in the backward pass."""

from typing import Any

from torch import nn

from dinat_ref.models.layers import Layer


class GradientCheckpointing(nn.Module):
    """Gives a model the switches for it, by the names that timm, transformers and its Trainer call.

    Source: Chen et al., arXiv:1604.06174.
    Example:
        >>> from dinat_ref.models import create_model
        >>> model = create_model("dinat_mini", device="meta")
        >>> model.set_grad_checkpointing()
        >>> model.is_gradient_checkpointing
        True
    """

    supports_gradient_checkpointing = True

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether any layer computes again."""
        return any(layer.checkpointing is not None for layer in self._layers())

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch it on or off in every layer, as timm does."""
        for layer in self._layers():
            layer.checkpointing = {"use_reentrant": False} if enable else None

    def gradient_checkpointing_enable(
        self,
        gradient_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Switch it on as transformers does.

        Args:
            gradient_checkpointing_kwargs: for ``torch.utils.checkpoint.checkpoint``.
            every_n_layers: leave out the layers between.
            offload: must be False: what is kept stays where it is.
        Raises:
            ValueError: every_n_layers below 1, or offload.
        """
        if every_n_layers < 1:
            raise ValueError(f"every_n_layers must be at least 1, got {every_n_layers}")
        if offload:
            raise ValueError("offload must be False: what is kept stays where it is")
        for number, layer in enumerate(self._layers(), start=1):
            chosen = number % every_n_layers == 0
            layer.checkpointing = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})} if chosen else None

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Switch it on by the name that newer releases of transformers give it."""
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_disable(self) -> None:
        """Switch it off."""
        self.set_grad_checkpointing(False)

    def _layers(self) -> list[Layer]:
        return [part for part in self.modules() if isinstance(part, Layer)]

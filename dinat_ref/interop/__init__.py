"""Bridges to other libraries: NATTEN's names, transformers' Dinat, PyTorch's FlexAttention."""

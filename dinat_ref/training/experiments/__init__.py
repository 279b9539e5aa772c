"""The papers' claims in miniature, each by one command: ``python -m dinat_ref.training.experiments NAME``.

These are illustrations: two layers, toy tasks, minutes of a CPU. They show a mechanism, not what a model of the
published size does on ImageNet.
"""

"""transformers' Trainer with models of this package: it trains them as they are; after one call it saves them whole.

    from dinat_ref.interop.trainer import enable_trainer
    enable_trainer()
    trainer = transformers.Trainer(model=DinatForImageClassification(config), ...)
    trainer.save_model("folder")
    DinatForImageClassification.from_pretrained("folder")

To the Trainer a model that is not its own kind is nothing but weights. It goes on writing those, under the names that
it resumes from; what is missing beside them is added: ``config.json`` and ``preprocessor_config.json``.
"""

import functools
from pathlib import Path
from typing import Any

from dinat_ref.models.optional import need
from dinat_ref.models.pretrained import Pretrained


def enable_trainer() -> bool:
    """Let every Trainer of this process write the configuration of our models; safe to call again.

    Returns:
        Whether anything had to be done.
    Raises:
        ImportError: transformers or Accelerate is missing.
    Source: transformers' Trainer.save_model, which also writes its checkpoints.
    Example:
        >>> import importlib.util
        >>> if all(importlib.util.find_spec(name) for name in ("transformers", "accelerate")):
        ...     done = enable_trainer()
        ...     assert not enable_trainer()
    """
    need("accelerate", "hf")
    trainer = need("transformers", "hf").Trainer
    save_model = trainer.save_model
    if hasattr(save_model, "__wrapped__"):
        return False

    @functools.wraps(save_model)
    def save_whole(self: Any, output_dir: str | None = None, *arguments: Any, **named: Any) -> None:
        save_model(self, output_dir, *arguments, **named)
        model = self.accelerator.unwrap_model(self.model)
        if isinstance(model, Pretrained) and self.args.should_save:
            model.write_configs(Path(self.args.output_dir if output_dir is None else output_dir))

    trainer.save_model = save_whole
    return True

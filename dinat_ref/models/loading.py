"""One way to open any model: by the name of a published variant, or a folder that describes one."""

from pathlib import Path

from dinat_ref.models.checkpoints import load_checkpoint
from dinat_ref.models.classifier import Classifier
from dinat_ref.models.dinat_model import DinatForImageClassification
from dinat_ref.models.dinat_s import DiNATs
from dinat_ref.models.image_processor import ImageProcessor
from dinat_ref.models.isotropic import Isotropic
from dinat_ref.models.keys import to_original
from dinat_ref.models.nano import NANO
from dinat_ref.models.variants import create_model, find_variant
from dinat_ref.models.weight_files import CheckpointError, find_weights, read_content, weights_folder
from dinat_ref.outside import read_json

DIGIT_SIZE = 32  # pixels of a side of the images that the nano models read


def open_model(source: Path | str, weights: Path | str | None = None, *, ema: bool = True) -> Classifier:
    """Make a classifier in evaluation mode, from a name or a folder.

    Args:
        source: a name of ``list_models()``, with random weights unless some are given; "dinat_nano_digits", with its
            own; or a folder with ``config.json`` and weights, or of a training run.
        weights: a file for the model of that name, which then gets as many classes as the file has.
        ema: take the moving average of the weights where the file has it.
    Raises:
        CheckpointError: weights that do not fit, or have no classifier.
        OSError: files that cannot be read.
        ValueError: no such name, or weights beside a folder.
    Example:
        >>> open_model("dinat_nano_digits").num_classes
        10
    """
    if Path(source).is_dir():
        if weights is not None:
            raise ValueError(f"weights must not be given beside a folder, which has its own: {source}")
        return _from_folder(weights_folder(Path(source)))
    name = str(source)
    if weights is None:
        model = create_model(name, pretrained=name in NANO)
    else:
        found, _ = find_weights(read_content(weights), ema, f"{weights}: ")
        state = to_original(found)
        if "head.weight" not in state:
            raise CheckpointError(f"{weights} has no classifier: it lacks head.weight")
        model = create_model(name, num_classes=len(state["head.weight"]))
        load_checkpoint(model, state)
    assert isinstance(model, Classifier)
    size = DIGIT_SIZE if name in NANO else find_variant(name).image_size
    model.image_processor = model.image_processor or ImageProcessor(size=size)
    return model.eval()


def _from_folder(folder: Path) -> Classifier:
    """Make the classifier that a folder describes, in the class of its model_type."""
    classes: dict[str, type[Classifier]] = {Isotropic.model_type: Isotropic, DiNATs.model_type: DiNATs}
    kind = str(read_json(folder / "config.json").get("model_type"))
    return classes.get(kind, DinatForImageClassification).from_pretrained(folder)

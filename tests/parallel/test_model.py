"""NAT and DiNAT over split rows equal one process: logits, maps, gradients of parameters and image."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from dinat_ref.models import DinatBackbone, DinatConfig, DinatForImageClassification
from dinat_ref.models.dinat import DiNAT
from dinat_ref.parallel.model import own_rows, shard_model
from tests.parallel.ranks import Ranks, mesh_of

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "dilations": [[1, 3], [1, 2]],
    "kernel_size": 3,
    "layer_scale_init_value": 0.5,
    "drop_path_rate": 0.0,
}
CONFIGS = {
    "plain": SMALL,
    "padded": {**SMALL, "kernel_size": 5, "dilations": [[1, 4], [2, 1]]},  # maps smaller than the window
    "clamped": {**SMALL, "kernel_size": 5, "dilations": [[1, 4], [1, 2]], "small_input": "clamp"},
    "dropping": {**SMALL, "drop_path_rate": 0.5},
}


def make(name: str, config: str) -> nn.Module:
    torch.manual_seed(1)
    options = {"out_features": ["stem", "stage1", "stage2"]} if name == "backbone" else {"num_labels": 3}
    kinds = {"backbone": DinatBackbone, "classifier": DiNAT, "hugging": DinatForImageClassification}
    return kinds[name](DinatConfig(**CONFIGS[config], **options)).double().train()


def picture(rows: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, rows, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def loss_of(output: Any, start: int = 0) -> Tensor:
    """A loss that knows where each number lies; ``start`` is the first row of the maps, by the stem's."""
    if isinstance(output, Tensor):
        return cross_entropy(output, torch.arange(len(output)) % 3)
    total = torch.zeros((), dtype=torch.float64)
    for level, maps in enumerate(output):
        first = start if level < 2 else (start + 1) // 2
        weights = torch.arange(first, first + maps.shape[2], dtype=maps.dtype)[:, None].sin()
        total = total + (maps.square() * weights).sum()
    return total


def train(name: str, config: str, rows: int, sizes: tuple[int, ...] | None) -> dict[str, Any]:
    """One step of training, on a rank's rows or on the whole image: what comes out, and all gradients."""
    model, image = make(name, config), picture(rows)
    start = 0
    if sizes is None:
        torch.manual_seed(7)
        x = image.clone().requires_grad_()
        output = model(x)
        output = output.logits if name == "hugging" else output.feature_maps if name == "backbone" else output
    else:
        mesh = mesh_of((len(sizes),))
        rank = mesh.get_local_rank()
        torch.manual_seed(7 + rank)
        first = sum(sizes[:rank])
        x = image[:, :, first : first + sizes[rank]].clone().requires_grad_()
        output = shard_model(model, mesh)(x)
        start = (first + 3) // 4
    loss_of(output, start).backward()
    outputs = [output] if isinstance(output, Tensor) else output
    found = {f"output {number}": tensor.detach().numpy() for number, tensor in enumerate(outputs)}
    return found | {"image": x.grad.numpy()} | {n: p.grad.numpy() for n, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "config", "rows", "sizes"),
    [
        ("classifier", "plain", 53, (14, 14, 14, 11)),
        ("classifier", "plain", 53, (1, 0, 50, 2)),
        ("hugging", "padded", 41, (20, 21)),
        ("classifier", "padded", 41, (40, 1)),
        ("classifier", "clamped", 45, (20, 5, 10, 10)),
        ("classifier", "dropping", 53, (13, 40)),
        ("backbone", "plain", 53, (14, 14, 14, 11)),
        ("backbone", "padded", 41, (7, 34)),
        ("backbone", "plain", 49, (0, 49)),
    ],
)
def test_a_step_of_training_equals_one_process(
    ranks: Ranks, name: str, config: str, rows: int, sizes: tuple[int, ...]
) -> None:
    expected = train(name, config, rows, None)
    answers = ranks.run(train, name, config, rows, sizes)[: len(sizes)]
    for key, whole in expected.items():
        shards = [torch.from_numpy(answer[key]) for answer in answers]
        is_split = key == "image" or (name == "backbone" and key.startswith("output"))
        for tensor in [torch.cat(shards, 2)] if is_split else shards:
            assert_close(tensor, torch.from_numpy(whole), **EXACT, msg=lambda text, key=key: f"{key}: {text}")


def rows_and_batch(parallel: bool) -> dict[str, Any]:
    """Two halves of a batch by two halves of the rows, with DistributedDataParallel; or all in one process."""
    model, image = make("classifier", "plain"), picture(53, batch=4)
    labels = torch.arange(4) % 3
    if parallel:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("batch", "rows"))
        part = slice(2 * mesh.get_local_rank("batch"), 2 * mesh.get_local_rank("batch") + 2)
        sharded = shard_model(model, mesh["rows"])
        run = DistributedDataParallel(sharded, process_group=mesh.get_group("batch"))
        cross_entropy(run(own_rows(image[part], mesh["rows"])), labels[part]).backward()
    else:
        cross_entropy(model(image), labels).backward()
    return {name: tensor.grad.numpy() for name, tensor in model.named_parameters()}


def test_beside_distributed_data_parallel(ranks: Ranks) -> None:
    expected = rows_and_batch(False)
    for answer in ranks.run(rows_and_batch, True):
        for name, whole in expected.items():
            assert_close(torch.from_numpy(answer[name]), torch.from_numpy(whole), **EXACT)


def kept_bytes(ranks: int, rows: int) -> int:
    """What a step of training keeps for the backward pass, parameters aside."""
    model = make("classifier", "plain")
    image = picture(rows, batch=1)
    parameters = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        if ranks == 1:
            output = model(image)
        else:
            mesh = mesh_of((ranks,))
            output = shard_model(model, mesh)(own_rows(image, mesh))
    assert output.shape == (1, 3)
    return sum(kept.values())


def test_what_a_rank_keeps_is_its_share_and_a_halo(ranks: Ranks) -> None:
    """Counted bytes of everything that autograd keeps, on images of two heights: the halo is what does not grow.

    The outputs of interior and border are kept once more, put together: 5 % of all.
    """
    heights = (384, 768)
    whole = [kept_bytes(1, rows) for rows in heights]
    for count in (2, 4):
        low, high = (max(ranks.run(kept_bytes, count, rows)) for rows in heights)
        assert (whole[1] - whole[0]) / count <= high - low <= 1.05 * (whole[1] - whole[0]) / count
        assert high <= 1.05 * whole[1] / count + 100_000


def refusal(case: str) -> str:
    """What a rank says."""
    mesh = mesh_of((4,))
    model = make("classifier", "plain")
    image = picture(32)
    if case == "rows" and mesh.get_local_rank() == 3:
        image = image[..., :20]
    if case == "eval" and mesh.get_local_rank() == 3:
        model.eval()
    if case == "channels" and mesh.get_local_rank() == 3:
        image = image[:, :2]
    try:
        shard_model(model, mesh)(image) if case != "mode" else None
    except ValueError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("rows", "ranks disagree about image: torch.float64 (2, 3, 'rows', 37) on rank 0, torch.float64 (2, 3, 'rows'"),
        ("eval", "ranks disagree about training: True on rank 0, False on rank 3"),
        ("channels", ""),
    ],
)
def test_ranks_that_disagree(ranks: Ranks, case: str, message: str) -> None:
    own = "image must be [batch, channels, height, width] with 3 channels, got (2, 2, 32, 37)"
    texts = ranks.run(refusal, case)
    if case == "channels":
        assert texts == [f"rank 3 refused its arguments: ValueError: {own}"] * 3 + [own]
    else:
        assert all(text.startswith(message) for text in texts), texts


def test_other_models_are_refused() -> None:
    class Mesh:
        ndim = 1

    dropping = DiNAT(DinatConfig(**SMALL, attention_probs_dropout_prob=0.1))
    again = DiNAT(DinatConfig(**SMALL))
    again.set_grad_checkpointing()
    for model, message in [
        (nn.Linear(2, 2), "model must be a NAT or DiNAT, a classifier or a backbone, got Linear"),
        (dropping, r"levels\.0\.blocks\.0\.attn\.attn_drop must be 0"),
        (again, r"levels\.0\.blocks\.0\.checkpointing must be off"),
    ]:
        with pytest.raises(ValueError, match=message):
            shard_model(model, Mesh())

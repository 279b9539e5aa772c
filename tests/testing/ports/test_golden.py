"""Golden vectors, for kernels far from PyTorch."""

import json

import numpy

from dinat_ref import Neighborhood
from tests.testing.test_command import status


def numpy_attention(query, key, value, layout, kernel_size, stride, dilation, is_causal, scale, rpb, extra):
    """Neighborhood attention in NumPy alone, as somebody without PyTorch would write it: (output, lse)."""
    where = Neighborhood(layout, kernel_size, stride, dilation, is_causal)
    batch, heads = query.shape[0], query.shape[-2]
    group = heads // key.shape[-2]
    output = numpy.zeros((*query.shape[:-1], value.shape[-1]))
    lse = numpy.zeros(query.shape[:-1])
    for b in range(batch):
        for token in where.tokens():
            for h in range(heads):
                scores, values = [], []
                for other in where.neighbors(token):
                    score = scale * float(
                        query[(b, *token, h)].astype(float) @ key[(b, *other, h // group)].astype(float)
                    )
                    if rpb is not None:
                        steps = zip(token, other, dilation, kernel_size, strict=True)
                        score += float(rpb[(h, *((j - i) // d + k - 1 for i, j, d, k in steps))])
                    scores.append(score)
                    values.append(value[(b, *other, h // group)].astype(float))
                for m in range(0 if extra is None else extra[0].shape[1]):
                    key_m, value_m = (part[b, m, h // group].astype(float) for part in extra)
                    scores.append(scale * float(query[(b, *token, h)].astype(float) @ key_m))
                    values.append(value_m)
                top = max(scores)
                weights = numpy.exp(numpy.array(scores) - top)
                output[(b, *token, h)] = weights @ numpy.array(values) / weights.sum()
                lse[(b, *token, h)] = top + numpy.log(weights.sum())
    return output, lse


def test_golden_vectors_judge_a_kernel_without_pytorch(capsys, tmp_path):
    code, out, _ = status(capsys, "--export", str(tmp_path))
    assert code == 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert str(len(manifest["cases"])) in out
    assert status(capsys, "--check", str(tmp_path))[0] == 2  # no answers yet
    (tmp_path / "outputs").mkdir()
    for case in manifest["cases"][::3]:
        if numpy.prod(case["layout"]) > 100:
            continue
        with numpy.load(tmp_path / "cases" / f"{case['name']}.npz", allow_pickle=False) as arrays:
            extra = (arrays["additional_keys"], arrays["additional_values"]) if "additional_keys" in arrays else None
            names = ("layout", "kernel_size", "stride", "dilation", "is_causal", "scale")
            rpb = arrays.get("rpb")
            tensors = (arrays["query"], arrays["key"], arrays["value"])
            output, lse = numpy_attention(*tensors, *(case[name] for name in names), rpb, extra)
        numpy.savez(tmp_path / "outputs" / f"{case['name']}.npz", output=output, lse=lse)
    code, out, _ = status(capsys, "--check", str(tmp_path))
    assert code == 0, out
    name = manifest["cases"][30]["name"]
    with numpy.load(tmp_path / "cases" / f"{name}.npz", allow_pickle=False) as arrays:
        numpy.savez(tmp_path / "outputs" / f"{name}.npz", output=arrays["output"] + 1.0)
    code, out, _ = status(capsys, "--check", str(tmp_path))
    assert code == 1
    assert f"FAILED {name}" in out


def test_a_changed_golden_vector_is_noticed(capsys, tmp_path):
    status(capsys, "--export", str(tmp_path))
    name = json.loads((tmp_path / "manifest.json").read_text())["cases"][0]["name"]
    numpy.savez(tmp_path / "cases" / f"{name}.npz", output=numpy.zeros(3))
    code, _, err = status(capsys, "--check", str(tmp_path))
    assert code == 2
    assert "is not what the manifest says" in err

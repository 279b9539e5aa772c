"""Golden vectors, for kernels far from PyTorch."""

import io
import json
import os
import shutil
import zipfile

import numpy
import pytest

from dinat_ref import Neighborhood
from dinat_ref.cli import main
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


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Golden vectors with one right answer."""
    folder = tmp_path_factory.mktemp("golden")
    assert main(["verify", "--export", str(folder)]) == 0
    name = json.loads((folder / "manifest.json").read_text())["cases"][5]["name"]
    (folder / "outputs").mkdir()
    with numpy.load(folder / "cases" / f"{name}.npz", allow_pickle=False) as arrays:
        numpy.savez(folder / "outputs" / f"{name}.npz", output=arrays["output"])
    return folder, name


def npz(method=zipfile.ZIP_DEFLATED, **members):
    """A zip archive of raw bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return packed.getvalue()


def npy(header, content=b""):
    """An array's file, whatever its header says."""
    text = header.encode() + b" " * (118 - len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def saved(array):
    written = io.BytesIO()
    numpy.save(written, array)
    return written.getvalue()


WHOLE = npz(output=saved(numpy.ones(50)))
BROKEN = {
    "empty": (b"", "no whole .npz"),
    "truncated": (WHOLE[: len(WHOLE) // 2], "no whole .npz"),
    "changed": (npz(zipfile.ZIP_STORED, output=saved(numpy.ones(50))).replace(b"\xf0?", b"\xf1?"), "CRC"),
    "a plain array": (saved(numpy.ones(3)), "no whole .npz"),
    "eight terabytes": (npz(output=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }")), "header"),
    "eight terabytes, spelt": (
        npz(output=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }")),
        "needs 8,000,000,000,000 bytes",
    ),
    "a negative length": (npz(output=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }")), "no numbers"),
    "objects": (npz(output=npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"12345678")), "no numbers"),
    "text": (npz(output=saved(numpy.array(["a"]))), "no numbers"),
    "no header": (npz(output=b"hello"), "no header"),
    "a bomb": (npz(output=bytes(200 * 2**20)), "at most 67,108,864"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_answer_is_one_line(capsys, tmp_path, vectors, kind):
    folder, name = vectors
    content, words = BROKEN[kind]
    copy = tmp_path / "golden"
    shutil.copytree(folder, copy)
    (copy / "outputs" / f"{name}.npz").write_bytes(content)
    code, out, err = status(capsys, "--check", str(copy))
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a thing of POSIX")
def test_a_pipe_is_not_waited_for(capsys, tmp_path, vectors):
    folder, name = vectors
    shutil.copytree(folder, tmp_path / "golden")
    answer = tmp_path / "golden" / "outputs" / f"{name}.npz"
    answer.unlink()
    os.mkfifo(answer)
    code, out, err = status(capsys, "--check", str(tmp_path / "golden"))
    assert (code, out) == (2, "")
    assert "no regular file" in err


@pytest.mark.parametrize("array", [numpy.ones(4, complex), numpy.ones((2, 2)), numpy.full(50, numpy.nan)])
def test_other_numbers_are_wrong_answers(capsys, tmp_path, vectors, array):
    folder, name = vectors
    shutil.copytree(folder, tmp_path / "golden")
    numpy.savez(tmp_path / "golden" / "outputs" / f"{name}.npz", output=array)
    code, out, _ = status(capsys, "--check", str(tmp_path / "golden"))
    assert code == 1
    assert f"FAILED {name}" in out


def test_an_answer_is_right_in_any_order_and_real_dtype(capsys, tmp_path, vectors):
    folder, name = vectors
    shutil.copytree(folder, tmp_path / "golden")
    with numpy.load(folder / "cases" / f"{name}.npz", allow_pickle=False) as arrays:
        answer = numpy.asfortranarray(arrays["output"].astype(">f8"))
    numpy.savez_compressed(tmp_path / "golden" / "outputs" / f"{name}.npz", output=answer)
    assert status(capsys, "--check", str(tmp_path / "golden"))[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda manifest: [], "JSON object"),
        (lambda manifest: manifest | {"schema_version": 2}, "schema_version 2"),
        (lambda manifest: manifest | {"schema_version": [1]}, "schema_version [1]"),
        (lambda manifest: manifest | {"cases": {}}, "cases must be a list"),
        (lambda manifest: manifest | {"cases": []}, "cases must be a list"),
        (lambda manifest: manifest | {"cases": [3]}, "the name of a case"),
        *(
            (lambda manifest, n=name, v=value: manifest | {"cases": [manifest["cases"][0] | {n: v}]}, f"the {name} of")
            for name, value in [
                ("name", "../../etc/passwd"),
                ("name", 3),
                ("kind", None),
                ("problem", ["1d"]),
                ("sha256", 0),
                ("output_budget", "1e9"),
                ("output_budget", True),
                ("lse_budget", -1),
            ]
        ),
    ],
)
def test_a_manifest_of_other_types_is_one_line(capsys, tmp_path, vectors, change, words):
    folder, _ = vectors
    manifest = json.loads((folder / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(change(manifest)))
    code, out, err = status(capsys, "--check", str(tmp_path))
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": NaN}', "\x00"])
def test_what_is_no_manifest_is_one_line(capsys, tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    code, out, err = status(capsys, "--check", str(tmp_path))
    assert (code, out) == (2, "")
    assert "no manifest" in err
    assert err.count("\n") == 1

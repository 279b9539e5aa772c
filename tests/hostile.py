"""Files that mean harm, given to the commands: ``python -m tests.hostile`` shows each with its time and its memory.

Every case runs in a process of its own that has everything imported already, so its seconds and megabytes are those of
the case alone: from reading the arguments to the line that refuses them.
"""

import contextlib
import json
import os
import pickle
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from dinat_ref.cli import main
from dinat_ref.models import DiNAT
from tests.models.test_pickles import HASH_BOMB
from tests.models.tiny import tiny
from tests.test_images import blank_png

DEEP = "[" * 10**5 + "]" * 10**5
MOST_MEGABYTES = 200
LONGEST = 20  # seconds, after which a case is killed; all of them take a fraction of one
SHARD = "model.safetensors.index.json"


class Result(NamedTuple):
    """What came of a case; status 2 and one line are right."""

    name: str
    expected: str
    status: int
    seconds: float
    megabytes: float
    said: str


class Place:
    """A folder with a model that is right in every way, for a case to spoil."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model"
        self.photo = str(folder / "photo.png")
        Image.new("RGB", (40, 40)).save(self.photo)
        self.model.mkdir()
        config = tiny(num_labels=None, id2label=dict(enumerate("abcde")))
        config.to_json(self.model / "config.json")
        self.state = DiNAT(config).state_dict()
        torch.save(self.state, self.model / "pytorch_model.bin")

    def config(self, **changes: Any) -> list[str]:
        settings = json.loads((self.model / "config.json").read_text()) | changes
        return self.text("config.json", json.dumps(settings))

    def text(self, name: str, content: str) -> list[str]:
        (self.model / name).write_text(content)
        return self.classify()

    def classify(self, *more: str) -> list[str]:
        return ["classify", self.photo, "--weights", str(self.model), *more]

    def pipe(self, name: str) -> list[str]:
        (self.model / name).unlink(missing_ok=True)
        os.mkfifo(self.model / name)
        return self.classify()

    def endless(self, name: str) -> list[str]:
        (self.model / name).unlink(missing_ok=True)
        (self.model / name).symlink_to("/dev/zero")
        return self.classify()

    def index(self, *shards: Any) -> list[str]:
        (self.model / "pytorch_model.bin").unlink()
        return self.text(SHARD, json.dumps({"weight_map": {f"name{n}": shard for n, shard in enumerate(shards)}}))

    def weights(self, **changes: torch.Tensor) -> list[str]:
        state = self.state | {"head.bias": changes["bias"]} if "bias" in changes else changes
        torch.save(state, self.model / "pytorch_model.bin")
        return self.classify()

    def bytes(self, name: str, content: bytes, size: int = 0) -> list[str]:
        (self.model / "pytorch_model.bin").unlink(missing_ok=True)
        (self.model / name).write_bytes(content)
        os.truncate(self.model / name, max(size, len(content)))
        return self.classify()

    def archive(self, program: bytes, **options: Any) -> list[str]:
        with zipfile.ZipFile(self.model / "pytorch_model.bin", "w", **options) as file:
            file.writestr("last/data.pkl", program)
            file.writestr("last/data/0", bytes(10**8) if options else b"")
        return self.classify()

    def image(self, command: str) -> list[str]:
        Path(self.photo).write_bytes(blank_png(13300, 13300))
        out = {"explore": [str(self.folder / "a.html")], "tour": [str(self.folder / "tour")]}.get(command)
        return self.classify() if out is None else [command, self.photo, "--out", *out]

    def train(self, *more: Any) -> list[str]:
        usual = ["train", "--data", "texture", "--images", "80", "--batch-size", "8", "--epochs", "1"]
        return [*usual, "--out", str(self.folder / "run"), *map(str, more)]

    def resume(self, content: str | None) -> list[str]:
        checkpoint = self.folder / "run" / "checkpoint-0001"
        checkpoint.mkdir(parents=True)
        if content is None:
            os.mkfifo(checkpoint / "training.json")
        else:
            (checkpoint / "training.json").write_text(content)
        return self.train("--resume")


def legacy(program: bytes) -> bytes:
    """A file as PyTorch wrote them before 1.6, with a program of one's own."""
    heads = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(head, protocol=2) for head in heads) + program + pickle.dumps([], protocol=2)


Case = Callable[[Place], list[str]]
LAYERS = {"depths": [20_000], "num_heads": [2], "dilations": [[1] * 20_000]}
BROKEN = "it is damaged"
CASES: dict[str, tuple[Case, str]] = {
    "depths [10**8]": (lambda at: at.config(depths=[10**8]), "depths must be at most 512"),
    "depths [10**8] of a NAT": (lambda at: at.config(model_type="nat", depths=[10**8]), "depths must be at most 512"),
    "20,000 layers": (lambda at: at.config(**LAYERS), "depths must be at most 512"),
    "20,000 levels": (lambda at: at.config(depths=[1] * 20_000), "depths must have at most 12 entries"),
    "embed_dim 100,000": (lambda at: at.config(embed_dim=100_000), "embed_dim must be at most 65536"),
    "embed_dim 60,000": (lambda at: at.config(embed_dim=60_000), "at most 2,147,483,648 parameters"),
    "embed_dim 1,200": (lambda at: at.config(embed_dim=1200), "parameters, and its weights are"),
    "embed_dim 10**30": (lambda at: at.config(embed_dim=10**30), "embed_dim must be at most 65536"),
    "dilation 10**6": (lambda at: at.config(dilations=[[1, 10**6], [2], [1, 1]]), "dilations must be at most 1024"),
    "100,000 classes": (
        lambda at: at.config(id2label={str(n): "" for n in range(10**5)}),
        "parameters, and its weights are",
    ),
    "mlp_ratio '3'": (lambda at: at.config(mlp_ratio="3"), "mlp_ratio must be a number, got '3'"),
    "drop_path_rate 'a'": (lambda at: at.config(drop_path_rate="a"), "drop_path_rate must be a number, got 'a'"),
    "drop_path_rate NaN": (lambda at: at.config(drop_path_rate=float("nan")), "NaN is no number in JSON"),
    "layer_norm_eps NaN": (lambda at: at.config(layer_norm_eps=float("nan")), "NaN is no number in JSON"),
    "layer_norm_eps 1e400": (lambda at: at.text("config.json", '{"layer_norm_eps": 1e400}'), "must be a finite number"),
    "qkv_bias 'no'": (lambda at: at.config(qkv_bias="no"), "qkv_bias must be true or false, got 'no'"),
    "id2label a list": (lambda at: at.config(id2label=["a"] * 5), "id2label must be an object from class numbers"),
    "config nested 10**5 deep": (lambda at: at.text("config.json", DEEP), "nested at most 64 deep"),
    "config a pipe": (lambda at: at.pipe("config.json"), "config.json"),
    "config /dev/zero": (lambda at: at.endless("config.json"), "config.json"),
    "config of 1 GB": (lambda at: at.bytes("config.json", b"{}", 2**30), "has more than 4,194,304 bytes"),
    "config 4 MB of lists": (
        lambda at: at.text("config.json", "[" + "[]," * 1_300_000 + "[]]"),
        "at most 200,000 objects and lists",
    ),
    "size 0": (lambda at: at.text("preprocessor_config.json", '{"size": 0}'), "size must be at least 1, got 0"),
    "size -5": (lambda at: at.text("preprocessor_config.json", '{"size": -5}'), "size must be at least 1, got -5"),
    "size 10**6": (lambda at: at.text("preprocessor_config.json", '{"size": 1000000}'), "size must be at most 4096"),
    "size 1e400": (
        lambda at: at.text("preprocessor_config.json", '{"size": 1e400}'),
        "size must be an integer, got inf",
    ),
    "preprocessor nested": (lambda at: at.text("preprocessor_config.json", DEEP), "nested at most 64 deep"),
    "preprocessor a pipe": (lambda at: at.pipe("preprocessor_config.json"), "no regular file"),
    "--size 100000": (lambda at: at.classify("--size", "100000"), "--size must be at most 4096, got 100000"),
    "shard '..'": (lambda at: at.index(".."), "must name files of weights in its own folder, got '..'"),
    "shard ''": (lambda at: at.index(""), "must name files of weights in its own folder, got ''"),
    "shard the index itself": (lambda at: at.index(SHARD), "must name files of weights in its own folder"),
    "shard /etc/passwd": (lambda at: at.index("/etc/passwd"), "must name files of weights in its own folder"),
    "shard C:\\x.bin": (lambda at: at.index("C:\\x.bin"), "must name files of weights in its own folder"),
    "shards A.bin and a.bin": (lambda at: at.index("A.bin", "a.bin"), "differ in the case of letters alone"),
    "10,000 shards": (lambda at: at.index(*(f"{n}.bin" for n in range(10**4))), "must name at most 1000 shards"),
    "shard that is not there": (lambda at: at.index("a.bin"), "no such checkpoint"),
    "index nested 10**5 deep": (
        lambda at: [(at.model / "pytorch_model.bin").unlink(), *at.text(SHARD, DEEP)][1:],
        "nested at most 64 deep",
    ),
    "int8 weights": (lambda at: at.weights(bias=torch.zeros(5, dtype=torch.int8)), "got torch.int8 in head.bias"),
    "bool weights": (lambda at: at.weights(bias=torch.zeros(5) > 0), "got torch.bool in head.bias"),
    "complex weights": (lambda at: at.weights(bias=torch.zeros(5) * 1j), "got torch.complex64 in head.bias"),
    "NaN weights": (lambda at: at.weights(bias=torch.zeros(5) / 0), "got infinity or NaN in head.bias"),
    "expanded, 2 TB": (
        lambda at: at.weights(bias=torch.zeros(1, 512).expand(10**9, 512)),
        "a tensor of shape (1000000000, 512), larger than the file",
    ),
    "weights a pipe": (lambda at: at.pipe("pytorch_model.bin"), "is no regular file"),
    "weights /dev/zero": (lambda at: at.endless("pytorch_model.bin"), "is no regular file"),
    "weights text": (lambda at: at.bytes("pytorch_model.bin", b"no checkpoint"), "no file of torch.save"),
    "--weights text.jpg": (
        lambda at: [at.bytes("text.jpg", b"e" * 99), *at.classify()[:-1], str(at.model / "text.jpg")][1:],
        "no file of torch.save",
    ),
    "legacy, no tuple": (
        lambda at: at.bytes("pytorch_model.bin", legacy(b"\x80\x02X\x01\x00\x00\x00aQ.")),
        BROKEN,
    ),
    "legacy, 10**6 steps": (
        lambda at: at.bytes("pytorch_model.bin", legacy(b"\x80\x02" + b"]" * 10**7 + b".")),
        "steps to describe its tensors",
    ),
    "a zip bomb, 100 MB": (
        lambda at: at.archive(b"\x80\x02}.", compression=zipfile.ZIP_DEFLATED),
        "a compressed archive",
    ),
    "a key of 2**60 parts": (lambda at: at.archive(HASH_BOMB), "it holds tuples within tuples without end"),
    "a buffer of 68 GB": (
        lambda at: at.archive(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R."),
        "it holds more than tensors (builtins.bytearray)",
    ),
    "a program that runs": (
        lambda at: at.archive(b"\x80\x02cos\nsystem\nX\x05\x00\x00\x00touch\x85R."),
        "it holds more than tensors (os.system), and nothing in it was run",
    ),
    "safetensors header 8 TB": (
        lambda at: at.bytes("model.safetensors", (8 * 10**12).to_bytes(8, "little") + b"{}"),
        "its header must fit the file",
    ),
    "safetensors header nested": (
        lambda at: at.bytes("model.safetensors", len(DEEP).to_bytes(8, "little") + DEEP.encode()),
        "nested at most 64 deep",
    ),
    "labels nested": (
        lambda at: [at.text("labels", DEEP), *at.classify("--labels", str(at.model / "labels"))][1:],
        "nested at most 64 deep",
    ),
    "labels /dev/zero": (lambda at: at.classify("--labels", "/dev/zero"), "/dev/zero is no regular file"),
    "177 million pixels, classify": (lambda at: at.image("classify"), "at most 64,000,000 pixels, got 13300 x 13300"),
    "177 million pixels, explore": (lambda at: at.image("explore"), "at most 64,000,000 pixels, got 13300 x 13300"),
    "177 million pixels, tour": (lambda at: at.image("tour"), "at most 64,000,000 pixels, got 13300 x 13300"),
    "a name of 300 letters": (lambda at: ["classify", "n" * 300], "image not found: nnn"),
    "a name with escapes": (lambda at: ["classify", "\x1b[2J\n.png"], r"image not found: \x1b[2J\n.png"),
    "train, 10**8 layers": (
        lambda at: [at.config(depths=[10**8]), *at.train("--model", at.model / "config.json")][1:],
        "depths must be at most 512",
    ),
    "train, --images 10**10": (lambda at: at.train("--images", 10**10), "--images must be at most 1000000"),
    "train, --init a pipe": (
        lambda at: [at.pipe("pytorch_model.bin"), *at.train("--init", at.model)][1:],
        "is no regular file",
    ),
    "training.json nested": (lambda at: at.resume(DEEP), "nested at most 64 deep"),
    "training.json a pipe": (lambda at: at.resume(None), "is no regular file"),
    "training.json a list": (lambda at: at.resume("[]"), "must hold one JSON object, got list"),
}


def run(name: str) -> Result:
    """Run one case in a process of its own."""
    case, expected = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        argv = case(Place(Path(folder)))
        said = Path(folder, "said")
        peak = Path(folder, "peak")
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            signal.alarm(LONGEST)
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            status = 1
            before = resident_megabytes("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the largest so far is forgotten
            try:
                status = main(argv)
            except BaseException as error:
                print("traceback:", repr(error)[:500])
            peak.write_text(str(resident_megabytes("VmHWM") - before))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, ended = os.waitpid(child, 0)
        seconds = time.perf_counter() - began
        megabytes = float(peak.read_text()) if peak.exists() else float("inf")
        return Result(name, expected, os.waitstatus_to_exitcode(ended), seconds, megabytes, said.read_text())


def resident_megabytes(entry: str) -> float:
    """This process's memory now (VmRSS) or at most so far (VmHWM), as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def results() -> Iterator[Result]:
    """Run all cases, after one that is right: it fills every cache."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        place = Place(Path(folder))
        assert main(place.classify()) == 0
        assert main(place.train()) == 0
        for command in ("explore", "tour"):
            main(place.image(command))
    for name in CASES:
        yield run(name)


if __name__ == "__main__":
    everything = []
    for result in results():
        everything.append(result._asdict())
        if "--json" not in sys.argv:
            words = result.said.strip().replace("\n", " | ")[-150:]
            figures = f"{result.seconds:5.2f} s {result.megabytes:5.0f} MB  status {result.status}"
            print(f"{figures}  {result.name}: {words}")
    if "--json" in sys.argv:
        print(json.dumps(everything))

"""What may be wrong with a run's folder after a crash, a copy that was cut off, or an editor."""

import shutil
from pathlib import Path
from typing import Any

import torch

DAMAGES: dict[str, list[Any]] = {
    "summary.json": ["[]", "null", "{", b"\xff\xfe", "1"],
    "config.yaml": ["", "[]", b"\xff\xfe", "rule: [", "rule: rflo\n", "network: 3\nrule: {}\ntask: {}\nneuron: {}\n"],
    "metrics.csv": ["", "epoch", "epoch,step\n1", "epoch,step\n1,2,3\n", "\0\n", "epoch,step\na,b\n", b"\xff\xfe\n"],
    "checkpoints/last.ckpt": ["", "text", 3, [1], {"state_dict": 1}, {"state_dict": {}, "global_step": 1}],
    "weights/step00000006.pt": ["", "text", 3, {"network": 1, "rule": 2}, {"step": 6}],
    "weights/stepfoo.pt": ["text"],
    "weights": [None],
    "checkpoints": [None],
}


def spoil(file: Path, content: Any) -> None:
    """Put text, bytes or what torch saves in its place; None removes it."""
    if content is None:
        shutil.rmtree(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, str):
        file.write_text(content)
    else:
        torch.save(content, file)

"""Sequential MNIST by rows (28 steps of 28) or pixels (784 steps of 1), 10 classes; downloaded once (11 MB).

Sources: Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits". By pixels,
permuted or not: Q. V. Le, N. Jaitly and G. E. Hinton (2015), arXiv:1504.00941. By rows, with these splits and
test noise of sd 0.2: the released code of Liu et al. (2022).
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray

from bpgen.errors import BpgenError, require
from bpgen.streams import generator
from bpgen.tasks.base import Split, SplitName, Task
from bpgen.tasks.idx import read_idx, unpack

SHAPES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}
# Of the uncompressed files, because the same data circulate compressed in more than one way.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
N_PIXELS = 28 * 28
N_VALIDATION = 5000  # the first training images, as in the loader of the TensorFlow 1 tutorials
N_TRAIN = 60000 - N_VALIDATION
_INSTEAD = "Or put the four IDX files into a folder and name it: --task.data_dir=FOLDER."


class SeqMNIST(Task):
    """Sequential MNIST: a handwritten digit shown piece by piece, to be named after the last piece.

    55,000 training, 5,000 validation and 10,000 test images, the same in every run whatever its seed.

    Args:
        data_dir: folder with the four MNIST files, gzipped or not: train-images-idx3-ubyte and so on, or
            spelt train-images.idx3-ubyte; or torchvision's root, which has them in MNIST/raw. Another data set of the
            same format and sizes, such as Fashion-MNIST, works too. Without it MNIST is downloaded once and kept in
            the user's cache folder.
        order: what one time step shows: a row of 28 pixels (28 steps) or a single pixel (784 steps).
        permuted: shuffle the 784 pixels of every image by one fixed permutation before cutting it into steps.
        permutation_seed: which permutation; it does not depend on the seed of the run.
        n_train: use only the first n of the 55,000 training images (default: all).
        noise_sd: standard deviation of the Gaussian noise added to test inputs; pixels go from 0 to 1.
    """

    n_out = 10
    input_range = (0.0, 1.0)

    def __init__(
        self,
        data_dir: str | None = None,
        order: Literal["rows", "pixels"] = "rows",
        permuted: bool = False,
        permutation_seed: int = 0,
        n_train: int | None = None,
        noise_sd: float = 0.2,
    ) -> None:
        super().__init__(noise_sd)
        require(data_dir != "", "task.data_dir is empty. Name a folder, or leave it out to download MNIST.")
        require(order in ("rows", "pixels"), f"task.order must be rows or pixels, got {order!r}.")
        in_range = n_train is None or 1 <= n_train <= N_TRAIN
        require(in_range, f"task.n_train must be 1 to {N_TRAIN}, got {n_train}.")
        self.data_dir = data_dir
        self.n_train = n_train
        self.n_in = 28 if order == "rows" else 1
        self.n_steps = N_PIXELS // self.n_in
        shuffle = generator(permutation_seed, "pixel permutation")
        self.permutation = torch.randperm(N_PIXELS, generator=shuffle) if permuted else None

    def load(self) -> dict[SplitName, Split]:
        """Images as x float32 [T, n, I] in [0, 1] and target int64 [n].

        Raises:
            BpgenError: a file is missing, unreadable or not what it should be, or no mirror gave it.
        """
        paths = {name: _download(name) for name in SHAPES} if self.data_dir is None else _find(self.data_dir)
        data = {name: read_idx(paths[name], shape) for name, shape in SHAPES.items()}
        for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
            highest = int(data[name].max())
            require(highest < self.n_out, f"{paths[name]} holds the label {highest}, expected 0 to 9.")
        images, labels = data["train-images-idx3-ubyte"], data["train-labels-idx1-ubyte"]
        train = slice(N_VALIDATION, N_VALIDATION + (self.n_train or N_TRAIN))
        return {
            "train": self._split(images[train], labels[train]),
            "val": self._split(images[:N_VALIDATION], labels[:N_VALIDATION]),
            "test": self._split(data["t10k-images-idx3-ubyte"], data["t10k-labels-idx1-ubyte"]),
        }

    def _split(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Split:
        pixels = torch.tensor(images).flatten(1)  # [n, 784]
        if self.permutation is not None:
            pixels = pixels[:, self.permutation]
        steps = pixels.unflatten(1, (self.n_steps, self.n_in)).transpose(0, 1)  # [T, n, I]
        # Bytes are put in order before they become floats, which are four times as much to move.
        return Split(steps.contiguous().float().div_(255), torch.tensor(labels).long())


def _find(data_dir: str) -> dict[str, Path]:
    """The four files in a folder of the user's, or where torchvision puts them below its root or below `MNIST`."""
    folder = Path(os.path.expanduser(data_dir))
    lacks = {}
    for place in (folder, folder / "raw", folder / "MNIST" / "raw", folder / "MNIST"):
        try:
            found = _spelt(place)
        except OSError as error:
            if place is folder:
                raise BpgenError(
                    f"cannot list task.data_dir {folder}: {error.strerror}. Expected a folder with the IDX files "
                    f"{', '.join(SHAPES)}, gzipped or not."
                ) from error
            continue
        if len(found) == len(SHAPES):
            return found
        lacks[place] = [name for name in SHAPES if name not in found]
    place = min(lacks, key=lambda place: len(lacks[place]))
    raise BpgenError(
        f"task.data_dir {place} lacks {', '.join(lacks[place])}. Expected each as it is or with .gz, there, in raw, "
        f"MNIST/raw or MNIST; leave task.data_dir out to download MNIST."
    )


def _spelt(folder: Path) -> dict[str, Path]:
    """Those of the four files that are in a folder, in either spelling of their names."""
    present = {entry.name for entry in folder.iterdir() if not entry.is_dir()}
    found = {}
    for name in SHAPES:
        dotted = name.replace("-idx", ".idx")
        spellings = [s for s in (name, dotted, f"{name}.gz", f"{dotted}.gz") if s in present]
        if spellings:
            found[name] = folder / spellings[0]
    return found


def _download(name: str) -> Path:
    """The file `name`, uncompressed, in the user's cache: from there if it is intact, else from a mirror."""
    import pooch  # late: a run that has its files needs no download library

    cache = Path(pooch.os_cache("bpgen")) / "mnist"
    failed = {}
    for mirror in MIRRORS:
        host = urlsplit(mirror).netloc
        try:
            known = f"sha256:{SHA256[name]}"
            return Path(pooch.retrieve(f"{mirror}{name}.gz", known, name, cache, downloader=_fetch))
        except ConnectionError as error:
            failed[host] = str(error)
        except ValueError:  # of pooch for another hash, of `unpack` for a damaged file
            failed[host] = "wrong content"
        except OSError as error:
            raise BpgenError(f"cannot keep MNIST (60 MB) in {cache}: {error}. {_INSTEAD}") from error
    tried = ", ".join(f"{host}: {why}" for host, why in failed.items())
    if "wrong content" in failed.values():
        raise BpgenError(
            f"no mirror gave the right {name} ({tried}): its sha256 is not the known one, as when a login "
            f"page answers.\nTry from another network. {_INSTEAD}"
        )
    raise BpgenError(
        f"MNIST is not in {cache} and no mirror could be reached ({tried}).\nConnect to the internet once. {_INSTEAD}"
    )


def _fetch(url: str, output_file: str, _: Any) -> None:
    """Download `url` and write it uncompressed, as pooch's `downloader`.

    Raises:
        ConnectionError: no answer, or an HTTP error, in three words.
        ValueError: the answer is a damaged gzip file.
    """
    import pooch

    answer = io.BytesIO()
    try:
        # 5 s to connect, so that three dead mirrors cost 15 s; 30 s for a pause in the data.
        pooch.HTTPDownloader(timeout=(5, 30), chunk_size=1 << 16)(url, answer, None)
    except OSError as error:  # the base of all errors of requests; its messages fill a paragraph
        response = getattr(error, "response", None)
        why = type(error).__name__ if response is None else f"HTTP {response.status_code}"
        raise ConnectionError(why) from error
    Path(output_file).write_bytes(unpack(answer.getvalue()))

"""The download of MNIST, from mirrors on this machine: a dead one, a wrong one, a right one.

The last test serves the real files, from the folder named by BPGEN_MNIST or ../shared/data/mnist beside the
repository.
"""

import gzip
import hashlib
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from bpgen.errors import BpgenError
from bpgen.tasks import seqmnist
from bpgen.tasks.base import SPLITS
from bpgen.tasks.seqmnist import SHA256, SHAPES, SeqMNIST

REAL = Path(os.environ.get("BPGEN_MNIST", Path(__file__).parents[3] / "shared" / "data" / "mnist"))
LABELS = "train-labels-idx1-ubyte"

RIGHT = b"the right labels" * 100


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder in place of the user's cache."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # the machine may reach the internet by a proxy
    return tmp_path / "bpgen" / "mnist"


@pytest.fixture
def mirror():
    """A function that starts a local mirror: {path: answer}, or one answer to every path. It logs into `asked`."""
    running = []

    def start(answers, status=200, headers=(), length=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = answers[self.path] if isinstance(answers, dict) else answers
                asked.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(length or len(body)))
                for header in headers:
                    self.send_header(*header)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        asked = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.append((server, threading.Thread(target=server.serve_forever, args=(0.01,))))
        running[-1][1].start()
        return f"http://127.0.0.1:{server.server_port}/", asked

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def dead():
    """The address of a mirror that nobody runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}/"  # bound but not listening: connections are refused


@pytest.fixture
def download(cache, monkeypatch):
    """A function that downloads the label file, which holds `RIGHT`, from the given mirrors."""
    monkeypatch.setitem(SHA256, LABELS, hashlib.sha256(RIGHT).hexdigest())

    def from_mirrors(*mirrors):
        monkeypatch.setattr(seqmnist, "MIRRORS", mirrors)
        return seqmnist._download(LABELS)

    return from_mirrors


def test_the_next_mirror_replaces_a_dead_one_and_a_wrong_one(download, mirror, dead, cache):
    wrong, asked_wrong = mirror(gzip.compress(b"other labels"))
    right, asked_right = mirror(gzip.compress(RIGHT))
    spare, asked_spare = mirror(gzip.compress(RIGHT))
    assert download(dead, wrong, right, spare) == cache / LABELS
    assert (cache / LABELS).read_bytes() == RIGHT
    assert asked_wrong == asked_right == [f"/{LABELS}.gz"]
    assert asked_spare == []


def test_what_was_downloaded_is_kept(download, mirror, dead):
    right, asked = mirror(gzip.compress(RIGHT))
    assert download(right) == download(right) == download(dead)
    assert len(asked) == 1


def test_a_damaged_file_in_the_cache_is_downloaded_again(download, mirror, cache):
    right, asked = mirror(gzip.compress(RIGHT))
    download(right).write_bytes(RIGHT[:-1])
    assert download(right).read_bytes() == RIGHT
    assert len(asked) == 2


@pytest.mark.parametrize("level", [0, 9])
def test_the_content_counts_and_not_how_it_was_compressed(download, mirror, level):
    right, _ = mirror(gzip.compress(RIGHT, level))
    assert download(right).read_bytes() == RIGHT


def test_a_server_may_have_the_client_unpack(download, mirror):
    right, _ = mirror(gzip.compress(RIGHT), headers=[("Content-Encoding", "gzip")])
    assert download(right).read_bytes() == RIGHT


WRONG = {
    "other data": gzip.compress(b"other labels"),
    "a login page": b"<!DOCTYPE html>",
    "a damaged gzip": gzip.compress(RIGHT)[:-9],
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_content_everywhere_is_an_error_and_nothing_is_kept(download, mirror, dead, cache, kind):
    one, two = mirror(WRONG[kind])[0], mirror(WRONG[kind])[0]
    with pytest.raises(BpgenError, match=r"no mirror gave the right train-labels") as caught:
        download(one, dead, two)
    message = str(caught.value)
    assert message.count("wrong content") == 2
    assert "sha256" in message
    assert "--task.data_dir" in message
    assert message.count("\n") == 1
    assert list(cache.iterdir()) == []


def test_without_a_network_one_error_says_what_to_do(download, mirror, dead, cache):
    gone, _ = mirror(b"", status=404)
    cut, _ = mirror(gzip.compress(RIGHT), length=10**6)
    with pytest.raises(BpgenError, match="no mirror could be reached") as caught:
        download(dead, gone, cut)
    message = str(caught.value)
    assert "ConnectionError" in message
    assert "HTTP 404" in message
    assert str(cache) in message
    assert "--task.data_dir" in message
    assert message.count("\n") == 1
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(download, mirror, cache):
    right, asked = mirror(gzip.compress(RIGHT))
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(BpgenError, match=r"cannot keep MNIST .*mnist: .*--task\.data_dir"):
        download(right)
    assert asked == []


def test_only_load_downloads(cache, monkeypatch, dead):
    monkeypatch.setattr(seqmnist, "MIRRORS", (dead,))
    task = SeqMNIST()
    with pytest.raises(BpgenError, match="no mirror could be reached"):
        task.load()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no MNIST in {REAL}; set BPGEN_MNIST")
def test_real_mnist_through_a_mirror(cache, monkeypatch, mirror):
    found = seqmnist._find(str(REAL))
    address, asked = mirror({f"/{name}.gz": path.read_bytes() for name, path in found.items()})
    monkeypatch.setattr(seqmnist, "MIRRORS", (address,))
    downloaded, given = SeqMNIST().load(), SeqMNIST(str(REAL)).load()
    assert asked == [f"/{name}.gz" for name in SHAPES]
    for name in SPLITS:
        assert downloaded[name].x.equal(given[name].x)
        assert downloaded[name].target.equal(given[name].target)

"""Files of the hub: the real client and real caches against a small server on this machine."""

import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save

from optax_dtnh.models import CheckpointError
from optax_dtnh.models._checkpoint import open_checkpoint
from optax_dtnh.models._facts import facts_beside
from optax_dtnh.models._hub import BESIDE, hub_file

MAIN, OTHER, PULL_REQUEST = "1" * 40, "2" * 40, "3" * 40
WEIGHTS = {name: save({"w": np.full(9, i, "float32")}) for i, name in enumerate("abcd")}
PAGE = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"
# What the server has: revision, its commit, file, content.
FILES = [
    ("main", MAIN, "model.safetensors", WEIGHTS["a"]),
    ("main", MAIN, "in/a folder/model.safetensors", WEIGHTS["b"]),
    ("v1.0", OTHER, "model.safetensors", WEIGHTS["c"]),
    ("refs%2Fpr%2F1", PULL_REQUEST, "model.safetensors", WEIGHTS["d"]),
    ("main", MAIN, "page.safetensors", PAGE),
    ("v1.0", OTHER, "config.json", b'{"model_type": "vit", "num_attention_heads": 2}'),
    ("main", MAIN, "in/a folder/preprocessor_config.json", b'{"size": 32}'),
    ("refs%2Fpr%2F1", PULL_REQUEST, "in/model.safetensors", WEIGHTS["d"]),
    ("refs%2Fpr%2F1", PULL_REQUEST, "processor_config.json", b'{"image_processor": {"size": 8}}'),
]
OPT_OUT = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
COMMITS = {revision: commit for revision, commit, *_ in FILES}


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        if self.path == "/":
            return self.answer(200, PAGE, {})
        self.server.requests.append(self.requestline.rpartition(" ")[0])
        for revision, commit, name, content in FILES:
            if self.path == f"/owner/name/resolve/{revision}/{name.replace(' ', '%20')}":
                headers = {"X-Repo-Commit": commit}
                return self.answer(self.server.status, content, headers)
        commit = COMMITS.get(self.path.split("/")[4], "")
        return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})

    do_GET = do_HEAD

    def answer(self, status, content, headers):
        etag = hashlib.sha256(content).hexdigest()
        self.send_response(status)
        for key, value in {"ETag": f'"{etag}"', "Content-Length": len(content), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextmanager
def serving():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.status = [], 200
        server.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        yield server
    huggingface_hub.close_session()


@pytest.fixture
def fetch(server, tmp_path):
    """Download from the server into a cache of this test's own."""

    def fetch(source="hf:owner/name", **options):
        options = {"download": True, "endpoint": server.endpoint} | options
        return hub_file(source, cache_dir=tmp_path / "cache", **options)

    return fetch


@contextmanager
def answered_with(error, *parts):
    """Expect exactly this error: the cause, then what to do, with all parts in its text."""
    with pytest.raises(error) as raised:
        yield raised
    text = str(raised.value)
    assert type(raised.value) is error
    assert re.fullmatch(r".+\. .+\.", text), text
    assert [part for part in parts if part not in text] == [], text


COMMAND = "`hf download owner/name --revision main`"
ASKED = [(end, "a", MAIN) for end in ("", "@main", "/model.safetensors")]
ASKED += [("/in/a folder/model.safetensors", "b", MAIN)]
ASKED += [(f"@v1.0{end}", "c", OTHER) for end in ("", "/model.safetensors")]
ASKED += [(f"@refs/pr/1{end}", "d", PULL_REQUEST) for end in ("", "/model.safetensors")]


@pytest.mark.parametrize(("end", "which", "commit"), ASKED)
def test_a_file_is_downloaded_whole(end, which, commit, fetch, tmp_path):
    path = fetch(f"hf:owner/name{end}")
    assert path.read_bytes() == WEIGHTS[which]
    assert path.is_relative_to(tmp_path / "cache" / "models--owner--name" / "snapshots" / commit)
    assert open_checkpoint(path).tensors.keys() == {"w"}


def test_a_cached_file_is_returned_without_a_request(server, fetch):
    path = fetch(endpoint=server.endpoint + "/")
    assert {"//" in request for request in server.requests} == {False}
    server.requests.clear()
    assert fetch() == fetch("hf:owner/name@main/model.safetensors", download=False) == path
    assert fetch(f"hf:owner/name@{MAIN}", download=False) == path
    assert server.requests == []


def test_the_files_that_tell_about_a_checkpoint_come_with_it(server, fetch, tmp_path):
    found = facts_beside(fetch("hf:owner/name@v1.0"))
    assert found["heads"] == (2, "config.json")
    found = facts_beside(fetch("hf:owner/name/in/a folder/model.safetensors"))
    assert found["image_size"] == (32, "preprocessor_config.json")
    assert facts_beside(fetch()) == {}
    asked = [request.rpartition("/")[2] for request in server.requests]
    assert sum(name in BESIDE for name in asked) >= 3 * len(BESIDE)
    found = facts_beside(fetch("hf:owner/name@refs/pr/1/in/model.safetensors"))
    assert found["image_size"] == (8, "processor_config.json")  # of the root


def test_a_cache_without_them_is_completed(server, fetch, tmp_path):
    where = {"revision": "v1.0", "endpoint": server.endpoint, "cache_dir": tmp_path / "cache"}
    path = huggingface_hub.hf_hub_download("owner/name", "model.safetensors", **where)
    assert str(fetch("hf:owner/name@v1.0", download=False)) == path
    with answered_with(OSError, "could not be fetched from http://127.0.0.1:9 (Connect"):
        fetch("hf:owner/name@v1.0", endpoint="http://127.0.0.1:9")
    assert str(fetch("hf:owner/name@v1.0")) == path
    server.requests.clear()
    assert facts_beside(fetch("hf:owner/name@v1.0"))["heads"].value == 2
    assert server.requests == []


@pytest.mark.parametrize("other", ["", "huggingface_hub.hf_hub_download('a/b', 'c', **where)"])
def test_no_host_but_the_endpoint_is_asked(other, server, tmp_path):
    code = f"""
import huggingface_hub
from optax_dtnh.models._hub import hub_file
where = {{"cache_dir": "cache", "endpoint": "{server.endpoint}"}}
try:
    {other or "pass"}
except OSError:
    pass
hub_file("hf:owner/name", download=True, **where)
"""
    with serving() as elsewhere:
        env = {k: v for k, v in os.environ.items() if k not in OPT_OUT} | {"HF_HOME": str(tmp_path)}
        env["HF_ENDPOINT"] = elsewhere.endpoint
        subprocess.run([sys.executable, "-c", code], env=env, check=True, cwd=tmp_path)
    assert bool(elsewhere.requests) == bool(other)  # the client by itself asks another


def test_a_file_that_is_not_cached_is_not_asked_for_unless_told(server, fetch, tmp_path):
    what = f"'hf:owner/name' is not in the hub's cache, {tmp_path / 'cache'}. "
    with answered_with(FileNotFoundError, what, COMMAND, "or pass `download=True`."):
        fetch(download=False)
    assert server.requests == []
    fetch("hf:owner/name/page.safetensors")
    with answered_with(FileNotFoundError, what):  # the repository is there, the file is not
        fetch(download=False)


REFUSED = "could not be fetched from http://127", "three names", "hf auth login", "HF_TOKEN"
SLOW = pytest.mark.slow  # the client tries again for 23 s


@pytest.mark.parametrize(
    ("end", "status"),
    [
        *((end, 404) for end in ("nobody", "name@v2", "name/none.pth")),
        *(("name", status) for status in (401, 403)),
        pytest.param("name", 500, marks=SLOW),
    ],
)
def test_what_the_hub_does_not_give(end, status, server, fetch, tmp_path):
    server.status = status
    with answered_with(OSError, str(status), *REFUSED) as raised:
        fetch(f"hf:owner/{end}")
    assert type(raised.value.__cause__).__module__ == "huggingface_hub.errors"  # the client's own
    notes = {"refs", ".no_exist"}
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and not notes & {*p.parts}]


def test_without_network_the_answer_comes_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        failed = f"could not be fetched from {endpoint} (Connect"
        started = time.perf_counter()
        with answered_with(OSError, failed, "Check the network") as raised:
            hub_file("hf:owner/name", download=True, cache_dir=tmp_path, endpoint=endpoint)
        assert time.perf_counter() - started < 5
    huggingface_hub.close_session()
    assert raised.value.__cause__ is not None
    assert list(tmp_path.iterdir()) == []


MALFORMED = """hf: hf:name hf:/name hf:owner/name/ hf:owner/name@ hf:owner/name//model.safetensors
    hf:owner/name/../model.safetensors hf:owner/name/C:\\model.safetensors
    hf:owner/na--me hf:owner/name.git owner/name"""


@pytest.mark.parametrize("source", [*MALFORMED.split(), "hf:own er/name"])
def test_a_malformed_source_is_answered_with_the_form(source, server, fetch):
    form = "have the form hf:owner/name[@revision][/file/in/repo], got"
    with answered_with(CheckpointError, form, repr(source)):
        fetch(source)
    assert server.requests == []

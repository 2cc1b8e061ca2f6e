"""A file of a hub repository: the cache first, the network only on demand, one error if not.

What a file of weights means stands in the small files beside it, which come along.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub as hub
from huggingface_hub import constants

from optax_dtnh.models._checkpoint import CheckpointError

Folder = str | os.PathLike[str] | None  # of the cache; None is the client's own choice
BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json")
# A revision has no slash, except for the names of pull requests.
SOURCE = re.compile(
    r"hf:([^/@]+/[^/@]+)(?:@(refs/pr/\d+|[^/@\s]+))?(?:/((?:[^/:\\\n]+/)*[^/:\\\n]+))?"
)
TIMEOUT_S = (1.0, 10.0, 10.0, 10.0)  # without a network, the user waits for the first


class HubFile(NamedTuple):
    """Which file, and in which cache."""

    repo_id: str  # owner and name
    revision: str  # branch, tag or commit
    filename: str  # path inside the repository
    cache_dir: str


def hub_file(
    source: str, *, download: bool = False, cache_dir: Folder = None, endpoint: str | None = None
) -> Path:
    """Return the path of the file in the hub's cache, and download it first if asked.

    The files in `BESIDE`, of the same folder and of the root, are downloaded with it, as far as the
    hub has them. What the cache has, or knows that the hub has not, is not asked for again.
    """
    file = _parse(source, cache_dir)
    cached = _lookup(file)
    if not isinstance(cached, str) and not download:
        raise FileNotFoundError(
            f"{source!r} is not in the hub's cache, {file.cache_dir}. Pass the path of a local "
            f"file, run `hf download {file.repo_id} {file.filename} --revision {file.revision}` on "
            "a machine with network and copy its cache here, or pass `download=True`."
        )
    missing = [] if isinstance(cached, str) else [file]
    missing += [beside for beside in _beside(file) if _lookup(beside) is None]
    if download and missing:
        _download(file, missing, endpoint and endpoint.rstrip("/"))
    return Path(_lookup(file))


def unknown_beside(source: str, *, cache_dir: Folder = None) -> tuple[str, ...]:
    """Return the names in `BESIDE` that the cache neither has nor knows to be missing on the hub.

    `processor_config.json` is not among them where the cache has what precedes it.
    """
    looked_up = [(Path(x.filename).name, _lookup(x)) for x in _beside(_parse(source, cache_dir))]
    cached = {name for name, found in looked_up if isinstance(found, str)}
    cached |= {BESIDE[2]} if BESIDE[1] in cached else set()
    return tuple(name for name in BESIDE if (name, None) in looked_up and name not in cached)


def _parse(source: str, cache_dir: Folder) -> HubFile:
    cache = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir)
    if match := SOURCE.fullmatch(source):
        file = HubFile(match[1], match[2] or "main", match[3] or "model.safetensors", "")
        file = file._replace(cache_dir=str(cache.expanduser().absolute()))
        with suppress(ValueError):  # the client's, of names that no repository or file has
            _lookup(file)
            return file
    raise CheckpointError(
        "`source` should have the form hf:owner/name[@revision][/file/in/repo], got "
        f"{source!r}. Name the repository and the file as the hub does."
    )


def _beside(file: HubFile) -> list[HubFile]:
    """Return the files of `BESIDE` in the folder of the weights, and in the root behind them."""
    folders = dict.fromkeys((file.filename.rpartition("/")[0], ""))
    names = [f"{folder}/{name}" if folder else name for folder in folders for name in BESIDE]
    return [file._replace(filename=name) for name in names]


def _lookup(file: HubFile) -> Any:
    """Return a path, None, or something else if the cache knows that the hub has no such file."""
    return hub.try_to_load_from_cache(**file._asdict())


def _download(file: HubFile, missing: list[HubFile], endpoint: str | None) -> None:
    """Download what is `missing`; only the `file` of weights must be on the hub."""
    from huggingface_hub.errors import RemoteEntryNotFoundError  # not before it is needed

    # Else the client asks its own hub, not the `endpoint`, what to tell about this process.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    address = endpoint or constants.ENDPOINT
    try:
        # The client itself would try again for 23 s without a network.
        hub.get_session().head(address, timeout=TIMEOUT_S)
        for x in missing:
            with suppress(*() if x is file else (RemoteEntryNotFoundError,)):  # which is noted
                hub.hf_hub_download(**x._asdict(), endpoint=endpoint)
    except Exception as error:  # a refusal, a broken connection, a full disk, a page that is no hub
        cause = error.__cause__ or error  # the client wraps some refusals in one class
        raise OSError(
            f"{file.filename} of {file.repo_id} at {file.revision} could not be downloaded from "
            f"{address} ({type(cause).__name__}: {' '.join(str(cause).split())}). Check the "
            "network and, on the hub's page of the repository, the three names; accept its "
            "conditions there, run `hf auth login` or set HF_TOKEN; or pass a local file's path."
        ) from error

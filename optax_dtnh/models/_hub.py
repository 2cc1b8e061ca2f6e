"""A file of a hub repository: the cache first, the network only on demand, one error if not."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from huggingface_hub import constants

from optax_dtnh.models._checkpoint import CheckpointError

BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json")
# A revision has no slash, except for the names of pull requests.
SOURCE = re.compile(r"hf:([^/@]+/[^/@]+)(?:@(refs/pr/\d+|[^/@\s]+))?(?:/([^:\\\n]*[^/:\\\n]))?")
TIMEOUT_S = (1.0, 10.0, 10.0, 10.0)  # without a network, the user waits for the first

File = dict[str, Any]  # `repo_id`, `revision`, `filename` and `cache_dir`, as the client takes them


def hub_file(
    source: str, *, download: bool = False, cache_dir: Any = None, endpoint: str | None = None
) -> Path:
    """Return the path of the file in the hub's cache, and download it first if asked.

    The files in `BESIDE`, of the same folder and of the root, are downloaded with it, as far as the
    hub has them. What the cache has, or knows that the hub has not, is not asked for again.
    """
    file = _parse(source, cache_dir)
    cached = isinstance(hub.try_to_load_from_cache(**file), str)
    if not cached and not download:
        raise FileNotFoundError(
            f"{source!r} is not in the hub's cache, {file['cache_dir']}. Pass the path of a local "
            f"file, run `hf download {file['repo_id']} --revision {file['revision']}` on a machine "
            "with network and copy its cache here, or pass `download=True`."
        )
    missing = [] if cached else [file]
    missing += [x for x in _beside(file) if hub.try_to_load_from_cache(**x) is None]
    if download and missing:
        _download(file, missing, endpoint and endpoint.rstrip("/"))
    return Path(str(hub.try_to_load_from_cache(**file)))


def _parse(source: str, cache_dir: Any) -> File:
    cache = Path(constants.HF_HUB_CACHE if cache_dir is None else cache_dir).expanduser().absolute()
    if match := SOURCE.fullmatch(source):
        file = {"repo_id": match[1], "revision": match[2] or "main", "cache_dir": str(cache)}
        file["filename"] = match[3] or "model.safetensors"
        with suppress(ValueError):  # the client's, of names that no repository or file has
            hub.try_to_load_from_cache(**file)
            return file
    raise CheckpointError(
        "`source` should have the form hf:owner/name[@revision][/file/in/repo], got "
        f"{source!r}. Name the repository and the file as the hub does."
    )


def _beside(file: File) -> list[File]:
    """Return the files of `BESIDE` in the folder of the weights, and in the root behind them."""
    folders = dict.fromkeys((file["filename"].rpartition("/")[0], ""))
    names = [f"{folder}/{name}" if folder else name for folder in folders for name in BESIDE]
    return [file | {"filename": name} for name in names]


def _download(file: File, missing: list[File], endpoint: str | None) -> None:
    """Download what is `missing`; only the `file` of weights must be on the hub."""
    from huggingface_hub.errors import RemoteEntryNotFoundError  # not before it is needed

    # Else the client asks its own hub, not the `endpoint`, what to tell about this process.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    address = endpoint or constants.ENDPOINT
    try:
        # The client itself would try again for 23 s without a network.
        hub.get_session().head(address, timeout=TIMEOUT_S)
        for x in missing:
            allowed = () if x is file else (RemoteEntryNotFoundError,)  # which the cache notes
            with suppress(*allowed):
                hub.hf_hub_download(**x, endpoint=endpoint)
    except Exception as error:  # a refusal, a broken connection, a full disk, a page that is no hub
        cause = error.__cause__ or error  # the client wraps some refusals in one class
        raise OSError(
            f"{file['filename']} of {file['repo_id']} at {file['revision']} could not be fetched "
            f"from {address} ({type(cause).__name__}: {' '.join(str(cause).split())}). Check the "
            "network and, on the hub's page of the repository, the three names; accept its "
            "conditions there, run `hf auth login` or set HF_TOKEN; or pass a local file's path."
        ) from error

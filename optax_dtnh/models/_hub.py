"""A file of a hub repository: the cache first, the network only on demand, one error if not.

What a file of weights means stands in the small files beside it, which come along.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.models._checkpoint import CheckpointError

Folder = str | os.PathLike[str] | None  # of the cache; None is the client's own choice
DEFAULT_FILE = "model.safetensors"
BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json")
# A revision has no slash, except for the names of pull requests.
SOURCE = re.compile(r"hf:([^/@]+/[^/@]+)(?:@(refs/pr/\d+|[^/@\s]+))?(?:/([^:\\\n]+))?")
TIMEOUT_S = (1.0, 10.0, 10.0, 10.0)  # without a network, the user waits for the first
REFUSALS: dict[Any, Any] = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError}


class HubFile(NamedTuple):
    """Which file, and in which cache."""

    repo_id: str  # owner and name
    revision: str  # branch, tag or commit
    filename: str  # path inside the repository
    cache_dir: str

    def __str__(self) -> str:
        return f"{self.filename} of {self.repo_id} at revision {self.revision}"


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
            f"{source!r} is not in the hub's cache: {file} is not in {file.cache_dir}. Pass the "
            f"path of a local file, run `hf download {file.repo_id} {file.filename} --revision "
            f"{file.revision}` on a machine with network and copy its cache here, or pass "
            "`download=True`."
        )
    address = endpoint and endpoint.rstrip("/")
    unknown = [beside for beside in _beside(file) if _lookup(beside) is None]
    if download and (unknown or not isinstance(cached, str)):
        _check_network(address)
        if not isinstance(cached, str):
            cached = _download(file, address)
        for beside in unknown:
            with suppress(FileNotFoundError):  # the client notes that the hub has none
                _download(beside, address)
    return Path(cached)


def unknown_beside(source: str, *, cache_dir: Folder = None) -> tuple[str, ...]:
    """Return the names in `BESIDE` that the cache neither has nor knows to be missing on the hub.

    `processor_config.json` is not among them where the cache has what precedes it.
    """
    looked_up = [(Path(x.filename).name, _lookup(x)) for x in _beside(_parse(source, cache_dir))]
    cached = {name for name, found in looked_up if isinstance(found, str)}
    cached |= {BESIDE[2]} if BESIDE[1] in cached else set()
    return tuple(name for name in BESIDE if (name, None) in looked_up and name not in cached)


def _beside(file: HubFile) -> list[HubFile]:
    """Return the files of `BESIDE` in the folder of the weights, and in the root behind them."""
    folders = dict.fromkeys((file.filename.rpartition("/")[0], ""))
    names = [f"{folder}/{name}" if folder else name for folder in folders for name in BESIDE]
    return [file._replace(filename=name) for name in names]


def _parse(source: str, cache_dir: Folder) -> HubFile:
    hub = _client()
    cache = Path(hub.constants.HF_HUB_CACHE if cache_dir is None else cache_dir)
    match = SOURCE.fullmatch(source)
    name, revision, filename = match.groups() if match else ("", "", "")
    filename = filename or DEFAULT_FILE
    with suppress(hub.errors.HFValidationError):
        hub.utils.validate_repo_id(name)
        if not {"", ".", ".."} & {*filename.split("/")}:
            return HubFile(name, revision or "main", filename, str(cache.expanduser().absolute()))
    raise CheckpointError(
        "`source` should have the form hf:owner/name[@revision][/file/in/repo], got "
        f"{source!r}. Name the repository and the file as the hub does."
    )


def _client() -> Any:
    # Not before it is needed, and by name: the package does not import its submodules by itself.
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors
    import huggingface_hub.utils

    # Else it asks its own hub, not the `endpoint` of a call, what to tell about this process.
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


def _lookup(file: HubFile) -> Any:
    """Return a path, None, or something else if the cache knows that the hub has no such file."""
    return _client().try_to_load_from_cache(**file._asdict())


def _check_network(endpoint: str | None) -> None:
    address = endpoint or _client().constants.ENDPOINT
    try:  # once, because the client itself retries for 23 s if there is no network
        _client().get_session().head(address, timeout=TIMEOUT_S)
    except Exception as error:  # whatever the client's HTTP library raises; it is chained
        raise ConnectionError(
            f"The hub at {address} cannot be reached ({_text(error)}). Pass the path of a local "
            "file, or run this again with network."
        ) from error


def _download(file: HubFile, endpoint: str | None) -> str:
    try:
        return _client().hf_hub_download(**file._asdict(), endpoint=endpoint)
    except Exception as error:  # a refusal, a broken connection, a full disk, a page that is no hub
        cause = error.__cause__ or error  # the client wraps some refusals in one class
        status = getattr(getattr(cause, "response", None), "status_code", None)
        raise REFUSALS.get(status, OSError)(
            f"{file} could not be downloaded ({_text(cause)}). Check the three names on the hub's "
            "page of the repository, accept its conditions there, run `hf auth login` or set "
            "HF_TOKEN; or pass the path of a local file."
        ) from error


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

"""A file of a hub repository: the cache first, the network only on demand, one error if not.

What a file of weights means stands in the small files beside it, which come along.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from optax_dtnh.models._errors import CheckpointError

DEFAULT_FILE, OTHER_FILE = "model.safetensors", "pytorch_model.bin"
BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json")
# A revision has no slash, except for the names of pull requests.
SOURCE = re.compile(r"hf:([^/@]+/[^/@]+)(?:@(refs/pr/\d+|[^/@\s]+))?(?:/([^:\\\n]+))?")
CONNECT_S = 1.0  # without a network, this is what the user waits for


class HubFile(NamedTuple):
    """Which file, and in which cache.

    Attributes:
      repo_id: Owner and name.
      revision: Branch, tag or commit.
      filename: Path inside the repository.
      cache_dir: Folder of the cache.
    """

    repo_id: str
    revision: str
    filename: str
    cache_dir: str

    def __str__(self) -> str:
        return f"{self.filename} of {self.repo_id} at revision {self.revision}"


def hub_file(
    source: str,
    *,
    download: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> Path:
    """Return the path of the file in the hub's cache, and download it first if asked.

    The files in `BESIDE`, of the same folder and of the root, are downloaded with it, as far as the
    hub has them.
    What the cache has, or knows that the hub has not, is not asked for again. An incomplete
    download is neither returned nor left in the cache.

    Args:
      source: `hf:owner/name[@revision][/file/in/repo]`. The default revision is `main`, the default
        file `model.safetensors`.
      download: Whether to fetch what is not in the cache.
      cache_dir: Folder of the cache; None is the client's own choice.
      endpoint: Address of the hub that every request goes to; None is the client's own choice.

    Raises:
      ValueError: `source` has another form.
      ImportError: `huggingface_hub` is not installed.
      FileNotFoundError: The file is not in the cache and not to be downloaded, or the hub has none.
      PermissionError: The hub asks for a token, or for another one.
      ConnectionError: The hub cannot be reached.
      OSError: The hub fails, or the download does.
    """
    file = _parse(source, cache_dir)
    cached = _cached(file)
    if not download and cached is not None:
        return cached
    if not download:
        raise FileNotFoundError(
            f"{source!r} is not in the hub's cache: {file} is not in {file.cache_dir}. "
            f"{_ways_out(file, 'pass `download=True`')}"
        )
    address = None if endpoint is None else endpoint.rstrip("/")
    with _discreet():
        if cached is None:
            _reach(source, file, address)
            cached = _download(source, file, address)
            unknown = _unknown(file)
        elif unknown := _unknown(file):
            with suppress(FileNotFoundError):
                _reach(source, unknown[0], address)
        for beside in unknown:
            with suppress(FileNotFoundError):  # the client notes that the hub has none
                _download(source, beside, address)
    return cached


def unknown_beside(
    source: str, *, cache_dir: str | os.PathLike[str] | None = None
) -> tuple[str, ...]:
    """Return the names in `BESIDE` that the cache neither has nor knows to be missing on the hub.

    `processor_config.json` is not among them where the cache has what precedes it.

    Args:
      source: As for `hub_file`.
      cache_dir: Folder of the cache; None is the client's own choice.

    Raises:
      ValueError: `source` has another form.
      ImportError: `huggingface_hub` is not installed.
    """
    file = _parse(source, cache_dir)
    unknown = {Path(beside.filename).name for beside in _unknown(file)}
    cached = {Path(x.filename).name for x in _beside(file) if isinstance(_lookup(x), str)}
    redundant = cached | (set(BESIDE[2:]) if BESIDE[1] in cached else set())
    return tuple(name for name in BESIDE if name in unknown - redundant)


def _unknown(file: HubFile) -> list[HubFile]:
    return [beside for beside in _beside(file) if _lookup(beside) is None]


def _beside(file: HubFile) -> list[HubFile]:
    """Return the files of `BESIDE` in the folder of the weights, and in the root behind them."""
    folders = dict.fromkeys((file.filename.rpartition("/")[0], ""))
    names = [f"{folder}/{name}" if folder else name for folder in folders for name in BESIDE]
    return [file._replace(filename=name) for name in names]


def _parse(source: str, cache_dir: str | os.PathLike[str] | None) -> HubFile:
    cache = _client().constants.HF_HUB_CACHE if cache_dir is None else cache_dir
    match = SOURCE.fullmatch(source)
    filename = match[3] or DEFAULT_FILE if match else ""
    if not match or not _is_repo_id(match[1]) or {"", ".", ".."} & {*filename.split("/")}:
        raise CheckpointError(
            "`source` should have the form hf:owner/name[@revision][/file/in/repo], got "
            f"{source!r}. Name the repository and the file as the hub does."
        )
    return HubFile(match[1], match[2] or "main", filename, str(Path(cache).expanduser().absolute()))


def _is_repo_id(repo_id: str) -> bool:
    hub = _client()
    try:
        hub.utils.validate_repo_id(repo_id)
    except hub.errors.HFValidationError:
        return False
    return True


def _client() -> Any:
    try:
        # By name: the package resolves its submodules only once something has imported them.
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise ImportError(
            "`huggingface_hub` is not installed, so `hf:...` cannot be fetched. Run "
            "`pip install 'optax-dtnh[models]'`, or pass a local path."
        ) from error
    return huggingface_hub


def _cached(file: HubFile) -> Path | None:
    found = _lookup(file)
    return Path(found) if isinstance(found, str) else None


def _lookup(file: HubFile) -> Any:
    """Return a path, None, or something else if the cache knows that the hub has no such file."""
    # Not `hf_hub_download(local_files_only=True)`: that may ask the hub for a list of agents first.
    return _client().try_to_load_from_cache(
        file.repo_id, file.filename, cache_dir=file.cache_dir, revision=file.revision
    )


def _ways_out(file: HubFile, last: str) -> str:
    command = f"hf download {file.repo_id} {file.filename} --revision {file.revision}"
    return (
        f"Pass the path of a local file, or run `{command}` on a machine with network and copy its "
        f"cache here, or {last}."
    )


def _reach(source: str, file: HubFile, endpoint: str | None) -> None:
    """Ask once, because the client itself retries for 23 s if there is no network.

    Its own session and headers, so that its proxies and tokens count here as well.
    """
    hub = _client()
    url = hub.hf_hub_url(file.repo_id, file.filename, revision=file.revision, endpoint=endpoint)
    patience = hub.constants.HF_HUB_ETAG_TIMEOUT
    try:
        response = hub.get_session().head(
            url,
            headers=hub.utils.build_hf_headers(),
            timeout=(CONNECT_S, patience, patience, patience),
            follow_redirects=False,  # to a storage host: an answer, and no place for the token
        )
    except Exception as error:  # whatever the client's HTTP library raises; it is chained
        raise ConnectionError(
            f"The hub at {endpoint or hub.constants.ENDPOINT} cannot be reached "
            f"({_text(error)}), and for {source!r}, {file} is not in {file.cache_dir}. "
            + _ways_out(file, "run this again with network")
        ) from error
    try:
        hub.utils.hf_raise_for_status(response)
    except hub.errors.HfHubHTTPError as error:
        raise _refusal(source, file, error.response) from error


def _download(source: str, file: HubFile, endpoint: str | None) -> Path:
    hub = _client()
    where = {"cache_dir": file.cache_dir, "endpoint": endpoint}
    try:
        return Path(
            hub.hf_hub_download(file.repo_id, file.filename, revision=file.revision, **where)
        )
    except hub.errors.HfHubHTTPError as error:
        raise _refusal(source, file, error.response) from error
    except Exception as error:  # a broken connection, a full disk, a page in place of the hub
        raise OSError(
            f"The download of {file} for {source!r} failed ({_text(error)}). Nothing of it was "
            f"kept as a file in {file.cache_dir}: run it again."
        ) from error


def _refusal(source: str, file: HubFile, response: Any) -> OSError:
    status = response.status_code
    said = response.headers.get("X-Error-Message")
    answer = f"For {source!r}, the hub answered {status}" + (f" ({said})" if said else "")
    if status == 404:
        return FileNotFoundError(
            f"{answer}: no such repository, revision or file as {file}. Check the three on the "
            f"hub's page of the repository.{_other_file(source, file, response)}"
        )
    if status in (401, 403):
        return PermissionError(
            f"{answer}: you may not read {file}. Check that the repository exists, accept its "
            "conditions on the hub, and run `hf auth login` or set HF_TOKEN."
        )
    return OSError(
        f"{answer}: it cannot deliver {file}. Run it again later, or pass the path of a local file."
    )


def _other_file(source: str, file: HubFile, response: Any) -> str:
    if file.filename != DEFAULT_FILE or response.headers.get("X-Error-Code") != "EntryNotFound":
        return ""
    repository = source.removesuffix("/" + DEFAULT_FILE)
    return f" Another common file is `{repository}/{OTHER_FILE}`."


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _discreet() -> Iterator[None]:
    """Keep the client to its progress bar and to the endpoint it is told.

    Its warnings ("retrying in 2 s") would come ahead of our one error. Its user agent asks the hub
    of the environment, not `endpoint`, for names of agents, unless telemetry is off.
    """
    constants = _client().constants
    handlers = logging.getLogger("huggingface_hub").handlers[:]
    telemetry_off = constants.HF_HUB_DISABLE_TELEMETRY

    def not_a_warning(record: logging.LogRecord) -> bool:
        return record.levelno != logging.WARNING

    for handler in handlers:
        handler.addFilter(not_a_warning)
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry_off
        for handler in handlers:
            handler.removeFilter(not_a_warning)

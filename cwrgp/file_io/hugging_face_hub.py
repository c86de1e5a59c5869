"""``hf://OWNER/NAME[/FILE]``: a file of a model repository at the Hugging Face Hub."""

from __future__ import annotations

import importlib
from pathlib import PurePosixPath
from typing import Any

from iopath.common.file_io import PathHandler

from cwrgp.errors import MissingPackage

PREFIX = "hf://"

# What transformers writes, in the order of preference.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".pkl", ".tar")
# What tensors do not show stands in these, beside them.
SETTINGS = ("config.json", "preprocessor_config.json")


def fetch(path: str) -> str:
    """The local path of ``hf://OWNER/NAME[/FILE]``, in the hub's own cache.

    huggingface_hub downloads and caches; its environment variables hold: HF_ENDPOINT, HF_HOME,
    HF_TOKEN. ``config.json`` and ``preprocessor_config.json`` lie beside it, if the repository has
    them in the file's folder.

    Args:
        path: without FILE: ``model.safetensors``, else ``pytorch_model.bin``, else the only file of
            weights. ``NAME@REVISION`` takes a branch, tag or commit.

    Raises:
        MissingPackage: huggingface_hub is not installed.
        FileNotFoundError: no such repository, revision or file, or it is not public.
        ValueError: the path is malformed, or the repository has several files of weights.
        OSError: there is no connection, or the hub refuses.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"{path} needs huggingface_hub, which is not installed: pip install 'cwrgp[hub]'",
            name="huggingface_hub",
        ) from error
    owner, _, rest = path.removeprefix(PREFIX).partition("/")
    repository, _, file = rest.partition("/")
    name, _, revision = repository.partition("@")
    if not owner or not name:
        raise ValueError(f"{path!r} is not of the form hf://OWNER/NAME[/FILE]")
    where = {"repo_id": f"{owner}/{name}", "revision": revision or None}
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        files = hub.HfApi().list_repo_files(**where)
        chosen = file or _only_weights(path, files)
        if chosen not in files:
            raise FileNotFoundError(
                f"{path}: the repository has no file {chosen!r}; {_some(files)}"
            )
        folder = PurePosixPath(chosen).parent
        for settings in (str(folder / setting) for setting in SETTINGS):
            if settings in files:
                hub.hf_hub_download(filename=settings, **where)
        return str(hub.hf_hub_download(filename=chosen, **where))
    except errors.HFValidationError as error:
        raise ValueError(f"{path!r} is not of the form hf://OWNER/NAME[/FILE]: {error}") from error
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"{path}: no such repository, or it is not public; HF_TOKEN names an account that may"
            " read it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{path}: the repository has no revision {revision!r}") from error
    except FileNotFoundError:
        raise
    except (errors.HfHubHTTPError, OSError) as error:
        raise OSError(f"{path}: the download failed ({_reason(error)})") from error
    except Exception as error:
        # The HTTP client of huggingface_hub, and with it the errors, depend on the version.
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise OSError(
            f"{path}: no connection to the hub ({_reason(error)}); is there a network? HF_ENDPOINT"
            " names another server"
        ) from error


class HubHandler(PathHandler):
    """Lets iopath read ``hf://...``."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return fetch(path)


def _only_weights(path: str, files: list[str]) -> str:
    for name in _WEIGHTS:
        if name in files:
            return name
    weights = [name for name in files if name.endswith(_SUFFIXES)]
    if len(weights) != 1:
        raise ValueError(
            f"{path}: the repository has {len(weights) or 'no'} files of weights; name one, as in"
            f" hf://OWNER/NAME/FILE; {_some(weights or files)}"
        )
    return weights[0]


def _some(files: list[str], limit: int = 8) -> str:
    return f"it has {', '.join(files[:limit])}" + (", ..." if len(files) > limit else "")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

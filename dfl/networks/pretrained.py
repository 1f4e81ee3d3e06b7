"""Models and tokenizers of transformers by hub name or folder.

What was asked for and is not there is one line, never something random: transformers itself would give a tokenizer of a
few tokens where a folder has none. Weights are read from safetensors alone, and no code of a folder is run.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from dfl.errors import UserError, first_line
from dfl.hub import offline_if_no_network, without_bars

#: How weights that can run code are called.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def pretrained(
    flag: str,
    name: str,
    auto: Any,
    words: Callable[[Any], dict[str, Any]] = lambda config: {},
    dtype: torch.dtype = torch.float32,
    types: tuple[str, ...] = (),
) -> Any:
    """Return a model with its weights.

    Args:
        flag: What the user named it by, for errors: ``model.language``.
        name: Hub name or folder.
        auto: Class of transformers that opens it.
        words: Further words for it by the model's config; raises for a config that will not do, before gigabytes are
            loaded.
        dtype: Of the weights.
        types: What the config may have as ``model_type``; () for any.

    Raises:
        UserError: If it is of another type, not there or damaged, transformers cannot open it, or it lacks weights.
    """
    try:
        with offline_if_no_network(), quiet(bars=not Path(name).is_dir()):  # weights that it lacks are an error below
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            if types and config.model_type not in types:
                raise UserError(
                    f"{flag}: {name} is of the type {config.model_type!r}, and must be {' or '.join(types)}"
                )
            more = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True} | words(config)
            loaded: Any = auto.from_pretrained(name, trust_remote_code=False, **more)
        model, info = loaded
    except SafetensorError as error:
        raise UserError(f"{flag}: the weights of {name} are damaged ({first_line(error)}): get them anew") from error
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        folder = Path(name)
        names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
        pickles = [one for one in names if one.endswith(_PICKLES)]
        if pickles and not any(one.endswith(".safetensors") for one in names):
            raise UserError(
                f"{flag}: {name} holds pickled weights ({pickles[0]}), which are not read, since that can run code; "
                "where you trust them, open them with transformers and write safetensors: model.save_pretrained(FOLDER)"
            ) from error
        raise UserError(
            f"{flag}: no weights at {name!r}, neither a folder nor on the hub or in its cache "
            f"({first_line(error)}); download them, or give a folder with config.json and safetensors"
        ) from error
    absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if absent:
        raise UserError(
            f"{flag}: {name} lacks {len(absent)} weights of its {type(model).__name__}, such as {absent[0]}"
        )
    return model


def named_tokenizer(flag: str, name: str, vocabulary: int = 0) -> Any:
    """Return the tokenizer of a model.

    Args:
        flag: What the user named it by, for errors.
        name: Hub name or folder.
        vocabulary: Tokens that the model knows.

    Raises:
        UserError: If it is not there, or knows less than half of these tokens.
    """
    try:
        with offline_if_no_network():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        why = f"it has {len(tokenizer)} tokens, and the model {vocabulary:,}" if 2 * len(tokenizer) < vocabulary else ""
    except (OSError, ValueError) as error:
        why = first_line(error)
    if why:
        raise UserError(
            f"{flag}: no tokenizer at {name!r}, neither a folder nor on the hub or in its cache "
            f"({why}); give a folder with config.json, tokenizer.json and safetensors"
        )
    return tokenizer


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Spare the user what transformers warns of, and its bars, but for ``bars``: those of a download are of use."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with nullcontext() if bars else without_bars():
            yield
    finally:
        logging.set_verbosity(before)

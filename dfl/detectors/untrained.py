"""Which weights of a detector came from no file, and what the user is told of them."""

from dfl.detectors.base import Detector


def untrained(detector: Detector) -> list[str]:
    """Return the names of the network's parameters that no weights were loaded into, in their order.

    Networks that loaded any say in ``at_random`` where the names begin that got none.
    """
    loaded = {name: module.at_random for name, module in detector.named_modules() if hasattr(module, "at_random")}
    names = []
    for name, _ in detector.named_parameters():
        around = [one for one in loaded if not one or name.startswith(f"{one}.")]
        begins: tuple[str, ...] = ("",)
        if around:
            inner = max(around, key=len)
            begins = tuple(f"{inner}.{one}".lstrip(".") for one in loaded[inner])
        if any(not one or name == one or name.startswith(f"{one}.") for one in begins) and not _is_of_loss(name):
            names.append(name)
    return names


def note(detector: Detector, verb: str) -> str | None:
    """Return a line on a detector that no checkpoint was given for; None where there is nothing to say."""
    names, file = untrained(detector), detector.hparams.get("weights")
    source = file or "what it is pretrained with"
    some = f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
    if verb == "fit":
        return f"note: {file} gives nothing for {some}: they start at random" if names and file else None
    if len(names) == len([name for name, _ in detector.named_parameters() if not _is_of_loss(name)]):
        return "warning: no --ckpt_path, so an untrained detector is scored"
    if names:
        return f"warning: no --ckpt_path, and {source} gives nothing for {some}: they are at random, and so are scores"
    return f"scoring with the weights of {source}"


def _is_of_loss(name: str) -> bool:
    return name.startswith("criterion.")

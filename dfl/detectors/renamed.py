"""Arguments of detectors as older configs and checkpoints have them, and what they are called now."""

from collections.abc import Mapping
from typing import Any

from dfl.errors import UserError

#: Old arguments of the single-center loss and of the fair losses, by the new name in the criterion.
CENTER = {
    "scl_weight": "weight",
    "scl_feature": "feature",
    "scl_margin": "margin",
    "scl_margin_mode": "margin_mode",
    "scl_center": "center",
    "scl_empty_class": "empty_class",
}
FAIR = {"fair_alpha": "alpha", "fair_alpha_inner": "alpha_inner", "fair_cvar": "cvar", "fair_groups": "groups"}
NEW = CENTER | FAIR | {"fair": "class_path (DagFdd, DawFdd)"}
OLD = NEW.keys()


def renamed(init_args: Mapping[str, Any], class_path: object = "") -> dict[str, Any]:
    """Return arguments of a detector by their names of today: the losses of a classifier as a criterion.

    Args:
        init_args: Of a config or a checkpoint.
        class_path: Of the detector; `VitScl` has the single-center loss by default.

    Raises:
        UserError: For a loss that was removed.
    """
    if str(class_path).endswith("Sida"):  # `start`, a file of the earlier stage, is the run's `init_from`
        return {k: v for k, v in init_args.items() if k != "start"}
    if not OLD & init_args.keys():
        return dict(init_args)
    weight = init_args.get("scl_weight", 0.5 if str(class_path).endswith("VitScl") else 0.0)
    fair, criterion = init_args.get("fair", "none"), None
    if fair == "daw_class":
        raise UserError("fair: daw_class was removed; take criterion: DawFdd")
    if fair in ("dag", "daw"):
        names = FAIR if fair == "daw" else {k: v for k, v in FAIR.items() if v in ("alpha", "groups")}
        criterion = _part("DagFdd" if fair == "dag" else "DawFdd", init_args, names)
    if weight:
        center = _part("SingleCenter", dict(init_args) | {"scl_weight": weight}, CENTER)
        if criterion is not None:
            center["init_args"]["beside"] = criterion
        criterion = center
    rest = {k: v for k, v in init_args.items() if k not in OLD}
    return rest | {"criterion": criterion or {"class_path": "CrossEntropy"}}


def _part(name: str, init_args: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {"class_path": name, "init_args": {new: init_args[old] for old, new in names.items() if old in init_args}}

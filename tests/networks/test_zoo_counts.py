"""Networks of papers have the parameters that their cards count, with the outputs that they are published with."""

import keep_configs
import pytest
import timm

from dfl import networks

assert networks.zoo  # its import makes the names known

#: timm name and number of outputs: parameters, and BatchNorm statistics, which Keras counts with them.
COUNTS = {
    ("dfb_efficientnet_b4", 2): (17_552_202, None),
    ("dfb_lsda_efficientnet_b4", 2): (17_552_202, None),
    ("gramnet_resnet18", 2): (11_734_723, None),
    ("gramnet_resnet18_bgr255", 2): (11_734_723, None),
    ("meso4", 1): (27_977, 28_073),
    ("mesoinception4", 1): (28_615, 28_725),
    ("npr_resnet50", 1): (1_437_761, None),
}


#: The same of configs: trainable, and all.
CONFIGS = {
    "cnnf.yaml": (23_510_081, 23_510_081),
    "gramnet.yaml": (11_734_723, 11_734_723),
    "hierarchical.yaml": (85_146_896, 85_146_896),
    "lsda.yaml": (98_106_479, 150_415_023),  # less ArcFace, which is frozen
    "meso4.yaml": (27_977, 27_977),
    "npr.yaml": (1_437_761, 1_437_761),
    "resynthesis_sr.yaml": (22_271_107, 35_216_067),  # RDN, and VGG19, which is frozen
}


@pytest.mark.parametrize("case", COUNTS, ids=lambda case: case[0])
def test_parameters_are_those_of_the_paper(case: tuple[str, int]) -> None:
    model = timm.create_model(case[0], num_classes=case[1])
    parameters = sum(p.numel() for p in model.parameters())
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    trainable, with_statistics = COUNTS[case]
    assert parameters == trainable
    assert with_statistics in (None, parameters + statistics)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_have_the_parameters_of_the_paper(name: str) -> None:
    """``test_contract.py`` builds every config, and holds it to this table."""
    trainable, whole = CONFIGS[name]
    assert keep_configs.table()[name]["network"] == f"{trainable:,} trainable of {whole:,}"

"""Networks of papers have the parameters that their cards count, with the outputs that they are published with."""

import pytest
import timm

from dfl import networks

assert networks.zoo  # its import makes the names known

#: timm name and number of outputs: parameters, and BatchNorm statistics, which Keras counts with them.
COUNTS = {
    ("dfb_efficientnet_b4", 2): (17_552_202, None),
    ("gramnet_resnet18", 2): (11_734_723, None),
    ("gramnet_resnet18_bgr255", 2): (11_734_723, None),
    ("meso4", 1): (27_977, 28_073),
    ("mesoinception4", 1): (28_615, 28_725),
    ("npr_resnet50", 1): (1_437_761, None),
}


@pytest.mark.parametrize("case", COUNTS, ids=lambda case: case[0])
def test_parameters_are_those_of_the_paper(case: tuple[str, int]) -> None:
    model = timm.create_model(case[0], num_classes=case[1])
    parameters = sum(p.numel() for p in model.parameters())
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    trainable, with_statistics = COUNTS[case]
    assert parameters == trainable
    assert with_statistics in (None, parameters + statistics)

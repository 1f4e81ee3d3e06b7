"""Networks of papers that are nothing but classifiers, by timm's registry: ``backbone`` of `dfl.detectors.Classifier`.

One file a paper; importing it here is what makes its names known to timm.
"""

from dfl.networks.zoo import deepfakebench, gram_net, mesonet, npr

__all__ = ["deepfakebench", "gram_net", "mesonet", "npr"]

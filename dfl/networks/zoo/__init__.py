"""Networks of papers that are nothing but classifiers, by timm's registry: ``backbone`` of `dfl.detectors.Classifier`.

One file a paper; importing it here is what makes its names known to timm.
"""

from dfl.networks.zoo import ferretnet, frank, spectrum_mlp

__all__ = ["ferretnet", "frank", "spectrum_mlp"]

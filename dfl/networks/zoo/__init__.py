"""Networks of papers that are nothing but classifiers, one file a paper; importing one here gives it a timm name."""

from dfl.networks.zoo import ferretnet, frank, spectrum_mlp

__all__ = ["ferretnet", "frank", "spectrum_mlp"]

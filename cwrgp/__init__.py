"""Self-supervised pretraining of ResNets with whitening losses (CW-RGP, Weng et al., 2022)."""

__version__ = "0.1.0"

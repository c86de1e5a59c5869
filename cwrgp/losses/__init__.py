"""The losses: each is a pure function that shows the formula, and a thin module around it.

They need torch only and can be used in any training loop.
"""

from cwrgp.losses.asymmetric import asymmetric_losses
from cwrgp.losses.barlow_twins import BarlowTwinsLoss, barlow_twins_loss
from cwrgp.losses.base import Loss
from cwrgp.losses.batch_whitening import WhiteningLoss, WMSELoss, whitening_loss
from cwrgp.losses.contrastive import NTXentLoss, nt_xent_loss
from cwrgp.losses.cwrgp import CWRGPLoss, covariance_penalty, cwrgp_loss
from cwrgp.losses.intl import INTLLoss, intl_loss
from cwrgp.losses.regression import regression_loss
from cwrgp.losses.vicreg import VICRegLoss, vicreg_loss

__all__ = [
    "BarlowTwinsLoss",
    "CWRGPLoss",
    "INTLLoss",
    "Loss",
    "NTXentLoss",
    "VICRegLoss",
    "WMSELoss",
    "WhiteningLoss",
    "asymmetric_losses",
    "barlow_twins_loss",
    "covariance_penalty",
    "cwrgp_loss",
    "intl_loss",
    "nt_xent_loss",
    "regression_loss",
    "vicreg_loss",
    "whitening_loss",
]

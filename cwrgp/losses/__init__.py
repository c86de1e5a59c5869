"""The losses: pure functions that show the formula, and one thin module each.

They need torch only, and may be used in any training loop.
"""

from cwrgp.losses.barlow_twins import BarlowTwinsLoss, barlow_twins_loss
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
    "NTXentLoss",
    "VICRegLoss",
    "WMSELoss",
    "WhiteningLoss",
    "barlow_twins_loss",
    "covariance_penalty",
    "cwrgp_loss",
    "intl_loss",
    "nt_xent_loss",
    "regression_loss",
    "vicreg_loss",
    "whitening_loss",
]

"""The papers' statements as numbers with errors, measured from stored runs and compared with what is expected.

A :class:`~lazy_lightning.claims.claim.Claim` belongs to an experiment, which is a list of commands; ``make claims``
runs them all, and ``lazy-lightning report RUNS --claims`` evaluates the claims of the experiments in a folder.
"""

from lazy_lightning.claims.catalogue import CLAIMS
from lazy_lightning.claims.claim import Claim, Expected, Measurement, Verdict
from lazy_lightning.claims.evaluation import Evaluated, evaluate
from lazy_lightning.claims.experiment import Experiment
from lazy_lightning.claims.experiments import EXPERIMENTS
from lazy_lightning.claims.page import write_claims

__all__ = [
    "CLAIMS",
    "EXPERIMENTS",
    "Claim",
    "Evaluated",
    "Expected",
    "Experiment",
    "Measurement",
    "Verdict",
    "evaluate",
    "write_claims",
]

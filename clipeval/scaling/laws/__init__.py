"""The scaling laws, one per file. In all of them ``alpha`` and ``beta`` describe large scale: E = beta * x**alpha."""

from __future__ import annotations

from clipeval.scaling.laws.broken import Broken
from clipeval.scaling.laws.floor import PowerFloor, Shifted, ShiftedFloor
from clipeval.scaling.laws.joint import JointND, JointRepeats
from clipeval.scaling.laws.joint_shared import JointShared
from clipeval.scaling.laws.law import Law
from clipeval.scaling.laws.loglinear import LogLinear, Power
from clipeval.scaling.laws.m4 import M4
from clipeval.scaling.laws.sigmoid import Sigmoid

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Power(),
        PowerFloor(),
        Shifted(),
        ShiftedFloor(),
        M4(),
        Broken(),
        Sigmoid(),
        LogLinear(("n", "d")),
        JointND(),
        JointShared(),
        JointRepeats(),
    )
}
"""By name. ``Sigmoid(chance)`` and ``LogLinear(columns)`` are made anew for another chance level or other columns."""

SIGMOID = Sigmoid.name

__all__ = ["LAWS", "SIGMOID", "Law", "LogLinear", "Sigmoid"]

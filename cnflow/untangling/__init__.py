"""Untying what a flow in the data's own dimension cannot: topology first, then a lifted stage that follows it."""

from cnflow.untangling.apart import MoveApart, Places
from cnflow.untangling.lifted import LiftedWay, UntangleError
from cnflow.untangling.shears import Shear, Shears
from cnflow.untangling.strands import Strands
from cnflow.untangling.untangle import Untangle

__all__ = ["LiftedWay", "MoveApart", "Places", "Shear", "Shears", "Strands", "Untangle", "UntangleError"]

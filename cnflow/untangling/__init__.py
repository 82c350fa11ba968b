"""Untying what a flow in the data's own dimension cannot: topology first, then a lifted stage that follows it."""

from cnflow.untangling.shears import Shears
from cnflow.untangling.strands import Strands
from cnflow.untangling.untangle import Untangle, UntangleError

__all__ = ["Shears", "Strands", "Untangle", "UntangleError"]

from ._lifted_stage import UntangleError as UntangleError
from ._separation import Separation as Separation
from ._untangle import Untangle as Untangle

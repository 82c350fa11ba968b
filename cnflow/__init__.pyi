from .alignment import Alignment as Alignment
from .alignment import align as align
from .app._narrowing_path import NarrowingPath as NarrowingPath
from .app._narrowing_path import narrowing_path as narrowing_path
from .flow import NGCA as NGCA
from .flow import NarrowingFlow as NarrowingFlow
from .flow import check_noise as check_noise
from .flow import load_flow as load_flow
from .flow import ngca as ngca
from .flow import save_flow as save_flow
from .flow import spectrum as spectrum
from .routing import fit as fit
from .topology import LevelSets as LevelSets
from .topology import level_sets as level_sets

__version__: str

from .landcover import Cover as Cover
from .optical import clouds as clouds
from .radar import speckle as speckle
from .scene import Scene as Scene
from .scene import SceneParameters as SceneParameters
from .scene import draw_parameters as draw_parameters
from .scene import simulate as simulate

from .before import open_before as open_before
from .inputs import open_scene as open_scene
from .many import map_scenes as map_scenes
from .mapping import map_scene as map_scene
from .reading import SceneReading as SceneReading
from .tiles import Tiling as Tiling

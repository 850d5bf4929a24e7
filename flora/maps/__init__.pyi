from .floods import split_flood as split_flood
from .layers import SceneMap as SceneMap
from .layers import read_map as read_map
from .live import flood_map as flood_map
from .page import StaticMap as StaticMap
from .page import write_html as write_html
from .polygons import write_polygons as write_polygons

"""What is made of a finished map: flood, polygons, pages."""

"""This room holds the mathematics of space: cameras and their rays, planes of features, volume rendering, surfaces.

Nothing here has weights, knows a loss, or reads a file. The world's z points up, and what is shown lies within the unit
ball around the origin.
"""

"""Realiz3D in JAX: photorealistic, 3D-consistent multi-view generation by domain-aware learning.

The axis legend, used in every signature and shape comment of the package:

    B  batch (grids)          V  views of a grid        G  groups of a grid
    H  height, pixels         W  width, pixels          C  channels
    N  tokens of a view       D  width of the backbone  K  attention heads
    T  text tokens            L  blocks                 R  rank of a low-rank map

A *group* is a set of views that attend to one another and share a caption and a timestep: ``G = 1`` is the joint
multi-view mode, ``G = V`` the single-image mode.

Importing the package, or any module of it, touches no device.
"""

__version__ = "0.1.0"

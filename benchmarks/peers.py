"""What others publish on the time that texturing takes, as a table for benchmarks to print beside their own.

Only figures that papers and repositories state, as of the commits named; none of them was measured here. No time of baking
alone was found: theirs are of everything from prompt and mesh to textured mesh, on the GPU that is named.
"""

import rich.table

COLUMNS = ("system", "published", "needs, to bake", "source")

_MV_ADAPTER = "MV-Adapter's paper, arXiv v1, Table 3"

PUBLISHED = (
    (
        "MV-Adapter",
        "18 s (SD 2.1), 32 s (SDXL), RTX 4090",
        "CUDA; nvdiffrast, CV-CUDA, spandrel, Open3D",
        f"{_MV_ADAPTER}; huanngzh/MV-Adapter 4277e00, mvadapter/utils/mesh_utils",
    ),
    (
        "SyncMVD",
        "50 s, RTX 4090",
        "CUDA; PyTorch3D, cupy",
        f"{_MV_ADAPTER}; LIU-Yuxin/SyncMVD 04d7c4e, src/renderer/project.py",
    ),
    (
        "Hunyuan3D-2.1 Paint",
        "no figure found; 21 GB of GPU memory",
        "CUDA to build its rasteriser; bpy 4.0, pymeshlab, cupy, Real-ESRGAN",
        "Tencent-Hunyuan/Hunyuan3D-2.1 5e3ec6d, README and hy3dpaint/DifferentiableRenderer",
    ),
    (
        "TRELLIS",
        "no figure found; 100 renders and 2,500 steps of Adam; 16 GB",
        "CUDA; its renderer of Gaussian splats",
        "microsoft/TRELLIS 6b0d647, README and postprocessing_utils.py",
    ),
    ("Make-A-Texture", "3.07 s, H100", "no code", "its paper's abstract"),
    ("TEXTure", "90 s", "not looked at", _MV_ADAPTER),
    ("Text2Tex", "421 s", "not looked at", _MV_ADAPTER),
    ("Paint3D", "60 s", "not looked at", _MV_ADAPTER),
    ("FlashTex", "186 s", "not looked at", _MV_ADAPTER),
)
"""Rows of ``COLUMNS``."""


def table() -> rich.table.Table:
    """The figures, ready to print."""
    result = rich.table.Table(title="what others publish: from prompt and mesh to textured mesh, not baking alone")
    for column in COLUMNS:
        result.add_column(column)
    for row in PUBLISHED:
        result.add_row(*row)
    return result

"""Assets: files with any number of parts, materials and textures, placed in the canonical frame and kept complete enough to be
written back unchanged.

A file is read into parts under a tree of nodes (``asset_parts``). Each point is mapped

    part --nodes' transforms--> file's world, Y up --gltf_to_world--> world, Z up --(x - offset) * scale--> canonical frame

in double precision. ``gltf_to_world`` is the only change of frame; a format with Z up gets a root node that rotates it.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets import asset_parts, gltf_reader, mesh_formats, ply_reader
from realiz3d_jax.geometry.assets.asset_parts import AssetPart, BrokenAsset, Contents, Node
from realiz3d_jax.geometry.mesh import Mesh, gltf_to_world, normalize, smooth_normals, world_to_gltf
from realiz3d_jax.geometry.render import Visible

_Z_UP_FORMATS = {".ply": ply_reader.read_ply, ".stl": mesh_formats.read_stl}
_Y_UP_FORMATS = {".obj": mesh_formats.read_obj, ".off": mesh_formats.read_off}
FORMATS = (".glb", ".gltf", *_Y_UP_FORMATS, *_Z_UP_FORMATS)

_INVISIBLE = 0.1
"""Alpha below which there is no surface: includes cut-outs and their soft edges, but not tinted glass."""

_SMALLEST_AREA = 1e-20
"""Twice the area, in the canonical frame, of the smallest face used for ray casting: well below the resolution of single
precision, and well above the underflow of a normal's length."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asset:
    """An asset ready for ray casting, texturing and writing back.

    Attributes:
      name: file name for messages.
      mesh: all parts in the canonical frame, without faces of zero area.
      uv: float32[F, 3, 2], texture coordinates of each face's corners (glTF: v down), NaN where the file has none; None if the
        whole file has none.
      part: int32[F], indices into ``parts``, in increasing order.
      part_face: int32[F], indices into the faces of that part; its faces of zero area do not occur.
      corner: int32[F, 3], indices into the vertices of that part, in the order of the mesh's corners: reversed with respect to
        the part if its node mirrors it.
      parts: parts of the file, in its own coordinates.
      nodes: nodes of the file.
      roots: indices of the root nodes.
      turned: whether the file's world has Z up although its format specifies Y.
    """

    name: str
    mesh: Mesh
    uv: np.ndarray | None
    part: np.ndarray
    part_face: np.ndarray
    corner: np.ndarray
    parts: tuple[AssetPart, ...]
    nodes: tuple[Node, ...]
    roots: tuple[int, ...]
    turned: bool = False

    def file_world_normals(self, faces: np.ndarray | slice) -> np.ndarray:
        """Corner normals of selected faces in the world of the file's nodes: float64[F, 3, 3]."""
        normals = self.mesh.corner_normals[faces].astype(np.float64)
        return normals if self.turned else world_to_gltf(normals)

    def faces_of_parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index of a part, indices of its faces int64[n]) for each part that has faces."""
        bounds = np.searchsorted(self.part, np.arange(len(self.parts) + 1))
        for index, (first, last) in enumerate(itertools.pairwise(bounds)):
            if last > first:
                yield index, np.arange(first, last)

    @property
    def visible(self) -> Visible | None:
        """Predicate for surface points with an alpha of at least ``_INVISIBLE``; None if all parts are opaque."""
        if all(part.material.alpha_mode == "OPAQUE" for part in self.parts):
            return None
        return lambda face, barycentric: self.base_color(face, barycentric)[:, 3] >= _INVISIBLE

    def base_color(self, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        """Base colour of surface points according to the file: textures, factors and vertex colours.

        Args:
          face: int[n], faces of the mesh.
          barycentric: float[n, 3], weights of the face's corners.

        Returns:
          float32[n, 4]: sRGB and alpha, in [0, 1].
        """
        result = np.empty((len(face), 4), np.float32)
        owner = self.part[face]
        order = np.argsort(owner, kind="stable")
        starts = np.searchsorted(owner[order], np.arange(len(self.parts) + 1))
        for index in np.unique(owner):
            points = order[starts[index] : starts[index + 1]]
            corners = self.corner[face[points]]
            result[points] = asset_parts.base_color(self.parts[index], corners, np.asarray(barycentric)[points])
        return result


def load_asset(path: str | os.PathLike[str], up: str | None = None) -> Asset:
    """Reads a GLB, glTF, OBJ (with MTL), PLY, STL or OFF file.

    Normals of the file are kept; corners without a usable normal get a smooth one. Referenced files are read only from the
    folder of the asset and below.

    Args:
      path: the file; its extension determines the format.
      up: up axis of the file, "y" or "z"; None means Y, but Z for PLY and STL.

    Raises:
      UserError: the file is missing or broken or has another format, has no face of non-zero area, has coordinates that are not
        finite or beyond 1e15, or refers to a file outside its folder.
    """
    path = pathlib.Path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise UserError(f"{path}: found a file {kind or 'without an extension'}; expected {', '.join(FORMATS)}.")
    if up not in (None, "y", "z"):
        raise UserError(f'{path}: up is {up!r}; expected "y" or "z".')
    content = _read(path)
    return _parse(content, str(path), kind, path.absolute().parent, up)


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the geometry of an asset: of its file, and of the separate buffers of a .gltf.

    Raises:
      UserError: the file cannot be read, or a buffer is missing.
    """
    path = pathlib.Path(path)
    content = _read(path)
    digest = hashlib.sha256(content)
    if path.suffix.lower() == ".gltf":
        try:
            for uri in _buffers_beside(content):
                digest.update(asset_parts.read_beside(path.absolute().parent, uri))
        except BrokenAsset as error:
            raise UserError(f"{path}: {error}. Fix the file or export it again.") from error
    return digest.hexdigest()


def parse_glb(content: bytes, name: str) -> Asset:
    """Parses the content of a self-contained GLB like ``load_asset``; ``name`` identifies it in errors."""
    return _parse(content, name, ".glb", None, None)


def part_normals(part: AssetPart) -> np.ndarray | None:
    """Unit normals of a part from the file, float64[P, 3], NaN where they are unusable; None if it has none."""
    if part.normals is None:
        return None
    normals = part.normals.astype(np.float64)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 1e-12)
    return np.where(usable, normals / np.where(usable, length, 1.0), np.nan)


def _read(path: pathlib.Path) -> bytes:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is not a file; expected one of {', '.join(FORMATS)}.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read this asset ({error.strerror}).") from error


def _buffers_beside(content: bytes) -> list[str]:
    """URIs of the separate buffers of a .gltf; empty if the file is broken."""
    try:
        uris = [buffer["uri"] for buffer in json.loads(content)["buffers"] if "uri" in buffer]
        return [uri for uri in uris if not uri.startswith("data:")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def _parse(content: bytes, name: str, kind: str, folder: pathlib.Path | None, up: str | None) -> Asset:
    """Parses the content of a file; ``kind`` is one of ``FORMATS``, ``folder`` the root of referenced files."""
    try:
        if kind in (".glb", ".gltf"):
            # The nodes of a glTF file are written back unchanged, so the rotation is not a node here.
            return _assemble(gltf_reader.read_gltf(content, folder), name, turned=up == "z")
        z_up = up == "z" or (up is None and kind in _Z_UP_FORMATS)
        read = (_Z_UP_FORMATS | _Y_UP_FORMATS)[kind]
        return _assemble(read(content, folder, z_up), name, turned=False)
    except BrokenAsset as error:
        raise UserError(f"{name}: {error}. Fix the file or export it again.") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # Raised for values of the wrong JSON type or out of range.
        raise UserError(
            f"{name}: cannot be read as {kind[1:].upper()} ({type(error).__name__}: {str(error)[:200]}). "
            "The file is broken; export it again."
        ) from error


def _assemble(contents: Contents, name: str, turned: bool) -> Asset:
    """Places and joins the parts; ``turned`` states that the file's world has Z up, contrary to its format."""
    transforms = asset_parts.world_transforms(contents)
    pieces = []
    for index, part in enumerate(contents.parts):
        if len(part.faces):
            piece = _place(part, transforms[part.node], turned)
            if len(piece[0]):
                pieces.append((index, *piece))
    if not pieces:
        raise BrokenAsset("no faces (triangles of non-zero area) in this file; expected at least one")
    part = np.concatenate([np.full(len(kept), index, np.int32) for index, kept, *_ in pieces])
    kept, corner, triangles, normals = (np.concatenate([piece[place] for piece in pieces]) for place in (1, 2, 3, 4))
    flat = triangles.reshape(-1, 3)
    if np.ptp(flat, axis=0).max() < 1e-12:
        raise BrokenAsset("all vertices are at one point; expected a mesh with an extent")
    flat, scale, offset = normalize(flat)
    triangles = flat.astype(np.float32).reshape(-1, 3, 3)
    solid = _double_area(triangles.astype(np.float64)) > _SMALLEST_AREA
    solid &= np.abs(normals).max(axis=(1, 2)) > 0  # needles, see smooth_normals
    if not solid.any():
        raise BrokenAsset("all faces are too thin to have an area; expected at least one that is not")
    part, kept, corner, triangles, normals = (values[solid] for values in (part, kept, corner, triangles, normals))
    vertices, faces = _share(part, corner, triangles, contents.parts)
    mesh = Mesh(vertices, faces, normals, np.zeros((len(faces), 3), np.float32), scale, offset)
    asset = Asset(name, mesh, None, part, kept, corner, contents.parts, contents.nodes, contents.roots, turned)
    centers = np.full((len(faces), 3), 1 / 3)
    color = asset.base_color(np.arange(len(faces)), centers)[:, :3]
    return dataclasses.replace(asset, mesh=dataclasses.replace(mesh, face_color=color), uv=_file_uv(asset))


def _place(
    part: AssetPart, transform: np.ndarray, turned: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Faces of a part with non-zero area, in the world: their indices int32[F], vertices int32[F, 3], corners
    float64[F, 3, 3] and corner normals float32[F, 3, 3]."""

    def to_world(vectors: np.ndarray) -> np.ndarray:
        return gltf_to_world(world_to_gltf(vectors) if turned else vectors)

    linear = transform[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        placed = part.vertices.astype(np.float64) @ linear.T + transform[:3, 3]
    mirrored = np.linalg.det(linear) < 0
    corner = part.faces[:, ::-1] if mirrored else part.faces
    used = np.zeros(len(placed), bool)
    used[corner] = True
    if not np.isfinite(placed[used]).all():
        raise BrokenAsset("vertices that are not finite numbers (NaN or infinity); expected finite coordinates")
    if np.abs(placed[used]).max() > asset_parts.LARGEST_COORDINATE:
        raise BrokenAsset(f"coordinates beyond {asset_parts.LARGEST_COORDINATE:g}; expected smaller ones")
    triangles = to_world(placed[corner])
    kept = np.flatnonzero(_double_area(triangles) > 0).astype(np.int32)
    corner, triangles = corner[kept], triangles[kept]
    if not len(kept):
        return kept, corner, triangles, np.zeros((0, 3, 3), np.float32)
    own = part_normals(part)
    if own is None:
        return kept, corner, triangles, smooth_normals(triangles).astype(np.float32)
    # Cofactors have the direction of the inverse transpose, and also exist for singular transforms.
    cofactors = np.stack([np.cross(linear[(i + 1) % 3], linear[(i + 2) % 3]) for i in range(3)])
    own = to_world(own @ cofactors.T * (-1.0 if mirrored else 1.0))
    length = np.linalg.norm(own, axis=-1, keepdims=True)
    normals = (own / np.where(length > 1e-150, length, np.nan))[corner]
    bad = ~np.isfinite(normals).all(axis=-1)
    if bad.any():
        normals[bad] = smooth_normals(triangles)[bad]
    return kept, corner, triangles, normals.astype(np.float32)


def _double_area(triangles: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1)


def _share(
    part: np.ndarray, corner: np.ndarray, triangles: np.ndarray, parts: tuple[AssetPart, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices float32[P, 3], without unused ones, and faces int32[F, 3] that share them as the faces of the parts do."""
    first = np.cumsum([0] + [len(one.vertices) for one in parts])
    names = (corner + first[part][:, None]).reshape(-1)
    used = np.zeros(first[-1], bool)
    used[names] = True
    faces = (np.cumsum(used) - 1)[names]
    vertices = np.empty((int(used.sum()), 3), np.float32)
    vertices[faces] = triangles.reshape(-1, 3)
    return vertices, faces.reshape(-1, 3).astype(np.int32)


def _file_uv(asset: Asset) -> np.ndarray | None:
    """Texture coordinates of the file, ``Asset.uv``."""
    if all(part.uv is None for part in asset.parts):
        return None
    result = np.full((len(asset.part), 3, 2), np.nan, np.float32)
    for index, mine in asset.faces_of_parts():
        if asset.parts[index].uv is not None:
            result[mine] = asset.parts[index].uv[asset.corner[mine]]
    return result

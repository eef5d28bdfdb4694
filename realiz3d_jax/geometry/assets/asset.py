"""Assets: files that others made, of many parts, materials and textures, in the canonical frame and with all that is needed to
write them back as they were.

A file is read into parts under a tree of nodes (``asset_parts``), each point of which goes

    part --nodes' transforms--> file's world, Y up --gltf_to_world--> world, Z up --(x - offset) * scale--> canonical frame

in double precision. ``gltf_to_world`` is the only change of frame: a format with Z up has a root node that turns it.
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
"""Below this alpha nothing is there: cut-outs and the edges of soft ones, but no tinted glass."""

_SMALLEST_AREA = 1e-20
"""Twice the area, in the canonical frame, of the smallest face that rays are shot at: well below what single precision can
place, and well above where the length of a normal underflows."""


@dataclasses.dataclass(frozen=True, eq=False)
class Asset:
    """An asset ready for rays, texturing and writing back.

    Attributes:
      name: the file, for messages.
      mesh: all parts in the canonical frame, without the faces of no area.
      uv: float32[F, 3, 2], texture coordinates of each face's corners (glTF's: v down), NaN where the file has none; None if
        it has none at all.
      part: int32[F], index into ``parts``, in increasing order.
      part_face: int32[F], index into the faces of that part; those of no area are the ones that no face of the mesh names.
      corner: int32[F, 3], indices into the vertices of that part, in the order of the mesh's corners, which is the part's
        reversed where its node mirrors it.
      parts, nodes, roots: the file, in its own coordinates.
      turned: whether the file's world has Z up although its format says Y.
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
        """Corner normals of some faces in the world of the file's nodes: float64[F, 3, 3]."""
        normals = self.mesh.corner_normals[faces].astype(np.float64)
        return normals if self.turned else world_to_gltf(normals)

    def faces_of_parts(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index of a part, indices of its faces int64[n]) for each part that has any."""
        bounds = np.searchsorted(self.part, np.arange(len(self.parts) + 1))
        for index, (first, last) in enumerate(itertools.pairwise(bounds)):
            if last > first:
                yield index, np.arange(first, last)

    @property
    def visible(self) -> Visible | None:
        """Tells where the surface is not cut away by an alpha below ``_INVISIBLE``; None if it is so nowhere."""
        if all(part.material.alpha_mode == "OPAQUE" for part in self.parts):
            return None
        return lambda face, barycentric: self.base_color(face, barycentric)[:, 3] >= _INVISIBLE

    def base_color(self, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        """The file's own colour of points of the surface: textures, factors and vertex colours.

        Args:
          face: int[n], of the mesh.
          barycentric: float[n, 3], weights of the face's corners.

        Returns:
          float32[n, 4]: displayed (sRGB) red, green, blue, and alpha, in [0, 1].
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

    The file's normals are kept; corners without a usable one get smooth normals. Files that it refers to are read only from
    its own folder and below.

    Args:
      path: the file; what it is is told by the end of its name.
      up: "y" or "z", the axis that is up in the file; None means Y, but Z for PLY and STL.

    Raises:
      UserError: the file is missing, broken or none of these, or holds no face that has an area, or coordinates that are not
        finite or are beyond 1e15, or refers to a file outside its folder.
    """
    path = pathlib.Path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise UserError(f"{path}: found a file {kind or 'without an ending'}; expected {', '.join(FORMATS)}.")
    if up not in (None, "y", "z"):
        raise UserError(f'{path}: up is {up!r}; expected "y" or "z".')
    content = _read(path)
    return _parse(content, str(path), kind, path.absolute().parent, up)


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of an asset's file, and of the buffers that a .gltf keeps beside it: what its geometry follows from.

    Raises:
      UserError: the file can't be read, or a buffer is not there.
    """
    path = pathlib.Path(path)
    content = _read(path)
    digest = hashlib.sha256(content)
    if path.suffix.lower() == ".gltf":
        try:
            for uri in _buffers_beside(content):
                digest.update(asset_parts.read_beside(path.absolute().parent, uri))
        except BrokenAsset as error:
            raise UserError(f"{path}: {error}. Mend the file or export it again.") from error
    return digest.hexdigest()


def parse_glb(content: bytes, name: str) -> Asset:
    """``load_asset`` of the content of a GLB that refers to no other file; ``name`` stands for it in errors."""
    return _parse(content, name, ".glb", None, None)


def part_normals(part: AssetPart) -> np.ndarray | None:
    """The part's own normals, float64[P, 3], unit, NaN where the file's can't be used; None if it has none."""
    if part.normals is None:
        return None
    normals = part.normals.astype(np.float64)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    usable = np.isfinite(length) & (length > 1e-12)
    return np.where(usable, normals / np.where(usable, length, 1.0), np.nan)


def _read(path: pathlib.Path) -> bytes:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no file; expected one of {', '.join(FORMATS)}.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read this asset ({error.strerror}).") from error


def _buffers_beside(content: bytes) -> list[str]:
    """The URIs of the buffers that a .gltf keeps in other files; none of a file that is broken."""
    try:
        uris = [buffer["uri"] for buffer in json.loads(content)["buffers"] if "uri" in buffer]
        return [uri for uri in uris if not uri.startswith("data:")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []


def _parse(content: bytes, name: str, kind: str, folder: pathlib.Path | None, up: str | None) -> Asset:
    """Reads a file's content; ``kind`` is one of ``FORMATS``, ``folder`` where the files that it refers to may lie."""
    try:
        if kind in (".glb", ".gltf"):
            # The nodes of a glTF file are written back as they are, so here the turn is no node.
            return _assemble(gltf_reader.read_gltf(content, folder), name, turned=up == "z")
        z_up = up == "z" or (up is None and kind in _Z_UP_FORMATS)
        read = (_Z_UP_FORMATS | _Y_UP_FORMATS)[kind]
        return _assemble(read(content, folder, z_up), name, turned=False)
    except BrokenAsset as error:
        raise UserError(f"{name}: {error}. Mend the file or export it again.") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as error:
        # What a value of the wrong JSON type, or a number in an impossible place, ends in.
        raise UserError(
            f"{name}: cannot be read as {kind[1:].upper()} ({type(error).__name__}: {str(error)[:200]}). "
            "The file is broken; export it again."
        ) from error


def _assemble(contents: Contents, name: str, turned: bool) -> Asset:
    """Places the parts and joins them; ``turned`` says that the file's world has Z up against its format."""
    transforms = asset_parts.world_transforms(contents)
    pieces = []
    for index, part in enumerate(contents.parts):
        if len(part.faces):
            piece = _place(part, transforms[part.node], turned)
            if len(piece[0]):
                pieces.append((index, *piece))
    if not pieces:
        raise BrokenAsset("no faces (triangles of non-zero area) in this file; expected at least one mesh")
    part = np.concatenate([np.full(len(kept), index, np.int32) for index, kept, *_ in pieces])
    kept, corner, triangles, normals = (np.concatenate([piece[place] for piece in pieces]) for place in (1, 2, 3, 4))
    flat = triangles.reshape(-1, 3)
    if np.ptp(flat, axis=0).max() < 1e-12:
        raise BrokenAsset("all vertices lie in one point; expected a mesh with an extent")
    flat, scale, offset = normalize(flat)
    triangles = flat.astype(np.float32).reshape(-1, 3, 3)
    solid = _double_area(triangles.astype(np.float64)) > _SMALLEST_AREA
    solid &= np.abs(normals).max(axis=(1, 2)) > 0  # needles, see smooth_normals
    if not solid.any():
        raise BrokenAsset("all faces are too thin to have an area; expected at least one mesh")
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
    """A part's faces of non-zero area in the world: which they are int32[F], their vertices int32[F, 3], their corners
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
    # Cofactors instead of the inverse transpose: the same direction, and a flattening transform is no error.
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
    """Vertices float32[P, 3] that faces int32[F, 3] share where the parts' faces do, without the unused ones."""
    first = np.cumsum([0] + [len(one.vertices) for one in parts])
    names = (corner + first[part][:, None]).reshape(-1)
    used = np.zeros(first[-1], bool)
    used[names] = True
    faces = (np.cumsum(used) - 1)[names]
    vertices = np.empty((int(used.sum()), 3), np.float32)
    vertices[faces] = triangles.reshape(-1, 3)
    return vertices, faces.reshape(-1, 3).astype(np.int32)


def _file_uv(asset: Asset) -> np.ndarray | None:
    """The texture coordinates that the file has."""
    if all(part.uv is None for part in asset.parts):
        return None
    result = np.full((len(asset.part), 3, 2), np.nan, np.float32)
    for index, mine in asset.faces_of_parts():
        if asset.parts[index].uv is not None:
            result[mine] = asset.parts[index].uv[asset.corner[mine]]
    return result

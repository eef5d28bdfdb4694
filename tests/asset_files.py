"""Small asset files for the tests: a glTF of two parts with everything in it, and the same shapes in the other formats."""

import base64
import io
import json
import struct

import numpy as np
from PIL import Image

TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], np.float32)
TETRAHEDRON_FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(content, "PNG")
    return content.getvalue()


def texture():
    """uint8[2, 4, 4]: eight colours, the last one half transparent."""
    pixels = np.zeros((2, 4, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, :, 0] = [255, 128, 64, 0]
    pixels[1, :, 1] = [255, 128, 64, 0]
    pixels[1, 3, 3] = 128
    return pixels


class Binary:
    """A glTF's header and its one buffer, while they grow."""

    def __init__(self):
        self.content, self.views, self.accessors = b"", [], []

    def view(self, content):
        self.views.append({"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)})
        self.content += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1

    def accessor(self, array, **more):
        array = np.asarray(array)
        kind = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[1 if array.ndim == 1 else array.shape[1]]
        component = {"u1": 5121, "u2": 5123, "u4": 5125, "i1": 5120, "i2": 5122, "f4": 5126}[array.dtype.str[1:]]
        entry = {"bufferView": self.view(array.tobytes()), "componentType": component, "count": len(array)}
        self.accessors.append({**entry, "type": kind, **more})
        return len(self.accessors) - 1


def two_parts():
    """(header, binary): a textured tetrahedron under a turned, scaled and mirrored node, and a vertex-coloured one below it."""
    data = Binary()
    positions = data.accessor(TETRAHEDRON, min=[0, 0, 0], max=[1, 2, 3])
    indices = data.accessor(TETRAHEDRON_FACES.reshape(-1).astype(np.uint16))
    normals = TETRAHEDRON - 0.3
    normals = data.accessor((normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32))
    uv = data.accessor(np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.5]], np.float32))
    colors = data.accessor(
        np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8), normalized=True
    )
    image = data.view(png(texture()))
    header = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"name": "top", "mesh": 0, "scale": [1, -2, 1.5], "rotation": [0, 0, 0.6, 0.8], "children": [1, 2]},
            {"name": "below", "mesh": 1, "matrix": [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 5, 6, 7, 1]},
            {"name": "empty"},
        ],
        "meshes": [
            {
                "name": "first",
                "primitives": [
                    {
                        "attributes": {"POSITION": positions, "NORMAL": normals, "TEXCOORD_0": uv},
                        "indices": indices,
                        "material": 0,
                    }
                ],
            },
            {
                "name": "second",
                "primitives": [{"attributes": {"POSITION": positions, "COLOR_0": colors}, "indices": indices}],
            },
        ],
        "materials": [
            {
                "name": "painted",
                "doubleSided": True,
                "alphaMode": "BLEND",
                "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [1, 0.5, 1, 1]},
            }
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"wrapS": 33071, "wrapT": 33648}],
        "images": [{"bufferView": image, "mimeType": "image/png"}],
        "accessors": data.accessors,
        "bufferViews": data.views,
        "buffers": [{"byteLength": len(data.content)}],
    }
    return header, data.content


def glb(header, binary):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def one_part(vertices, faces, **attributes):
    """A GLB of one mesh; ``attributes`` are NORMAL, TEXCOORD_0, COLOR_0 arrays, and ``material`` an entry."""
    data = Binary()
    material = attributes.pop("material", None)
    primitive = {
        "attributes": {
            "POSITION": data.accessor(np.asarray(vertices, np.float32)),
            **{key: data.accessor(np.asarray(values, np.float32)) for key, values in attributes.items()},
        },
        "indices": data.accessor(np.asarray(faces).reshape(-1).astype(np.uint32)),
    }
    header = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": data.accessors,
        "bufferViews": data.views,
        "buffers": [{"byteLength": len(data.content)}],
    }
    if material is not None:
        primitive["material"] = 0
        header["materials"] = [material]
    return glb(header, data.content)


def gltf(header, binary, folder, *, external):
    """The text of a .gltf; its buffer goes beside it into ``folder``, or into a data URI."""
    uri = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    if external:
        (folder / "a buffer.bin").write_bytes(binary)
        uri = "a%20buffer.bin"
    return json.dumps({**header, "buffers": [{"uri": uri, "byteLength": len(binary)}]}).encode()


def obj(vertices=TETRAHEDRON, faces=TETRAHEDRON_FACES):
    lines = [f"v {x} {y} {z}" for x, y, z in np.asarray(vertices).tolist()]
    return "\n".join(lines + ["f {} {} {}".format(*face) for face in (np.asarray(faces) + 1).tolist()]).encode() + b"\n"


def ply(kind, vertices=TETRAHEDRON, faces=TETRAHEDRON_FACES):
    """A PLY with a colour for each vertex."""
    header = (
        f"ply\nformat {kind} 1.0\nelement vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    if kind == "ascii":
        rows = [" ".join(map(str, [*vertex.tolist(), 10 * index, 20, 30])) for index, vertex in enumerate(vertices)]
        rows += [" ".join(map(str, [3, *face])) for face in faces.tolist()]
        return header + "\n".join(rows).encode() + b"\n"
    order = "<" if "little" in kind else ">"
    body = b"".join(
        struct.pack(order + "fffBBB", *vertex, 10 * index, 20, 30) for index, vertex in enumerate(vertices.tolist())
    )
    return header + body + b"".join(struct.pack(order + "Biii", 3, *face) for face in faces.tolist())


def stl(kind, vertices=TETRAHEDRON, faces=TETRAHEDRON_FACES):
    corners = np.asarray(vertices, np.float32)[faces]
    if kind == "ascii":
        loops = [
            "outer loop\n" + "".join("vertex {} {} {}\n".format(*c) for c in face) + "endloop"
            for face in corners.tolist()
        ]
        return (
            "solid s\n" + "\n".join(f"facet normal 0 0 0\n{loop}\nendfacet" for loop in loops) + "\nendsolid s\n"
        ).encode()
    rows = b"".join(struct.pack("<12fH", 0, 0, 0, *face.reshape(-1).tolist(), 0) for face in corners)
    return b"\0" * 80 + struct.pack("<I", len(faces)) + rows


def cut_out(alpha, mode, only=False, **material):
    """GLB: a square sheet with a texture whose left half has ``alpha``, before a larger red one unless ``only``."""
    data = Binary()
    pixels = np.full((2, 2, 4), 255, np.uint8)
    pixels[:, 0, 3] = alpha
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    position, behind = data.accessor(corners, min=[-1, -1, 0], max=[1, 1, 0]), corners * 2 - [0, 0, 1]
    behind = data.accessor(behind.astype(np.float32), min=[-2, -2, -1], max=[2, 2, -1])
    uv = data.accessor(np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32))
    indices = data.accessor(np.array([0, 1, 2, 0, 2, 3], np.uint16))
    image = data.view(png(pixels))
    sheet = {"attributes": {"POSITION": position, "TEXCOORD_0": uv}, "indices": indices, "material": 0}
    other = {"attributes": {"POSITION": behind}, "indices": indices, "material": 1}
    header = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "scene": 0,
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [sheet] if only else [sheet, other]}],
        "materials": [
            {"alphaMode": mode, "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}, **material},
            {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}},
        ],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9728, "minFilter": 9728}],
        "images": [{"bufferView": image, "mimeType": "image/png"}],
        "accessors": data.accessors,
        "bufferViews": data.views,
        "buffers": [{"byteLength": len(data.content)}],
    }
    return glb(header, data.content)

"""Damaged and odd files, made the same way every time: each loads to a valid asset or ends in one message that names it."""

import copy
import dataclasses
import itertools
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import warnings

import asset_files as files
import numpy as np
from asset_files import TETRAHEDRON, TETRAHEDRON_FACES

SECONDS_PER_FILE = 5
"""Of the processor's time, so that a busy machine changes nothing."""

MEMORY_FOR_A_FILE = 2**30
WRONG_VALUES = [None, "x", -1, 4_000_000_000, 2**70, [], {}, [[]], True, 1e308, 0, 0.5, [1, "2", None], {"index": "0"}]


PLY_CHANGES = [
    ("vertex 4", "vertex 5"),
    ("vertex 4", "vertex 3"),
    ("vertex 4", "vertex 4000000000"),
    ("vertex 4", "vertex -1"),
    ("face 4", "face 5"),
    ("face 4", "face 3"),
    ("face 4", "face 4000000000"),
    ("face 4", "face x"),
    ("float x", "float"),
    ("float x", "quad x"),
    ("float x", "float w"),
    ("list uchar", "list float"),
    ("list uchar int", "list int int"),
    ("element vertex", "element"),
    ("format", "no"),
    ("uchar red", "float red"),
    ("vertex_indices", "other"),
    ("property uchar blue", "comment TextureFile ../x.png\nproperty uchar blue"),
]


def leaves(value, path=()):
    """The paths of everything in a JSON value."""
    if path:
        yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(below, (*path, key))


def changed(header, path, value, *, remove=False):
    header = copy.deepcopy(header)
    place = header
    for key in path[:-1]:
        place = place[key]
    if remove:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return header


def glb_files():
    header, binary = files.two_parts()
    whole = files.glb(header, binary)
    for place in [*range(0, 30), *range(30, len(whole), len(whole) // 40)]:
        yield f"cut_{place}.glb", whole[:place]
    for place, bit in itertools.product(range(20), (0, 3, 7)):
        yield f"flip_{place}_{bit}.glb", whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]
    random = np.random.default_rng(0)
    for turn in range(100):
        content = bytearray(whole)
        for place in random.integers(20, len(whole), 1 + turn % 5):
            content[place] = random.integers(256)
        yield f"noise_{turn}.glb", bytes(content)
    for number, path in enumerate(leaves(header)):
        name = "_".join(map(str, path))
        yield f"without_{name}.glb", files.glb(changed(header, path, None, remove=True), binary)
        for turn in range(3):
            value = WRONG_VALUES[(number + 5 * turn) % len(WRONG_VALUES)]
            yield f"wrong_{turn}_{name}.glb", files.glb(changed(header, path, value), binary)


def odd_glb_files():
    header, binary = files.two_parts()
    yield "nothing.glb", b""
    yield "text.glb", b"solid text in place of a GLB, whatever its name says"
    yield "list.glb", files.glb(b"[1, 2, 3]", binary)
    yield "deep.glb", files.glb(b"[" * 100_000, binary)
    yield "infinity.glb", files.glb(json.dumps(header).replace("0.8", "Infinity").encode(), binary)
    yield "nan.glb", files.glb(json.dumps(header).replace("-2", "NaN").encode(), binary)
    yield "cycle.glb", files.glb(changed(header, ("nodes", 2), {"children": [0]}), binary)
    yield "itself.glb", files.glb(changed(header, ("nodes", 2), {"children": [2]}), binary)
    yield "two_parents.glb", files.glb(changed(header, ("nodes", 2), {"children": [1]}), binary)
    yield "old.glb", files.glb(changed(header, ("asset", "version"), "1.0"), binary)
    yield "draco.glb", files.glb({**header, "extensionsRequired": ["KHR_draco_mesh_compression"]}, binary)
    yield "no_buffer.glb", files.glb(header, b"")
    yield "no_image.glb", files.glb(changed(header, ("bufferViews", 5, "byteLength"), 0), binary)
    yield "far.glb", files.glb(changed(header, ("nodes", 1, "matrix", 12), 1e300), binary)
    yield "flat.glb", files.glb(changed(header, ("nodes", 0, "scale"), [0, 0, 0]), binary)
    yield "sheet.glb", files.glb(changed(header, ("nodes", 0, "scale"), [1, 0, 1]), binary)
    huge = {"componentType": 5126, "count": 4_000_000_000, "type": "VEC3"}
    yield "huge.glb", files.glb(changed(header, ("accessors", 0), {**huge, "bufferView": 0}), binary)
    yield "zeros.glb", files.glb(changed(header, ("accessors", 0), huge), binary)
    sparse = {"count": 1, "indices": {"bufferView": 1, "componentType": 5123}, "values": {"bufferView": 0}}
    yield "sparse.glb", files.glb(changed(header, ("accessors", 0), {**huge, "sparse": sparse}), binary)
    many = {**header, "accessors": header["accessors"] + [{**huge, "count": 10_000_000, "sparse": sparse}] * 30}
    attributes = [{"attributes": {"POSITION": 5 + index}, "indices": 1} for index in range(30)]
    yield "many_sparse.glb", files.glb({**many, "meshes": [{"primitives": attributes}, header["meshes"][1]]}, binary)
    width = 20_000
    image = files.png(np.zeros((1, 1), np.uint8))
    bomb = image[:16] + width.to_bytes(4, "big") + width.to_bytes(4, "big") + image[24:]
    for name, content in (
        ("bomb", bomb),
        ("empty_image", b""),
        ("no_png", b"\x89PNG\r\n\x1a\n"),
        ("cut_png", image[:40]),
    ):
        data = binary + content + b"\0" * (-len(content) % 4)
        view = {"buffer": 0, "byteOffset": len(binary), "byteLength": len(content)}
        edited = changed(changed(header, ("bufferViews", 5), view), ("buffers", 0, "byteLength"), len(data))
        yield f"{name}.glb", files.glb(edited, data)
    # A mesh of 60,000 faces under 20,000 nodes: more faces than any memory holds, in one megabyte.
    data = files.Binary()
    data.accessor(TETRAHEDRON)
    data.accessor(np.tile([0, 1, 2], 60_000).astype(np.uint8))
    big = {
        **header,
        "accessors": data.accessors,
        "bufferViews": data.views,
        "buffers": [{"byteLength": len(data.content)}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "nodes": [{"mesh": 0}] * 20_000,
        "scenes": [{"nodes": list(range(20_000))}],
    }
    yield "instances.glb", files.glb(big, data.content)
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("large", 3e38), ("denormal", 1e-45), ("far", 1e20)):
        vertices = TETRAHEDRON.copy()
        vertices[3] = value
        yield f"{name}_vertex.glb", files.one_part(vertices, TETRAHEDRON_FACES)
        yield (
            f"{name}_unused_vertex.glb",
            files.one_part(np.concatenate([TETRAHEDRON, vertices[3:]]), TETRAHEDRON_FACES),
        )
        yield f"{name}_uv.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES, TEXCOORD_0=np.full((4, 2), value))
        yield f"{name}_normal.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES, NORMAL=vertices)
        yield f"{name}_color.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES, COLOR_0=vertices)
    yield "zero_area.glb", files.one_part(TETRAHEDRON, [[0, 0, 1], [1, 1, 1]])
    yield "some_zero_area.glb", files.one_part(TETRAHEDRON, [[0, 0, 1], [0, 1, 2], [3, 3, 3]])
    yield "needle.glb", files.one_part([[0, 0, 0], [1, 0, 0], [0.5, 1e-38, 0]], [[0, 1, 2]])
    yield "needle_and_more.glb", files.one_part([*TETRAHEDRON, [0.5, 1e-38, 0]], [[0, 1, 4], [0, 1, 2]])
    yield "small.glb", files.one_part(TETRAHEDRON * 1e-30, TETRAHEDRON_FACES)
    yield "not_manifold.glb", files.one_part(TETRAHEDRON, [[0, 1, 2], [0, 1, 3], [1, 0, 2], [0, 1, 2]])
    yield "out_of_range.glb", files.one_part(TETRAHEDRON, [[0, 1, 4]])
    yield "far_out_of_range.glb", files.one_part(TETRAHEDRON, [[0, 1, 2**32 - 1]])
    yield "two_indices.glb", files.one_part(TETRAHEDRON, [0, 1])
    fan = np.linspace(0, 6, 30_000)
    hub = np.stack([np.cos(fan), np.sin(fan), 0 * fan], axis=-1)
    rim = np.arange(1, len(hub))
    yield "hub.glb", files.one_part([[0, 0, 1], *hub], np.stack([0 * rim, rim, rim + 1], axis=-1))


def gltf_files(folder):
    header, binary = files.two_parts()
    (folder.parent / "secret.bin").write_bytes(binary)
    text = files.gltf(header, binary, folder, external=True).decode()
    yield "good.gltf", text.encode()
    outside = [
        "../secret.bin",
        "..%2Fsecret.bin",
        str(folder.parent / "secret.bin"),
        "file:///etc/passwd",
        "C:/x.bin",
        "gone.bin",
    ]
    outside += [
        "http://localhost/x.bin",
        "..\\\\secret.bin",
        "a/../../secret.bin",
        ".",
        "",
        "x\\u0000y",
        "data:,abc",
        "data:;base64,??",
    ]
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    (folder / "a").mkdir()
    for number, uri in enumerate([*outside, "link.bin", "a" * 5000]):
        yield f"uri_{number}.gltf", text.replace("a%20buffer.bin", uri).encode()
        image = {"uri": json.loads(f'"{uri}"')}
        yield f"image_{number}.gltf", json.dumps({**json.loads(text), "images": [image]}).encode()
    yield "short.gltf", text.replace(f'"byteLength": {len(binary)}}}]', '"byteLength": 4000000000}]').encode()
    for place in range(1, len(text), len(text) // 20):
        yield f"cut_{place}.gltf", text[:place].encode()


def obj_files(folder):
    whole = files.obj()
    (folder / "outside.mtl").write_text("newmtl m\nmap_Kd ../secret.bin\n")
    (folder / "broken.mtl").write_text("newmtl m\nKd a b c\n")
    (folder / "odd.mtl").write_text("Kd 1 1 1\nnewmtl\nKd nan inf 7\nd x\n")
    bad_faces = [
        "f 1 2",
        "f 1 2 99",
        "f 0 1 2",
        "f -9 1 2",
        "f 1/1/1/1 2 3",
        "f a b c",
        "f 1//1 2//1 3//1",
        "f",
        "f 1.5 2 3",
    ]
    bad_faces += [
        "f 1/9 2/9 3/9",
        "f " + "9" * 400 + " 1 2",
        "f 1 2 3 4 1 2",
        "f -1 -2 -3",
        "f 1/ 2/ 3/",
        "f 1 1 1",
        "f 1/-1 2 3",
    ]
    for number, line in enumerate(bad_faces):
        yield f"face_{number}.obj", whole + line.encode()
        yield f"face_only_{number}.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n" + line.encode()
    bad_lines = [
        "v 1 2",
        "v 1 2 x",
        "v nan 0 0\nf 1 2 5",
        "v inf 0 0\nf 1 2 5",
        "v 1e300 0 0\nf 1 2 5",
        "v 1 2\nv 1 2 3 4",
        "vt",
        "vn 1",
    ]
    bad_lines += [
        "mtllib ../x.mtl",
        "mtllib /etc/passwd",
        "mtllib gone.mtl",
        "usemtl",
        "usemtl m",
        "mtllib",
        "v",
        "\0",
        "l 1 2",
        "# \xff",
    ]
    bad_lines += [f"mtllib {name}.mtl\nusemtl m\nf 1 2 3" for name in ("outside", "broken", "odd")]
    for number, line in enumerate(bad_lines):
        yield f"line_{number}.obj", whole + line.encode("latin-1")
    for place in range(0, len(whole), 7):
        yield f"cut_{place}.obj", whole[:place]
    yield "glb_inside.obj", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES)


def other_files():
    wholes = {f"{kind}.ply": files.ply(kind) for kind in ("ascii", "binary_little_endian", "binary_big_endian")}
    wholes |= {"ascii.stl": files.stl("ascii"), "binary.stl": files.stl("binary")}
    wholes["text.off"] = b"OFF\n4 4 0\n0 0 0\n1 0 0\n0 2 0\n0 0 3\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
    random = np.random.default_rng(1)
    for name, whole in wholes.items():
        yield f"whole_{name}", whole
        for place in range(0, len(whole), len(whole) // 12):
            yield f"cut_{place}_{name}", whole[:place]
        for turn in range(15):
            content = bytearray(whole)
            for place in random.integers(0, len(whole), 1 + turn % 3):
                content[place] = random.integers(256)
            yield f"noise_{turn}_{name}", bytes(content)
    for kind in ("ascii", "binary_little_endian"):
        whole = files.ply(kind)
        for number, (old, new) in enumerate(PLY_CHANGES):
            yield f"header_{number}_{kind}.ply", whole.replace(old.encode(), new.encode())
    yield "no_element.ply", b"ply\nformat ascii 1.0\nend_header\n"
    yield "counts.off", b"OFF\n4000000000 4000000000 0\n"
    yield "count.stl", b"\0" * 80 + b"\xff\xff\xff\xff" + b"\0" * 50
    blank = b" \n" * 500_000
    for name, start in (
        ("stl", b"solid s"),
        ("obj", b"v 0 0 0"),
        ("off", b"OFF"),
        ("gltf", b"{"),
        ("ply", b"ply\nformat ascii 1.0"),
    ):
        yield f"blank.{name}", start + blank
    large = files.ply("binary_little_endian").replace(b"list uchar int", b"list uint int")
    yield "long_list.ply", large[: -4 * 13] + b"\3\0\0\0" + b"\1\0\0\0" * 3 + b"\0\0\0\x70" * 9
    yield "nan.stl", files.stl("binary", TETRAHEDRON * np.float32(np.nan))
    yield "nan_text.stl", files.stl("ascii", TETRAHEDRON * np.float32(np.nan))


def test_every_damaged_or_odd_file_loads_validly_or_is_refused_by_name(tmp_path):
    folder = tmp_path / "assets"
    folder.mkdir()
    content = dict(itertools.chain(glb_files(), odd_glb_files(), gltf_files(folder), obj_files(folder), other_files()))
    assert len(content) >= 200
    for name, data in content.items():
        (folder / name).write_bytes(data)
    names = tmp_path / "names.json"
    names.write_text(json.dumps(list(content)))
    command = [sys.executable, __file__, str(folder), str(names)]
    tests = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert set(outcomes) == set(content)
    assert not {name: outcome for name, outcome in outcomes.items() if outcome not in ("loaded", "refused")}
    for name in ("sheet.glb", "denormal_vertex.glb", "nan_uv.glb", "nan_unused_vertex.glb", "good.gltf", "hub.glb"):
        assert outcomes[name] == "loaded", name
    for name in ("huge.glb", "zeros.glb", "sparse.glb", "cycle.glb", "instances.glb", "bomb.glb", "nan_vertex.glb"):
        assert outcomes[name] == "refused", name
    assert all(outcomes[f"{kind}_{number}.gltf"] == "refused" for kind in ("uri", "image") for number in range(16))


# --- the process that loads them --------------------------------------------------------------------------------------------


def check(asset):
    from realiz3d_jax.geometry.assets import gltf_writer
    from realiz3d_jax.geometry.render import RayScene
    from realiz3d_jax.geometry.texturing import uv_charts

    mesh, faces = asset.mesh, np.arange(len(asset.part))
    assert len(faces) == len(mesh.faces) == len(mesh.corner_normals) == len(asset.part_face) == len(asset.corner) > 0
    assert np.isfinite(mesh.vertices).all()
    assert np.abs(mesh.vertices).max() <= 0.5 + 1e-6
    assert mesh.faces.min() >= 0
    assert mesh.faces.max() < len(mesh.vertices)
    np.testing.assert_allclose(np.linalg.norm(mesh.corner_normals, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(RayScene(mesh).face_normals, axis=-1), 1, atol=1e-9)
    assert np.isfinite(mesh.scale)
    assert np.isfinite(mesh.offset).all()
    color = asset.base_color(faces, np.full((len(faces), 3), 1 / 3))
    assert color.min() >= 0
    assert color.max() <= 1
    for index, part in enumerate(asset.parts):
        mine = asset.part == index
        own = np.sort(part.faces[asset.part_face[mine]], axis=-1)
        np.testing.assert_array_equal(own, np.sort(asset.corner[mine], axis=-1))
    if len(faces) < 100:
        corners = mesh.vertices[mesh.faces].astype(np.float64)
        flat = dataclasses.replace(asset, uv=uv_charts.project(corners))
        gltf_writer.write_textured_glb(flat, np.zeros((4, 4, 3), np.uint8))


def outcome_of(path):
    from realiz3d_jax.errors import UserError
    from realiz3d_jax.geometry.assets.asset import load_asset

    def too_long(*_):
        raise TimeoutError(f"more than {SECONDS_PER_FILE} s")

    signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_FILE)
    try:
        check(load_asset(path))
        return "loaded"
    except UserError as error:
        fine = str(path) in str(error) and "MemoryError" not in str(error) and str(error).count("\n") == 0
        return "refused" if fine else f"message: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main(folder, names):
    import realiz3d_jax.geometry.assets.asset
    import realiz3d_jax.geometry.texturing.uv_charts  # noqa: F401

    warnings.simplefilter("error", RuntimeWarning)
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_FOR_A_FILE, resource.RLIM_INFINITY))
    outcomes = {name: outcome_of(pathlib.Path(folder, name)) for name in json.loads(pathlib.Path(names).read_text())}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])

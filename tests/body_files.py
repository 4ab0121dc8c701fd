"""Made-up body models and pickles of exactly the layout of SMPL, SMPL+H and 3DPW, with few vertices."""

import struct
from pathlib import Path

import numpy as np

# roughly the joints of SMPL's mean body, metres, y up, left at positive x
REST = np.array([
    (0, 0, 0), (.07, -.09, 0), (-.07, -.09, 0), (0, .11, -.02), (.10, -.47, 0), (-.10, -.47, 0), (0, .25, 0),
    (.09, -.87, -.04), (-.09, -.87, -.04), (0, .31, .02), (.11, -.93, .08), (-.11, -.93, .08), (0, .52, -.01),
    (.08, .43, -.01), (-.08, .43, -.01), (0, .61, .04), (.19, .45, -.02), (-.19, .45, -.02), (.45, .44, -.03),
    (-.45, .44, -.03), (.70, .45, -.03), (-.70, .45, -.03), (.78, .44, -.04), (-.78, .44, -.04),
])  # fmt: skip
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
# SPIN's rows: the joint of the model at which each lies
SPIN_AT = [0, 1, 4, 7, 2, 5, 8, 6, 12, 15, 15, 16, 18, 20, 17, 19, 21]


def made_up_model(joints: int = 24, shapes: int = 10, per_joint: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a model file with joints * per_joint vertices; each group of vertices lies about its joint."""
    generator = np.random.default_rng(seed)
    parents = list(PARENTS[:22]) + [20 + (joint % 2) for joint in range(22, joints)]
    rest = np.concatenate([REST[:22], REST[parents[22:]] + generator.normal(0, 0.04, (joints - 22, 3))])
    vertices = joints * per_joint
    near = np.repeat(np.arange(joints), per_joint)
    weights = np.zeros((vertices, joints))
    for vertex, joint in enumerate(near):
        some = {joint, max(parents[joint], 0), int(generator.integers(joints))}
        weights[vertex, list(some)] = generator.uniform(0.2, 1, len(some))
    regressor = np.zeros((joints, vertices))
    regressor[near, np.arange(vertices)] = generator.uniform(0.5, 1, vertices)
    table = np.array([parents, range(joints)])
    return {
        "v_template": rest[near] + generator.normal(0, 0.02, (vertices, 3)),
        "shapedirs": generator.normal(0, 0.01, (vertices, 3, shapes)),
        "posedirs": generator.normal(0, 0.01, (vertices, 3, 9 * (joints - 1))),
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": table.astype(np.uint32),  # the root's parent becomes 4294967295, as in SMPL's files
    }


def made_up_regressor(model: dict[str, np.ndarray], seed: int = 1) -> np.ndarray:
    """(17, V) in SPIN's order: each row lies about one joint, with a little of everything. The top of the head is
    extrapolated by a negative weight."""
    generator = np.random.default_rng(seed)
    per_joint = len(model["v_template"]) // model["J_regressor"].shape[0]
    rows = generator.uniform(0, 1e-3, (17, len(model["v_template"])))
    for row, joint in enumerate(SPIN_AT):
        rows[row, joint * per_joint : (joint + 1) * per_joint] += generator.uniform(0.5, 1, per_joint)
    rows /= rows.sum(axis=1, keepdims=True)
    rows[10] += 1.2 * (rows[10] - rows[8])
    return rows


def skinned(model: dict[str, np.ndarray], pose: np.ndarray, shape: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(V, 3) one posed mesh, vertex by vertex with 4 x 4 matrices, as SMPL's paper describes it."""
    from scipy.spatial.transform import Rotation

    turns = [Rotation.from_rotvec(vector).as_matrix() for vector in pose.reshape(-1, 3)]
    parents = [-1, *(int(parent) for parent in model["kintree_table"][0, 1:])]
    shaped = model["v_template"] + sum(model["shapedirs"][:, :, i] * value for i, value in enumerate(shape))
    joints = model["J_regressor"] @ shaped
    feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    posed = shaped + sum(model["posedirs"][:, :, i] * value for i, value in enumerate(feature))
    chains: list[np.ndarray] = []
    for joint, parent in enumerate(parents):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        chains.append(chains[parent] @ local if parent >= 0 else local)
    from_rest = []
    for joint, chain in enumerate(chains):
        back = np.eye(4)
        back[:3, 3] = -joints[joint]
        from_rest.append(chain @ back)
    mesh = []
    for vertex, weights in zip(posed, model["weights"], strict=True):
        moved = np.zeros(4)
        for matrix, weight in zip(from_rest, weights, strict=True):
            moved += weight * (matrix @ np.append(vertex, 1)) if weight else 0
        mesh.append(moved[:3])
    return np.array(mesh) + translation


class Old:
    """An object of Python 2, given by module, name and state."""

    def __init__(self, module: str, name: str, state: dict) -> None:
        self.module, self.name, self.state = module, name, state


def sparse(matrix: np.ndarray) -> Old:
    """A csc_matrix of an old scipy."""
    rows, columns = matrix.shape
    found = [np.flatnonzero(column) for column in matrix.T]
    return Old("scipy.sparse.csc", "csc_matrix", {
        "_shape": (rows, columns), "maxprint": 50, "format": "csc",
        "data": np.concatenate([matrix[row, column] for column, row in enumerate(found)]),
        "indices": np.concatenate(found).astype(np.int32),
        "indptr": np.cumsum([0, *map(len, found)]).astype(np.int32),
    })  # fmt: skip


def wrapped(array: np.ndarray) -> Old:
    """A chumpy.Ch with the sets that it keeps beside its array."""
    deps = {"deps": Old("__builtin__", "set", ["x"]), "value": None, "out_of_date": True}
    state = {"_dirty_vars": Old("__builtin__", "set", ["x"]), "_itr": None, "_depends_on_deps": {"r": deps}, "x": array}
    return Old("chumpy.ch", "Ch", state)


def old_pickle(value) -> bytes:
    """The value as cPickle of Python 2 wrote it with protocol 2 (texts are bytes), without a memo."""
    return b"\x80\x02" + _old(value) + b"."


def _old(value) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str | bytes):
        content = value.encode("latin1") if isinstance(value, str) else value
        short = len(content) < 256
        return (b"U" + bytes([len(content)]) if short else b"T" + struct.pack("<i", len(content))) + content
    if isinstance(value, dict):
        return b"}(" + b"".join(_old(key) + _old(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_old, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_old, value)) + b"t"
    if isinstance(value, np.ndarray):
        order = "<" if value.dtype.itemsize > 1 else "|"
        code = value.dtype.str[1:]
        dtype = b"cnumpy\ndtype\n" + _old((code, 0, 1)) + b"R" + _old((3, order, None, None, None, -1, -1, 0)) + b"b"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _old((0,)) + _old("b") + b"tR"
        content = np.asarray(value, dtype=value.dtype.newbyteorder("<")).tobytes()
        return made + b"(" + _old(1) + _old(value.shape) + dtype + _old(False) + _old(content) + b"tb"
    if value.name == "set":
        return b"c__builtin__\nset\n" + _old((value.state,)) + b"R"
    return f"c{value.module}\n{value.name}\n".encode() + b")\x81" + _old(value.state) + b"b"


def write_model(file: Path, model: dict[str, np.ndarray]) -> Path:
    """An npz, or a pkl as SMPL is distributed: with wrapped arrays, a sparse regressor and entries nobody reads."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npz":
        np.savez(file, **model, bs_style=np.array("lbs"), f=np.zeros((3, 3), np.uint32))
        return file
    content = dict(model, J_regressor=sparse(model["J_regressor"]), J_regressor_prior=sparse(model["J_regressor"]))
    for name in ("shapedirs", "posedirs", "weights", "v_template"):
        content[name] = wrapped(model[name])
    content |= {"bs_style": "lbs", "bs_type": "lrotmin", "pose_training_info": {"count": 3, "names": ["a", "\xe4"]}}
    file.write_bytes(old_pickle(content))
    return file

"""`posegrid lift`, `animate` and `export-keypoints` as a person at a terminal meets them, and what they draw."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from posegrid.datasets.keypoints.pose_files import read_poses
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.experiments.cli import main
from posegrid.experiments.drawing import movies
from posegrid.experiments.drawing.movies import drawn_frames
from posegrid.experiments.drawing.palette import hidden_words, sides_of
from posegrid.experiments.drawing.panels import Panels, limits
from posegrid.experiments.drawing.space import turned
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.settings import Settings

WALK = Path(__file__).parents[2] / "datasets" / "examples" / "walk.csv"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, output and errors of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def sampler(tmp_path: Path, lifter_settings: Settings) -> Path:
    """An untrained diffusion model of three hypotheses."""
    plain = lifter_settings.plain()
    plain["model"] = {"name": "diffhpe", "conditioning": "keypoints", "channels": 8, "blocks": 2, "steps": 4}
    plain["evaluation"] |= {"hypotheses": 3}
    settings = Settings.from_plain(plain, "test")
    shape = shape_of(H36M_17, settings.data)
    torch.manual_seed(0)
    model = checkpoint.build(settings, shape)
    about = {"hash": "", "source": "toy", "skeleton": "h36m_17", "frame_rate": 25.0}
    checkpoint.write(tmp_path / "model.pt", checkpoint.model_file(settings, shape, model.state_dict(), about))
    return tmp_path / "model.pt"


def test_from_a_store_to_an_animation(
    toy_store: Store, sampler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, poses, film = tmp_path / "piece.csv", tmp_path / "poses.parquet", tmp_path / "piece.gif"
    status, out, err = run(
        capsys, "export-keypoints", toy_store.path, table, "--seconds", 0.5, "--hide", "RWrist:0.1:0.3"
    )
    assert (status, err) == (0, "")
    assert "C/walk 1/0, 25 frames" in out
    status, out, err = run(capsys, "lift", table, "--model", sampler, "-o", poses, "--animate", film, "--seconds", 0.2)
    assert (status, err) == (0, ""), out
    lines = out.splitlines()
    assert lines[0].split() == ["video", "person", "first", "frames", "Hz", "hidden", "spread", "mm", "MPJPE", "mm"]
    assert lines[1].split()[:6] == ["walk", "1", "C", "0", "25", "50"]
    assert f"{10 / 25 / 17:.1%}" in lines[1]
    assert any(line.startswith("note: lifted at 50 frames per second, trained at 25") for line in lines)
    assert "frames 0 to 9, 5 drawn" in lines[-1]
    with Image.open(film) as opened:
        # 50 frames per second: every second one, 40 ms each
        assert (opened.n_frames, opened.info["duration"]) == (5, 40)
    rows = read_poses(poses).rows
    assert rows.hypotheses_mm is not None
    assert rows.truth_mm is not None
    assert not rows.visible[5:15, 16].any()


def test_pages_strips_and_films_of_a_pose_file(
    sampler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = tmp_path / "poses.parquet"
    assert run(capsys, "lift", WALK, "--model", sampler, "-o", poses, "--keep-hypotheses")[0] == 0
    status, out, _ = run(capsys, "animate", poses, "-o", tmp_path / "ben.html", "--person", "ben")
    assert (status, "person ben" in out) == (0, True)
    text = (tmp_path / "ben.html").read_text()
    content = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text)[1])  # type: ignore[index]
    rows = read_poses(poses, person="ben").rows
    assert content["frames"] == rows.frame.tolist()
    assert content["per_second"] == 25.0
    np.testing.assert_allclose(content["poses"], rows.poses_mm.reshape(12, -1), atol=0.5)
    np.testing.assert_allclose(content["hypotheses"], rows.hypotheses_mm.reshape(12, -1), atol=0.5)  # type: ignore[union-attr]
    assert [row.count("0") for row in content["visible"]] == (~rows.visible).sum(1).tolist()
    assert "__" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.search(r"https?://", text)
    status, out, _ = run(capsys, "animate", poses, "-o", tmp_path / "ann.png")
    assert (status, "6 drawn" in out) == (0, True)
    assert Image.open(tmp_path / "ann.png").size[0] > 1000
    monkeypatch.setattr(movies.shutil, "which", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    status, _, err = run(capsys, "animate", poses, "-o", tmp_path / "no.mp4")
    assert (status, "neither ffmpeg nor" in err, (tmp_path / "no.mp4").exists()) == (2, True, False)


def test_films_have_a_frame_for_each_drawn_one(
    sampler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        program = movies.ffmpeg()
    except ValueError:
        pytest.skip("there is no ffmpeg: pip install imageio-ffmpeg")
    poses, film = tmp_path / "poses.parquet", tmp_path / "ann.mp4"
    assert run(capsys, "lift", WALK, "--model", sampler, "-o", poses, "--animate", film, "--seconds", 0.2)[0] == 0
    said = subprocess.run([program, "-i", film, "-f", "null", "-"], capture_output=True, text=True, check=False)
    assert re.findall(r"frame=\s*(\d+)", said.stderr)[-1] == "5"


def test_a_folder_ends_with_2_if_a_file_is_broken_and_keeps_the_others(
    sampler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for ending in (".csv", ".toml"):
        (folder / f"walk{ending}").write_text(WALK.with_suffix(ending).read_text())
    (folder / "broken.json").write_text("[]")
    status, out, err = run(capsys, "lift", folder, "--model", sampler, "-o", tmp_path / "poses")
    assert status == 2
    assert "1 of 2 files could not be lifted" in err
    assert "1 of 2 files lifted, 24 poses" in out
    assert (tmp_path / "poses" / "walk.parquet").is_file()
    (folder / "broken.json").unlink()
    status, out, _ = run(capsys, "lift", folder, "--model", sampler, "-o", tmp_path / "poses")
    assert (status, "is there for the same model and options" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "poses.parquet", "--animate", "film.avi"], r"ending \.avi\. Allowed are \.mp4, \.gif, \.html, \.png"),
        (["-o", "folder", "--animate", "film.gif"], r"end --out with \.parquet"),
        (["-o", "poses.parquet", "--workers", "2"], "Allowed is a folder as --out"),
        (["-o", "folder", "--address", "auto"], "Set --workers"),
        (["-o", "poses.parquet", "--option", "gaps=refuse"], "option gaps = 'refuse' of lifting is unknown"),
        (["-o", "poses.parquet", "--home", "nowhere", "--model", "mixste_27 on none"], "no results at"),
    ],
)
def test_mistakes_end_with_2(
    sampler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    given = ["--model", sampler, *[tmp_path / each if "." in each and "=" not in each else each for each in arguments]]
    status, _, err = run(capsys, "lift", WALK, *given)
    assert (status, "Traceback" in err) == (2, False)
    assert re.search(says, err), err
    assert not list(tmp_path.glob("poses*"))


def test_films_play_at_the_speed_of_the_clip() -> None:
    for rate, step in ((25.0, 1), (30.0, 1), (29.97, 1), (50.0, 2), (60.0, 2), (120.0, 4)):
        frames, per_second = drawn_frames(100, rate)
        assert (len(frames), per_second) == (len(range(0, 100, step)), pytest.approx(rate / step))


def test_sides_and_words() -> None:
    sides = sides_of(H36M_17)
    assert [H36M_17.joints[joint] for joint in np.flatnonzero(sides["middle"])] == [
        "Hip", "Spine", "Thorax", "Neck", "Head",
    ]  # fmt: skip
    assert sides["left"].sum() == sides["right"].sum() == 6
    hidden = np.zeros(17, dtype=bool)
    assert hidden_words(hidden, H36M_17) == "nothing hidden"
    hidden[[2, 3, 16]] = True
    assert hidden_words(hidden, H36M_17, 2) == "hidden: RKnee, RFoot and 1 more"
    assert hidden_words(~np.zeros(17, dtype=bool), H36M_17) == "all joints hidden"


def test_panels_show_every_joint_where_it_is(sampler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poses = tmp_path / "poses.parquet"
    assert run(capsys, "lift", WALK, "--model", sampler, "-o", poses, "--keep-hypotheses")[0] == 0
    clip = read_poses(poses)
    panels = Panels(clip)
    hidden = int(np.flatnonzero(~clip.rows.visible.all(axis=1))[0])
    panels.show(hidden)
    shown = clip.rows.poses_mm[hidden]
    joints = clip.rows.visible[hidden]
    for axis, points in ((panels.figure.axes[1], turned(shown)), (panels.figure.axes[2], shown[:, [2, 1]])):
        lines = [line for line in axis.lines if line.get_marker() == "o"]
        data = [np.stack(line.get_data(), -1) for line in lines]
        solid = [each for line, each in zip(lines, data, strict=True) if line.get_markerfacecolor() != "white"]
        hollow = [each for line, each in zip(lines, data, strict=True) if line.get_markerfacecolor() == "white"]
        for found, wanted in ((solid, points[joints]), (hollow, points[~joints])):
            together = np.concatenate(found)
            np.testing.assert_allclose(np.sort(together, axis=0), np.sort(wanted, axis=0), rtol=1e-6)
    corner = np.array([[0.0, 0, 0], [1000, 0, 0], [0, 1000, 0], [0, 0, 1000]])
    across, down = turned(corner).T
    # to the right, down, and away: up and to the right, as seen from right above the camera
    assert across[1] > across[3] > 0 == across[2]
    assert down[2] > 900 > down[1] > 0 > down[3]
    low, high = limits(clip)
    assert (clip.rows.poses_mm >= low).all()
    assert (clip.rows.poses_mm <= high).all()
    assert panels.figure.axes[2].get_aspect() == 1.0
    assert panels.figure.axes[0].yaxis_inverted()
    assert panels.figure.axes[2].yaxis_inverted()

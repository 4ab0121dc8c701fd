"""One worked example for the help of every verb; `cli` puts them there, tests parse each of them."""

import typer

EXAMPLES = {
    "prepare": "posegrid prepare synthetic --out data/synthetic --option seconds=5.0",
    "fetch": "posegrid fetch cmu --subjects 01,02 --out data/raw/cmu",
    "export": "posegrid export data/cmu data/cmu_parquet",
    "publish": "posegrid publish data/cmu s3://BUCKET/cmu",
    "import-checkpoint": "posegrid import-checkpoint videopose3d_243 pretrained_h36m_cpn.bin",
    "export-model": "posegrid export-model RUN_ID --out lifter.pt2",
    "lift": "posegrid lift walk.json --model model.pt -o poses.parquet --width 1920 --height 1080 --frame-rate 30",
    "animate": "posegrid animate poses.parquet -o walk.html",
    "export-keypoints": "posegrid export-keypoints data/synthetic walk.csv --seconds 4 --hide RWrist:1:2",
    "package": 'posegrid package "mixste_27 on none"',
    "register": 'posegrid register "mixste_27 on none" --name lifter --alias champion',
    "complexity": "posegrid complexity mixste_27 diffhpe_wrapper --repetitions 5",
    "analyse speed": "posegrid analyse speed RUN --data data/cmu",
    "submit": "posegrid submit -- grid small --data s3://BUCKET/cmu --storage s3://BUCKET/state",
    "analyse strides": "posegrid analyse strides RUN --data data/cmu --short 4 --long 20",
    "study-samplers": "posegrid study-samplers RUN --data data/cmu",
    "search": "posegrid search mlp --data data/synthetic --trials 8 --out best.toml",
    "plan": "posegrid plan diffhpe_cross_domain --as h36m --gpus-per-worker 1 --gpus 8",
    "reproduce": "posegrid reproduce diffhpe-table4 --scale small --dry-run",
    "train": "posegrid train mixste_27 --data data/h36m --occlusion leg_run --set training.lr=2e-4",
    "grid": "posegrid grid demo --data data/synthetic",
    "evaluate": "posegrid evaluate RUN_ID --data data/cmu --occlusion arm_leg --log",
    "report": "posegrid report demo-synthetic --out report",
    "check": "posegrid check data data/cmu",
    "ui": "posegrid ui --home runs",
}
"""Verb (group and verb) -> command. Words in capitals stand for names of one's own."""


def with_examples(app: typer.Typer, before: str = "") -> None:
    """Add each verb's example to the end of its help."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        if f"{before}{name}" in EXAMPLES:
            command.epilog = f"\b\nExample:\n  {EXAMPLES[before + name]}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            with_examples(group.typer_instance, f"{group.name} ")

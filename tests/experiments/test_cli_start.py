"""The command line answers at once: help and mistakes in the arguments load nothing that is slow to load."""

import subprocess
import sys
import textwrap


def test_help_and_usage_errors_import_nothing_that_is_slow() -> None:
    code = """
        import gc, io, sys
        from contextlib import redirect_stderr, redirect_stdout

        import click, typer
        from posegrid.experiments.cli import app, main

        def slow():
            heavy = {"torch", "mlflow", "ray", "pyarrow", "numpy", "matplotlib", "scipy", "optuna", "requests"}
            return heavy & set(sys.modules)

        assert not slow(), slow()
        group = typer.main.get_command(app)
        verbs = [("", group), *group.commands.items(), *group.commands["analyse"].commands.items()]
        for name, command in verbs:
            assert "--help" in command.get_help(click.Context(command, info_name=name)), name
        for words, status in ((["--help"], 0), (["grid", "--help"], 0), (["grid"], 2), (["grids"], 2)):
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                try:
                    main(words)
                except SystemExit as ended:
                    assert (ended.code or 0) == status, (words, ended.code)
        assert len(verbs) > 25
        assert gc.get_threshold() == (50_000, 20, 50)
        assert not slow(), slow()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)

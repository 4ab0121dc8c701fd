"""`posegrid submit` and `posegrid ui`: work on a cluster from the machine you sit at, look at results."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import say
from posegrid.experiments.command_options import Home

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.orchestration.launch.jobs import Jobs

Cluster = Annotated[
    Path | None, typer.Option("--cluster", help="The file that `ray up` was given: a tunnel to its head is opened.")
]
DEFAULT_CLUSTER = Path("cluster.yaml")


def submit(
    command: Annotated[
        list[str] | None, typer.Argument(help="After --: a posegrid command and its options: grid demo --data ...")
    ] = None,
    cluster: Cluster = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Instead: a dashboard's address, such as http://127.0.0.1:8265.")
    ] = None,
    wheel: Annotated[
        Path | None, typer.Option("--wheel", help="Send this wheel instead of that of the working tree.")
    ] = None,
    attach: Annotated[str | None, typer.Option("--attach", help="Follow this job instead of submitting one.")] = None,
    stop: Annotated[str | None, typer.Option("--stop", help="End this job instead of submitting one.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--detach", help="Show the log until the end, or leave.")] = True,
) -> None:
    """Run a posegrid command on a cluster with the code of this working tree, and follow its log."""
    _check(command, cluster, address, attach, stop)
    from posegrid.orchestration.launch.cluster import cluster_environment
    from posegrid.orchestration.launch.jobs import Jobs

    with cluster_environment(), _dashboard(cluster, address) as (dashboard, options):
        jobs = Jobs(dashboard)
        if stop is not None:
            jobs.stop(stop)
            say(f"job {stop} is asked to end. What it finished is kept: submit the command again to continue.")
            return
        job = attach or _send(jobs, command or [], wheel)
        again = f"posegrid submit {options} --attach {job}"
        if not follow:
            say(f"job {job} runs. Follow it with: {again}")
            return
        try:
            ended = jobs.follow(job, lambda text: typer.echo(text, nl=False))
        except KeyboardInterrupt:
            say(f"\njob {job} goes on. Come back with: {again}\nEnd it with: posegrid submit {options} --stop {job}")
            raise typer.Exit(130) from None
        except ConnectionError as error:
            say(f"\n{error}; job {job} may still run. Come back with: {again}")
            raise typer.Exit(1) from None
    say(f"job {job}: {ended.status}" + (f" ({ended.message.splitlines()[0]})" if ended.exit_status == 1 else ""))
    raise typer.Exit(ended.exit_status)


def ui(
    home: Home = Path("runs"),
    port: Annotated[int, typer.Option("--port", help="Port on localhost.")] = 5000,
    cluster: Cluster = None,
    dashboard: Annotated[
        int, typer.Option("--dashboard-port", help="With --cluster: port on localhost for Ray's dashboard.")
    ] = 8265,
) -> None:
    """Show the MLflow UI on localhost: of the results under --home, or with --cluster of a cluster."""
    if cluster is not None:
        open_ui(cluster, port, dashboard, say)
        return
    from posegrid.orchestration.tracking_pages import serve_ui

    serve_ui(home, port, say)


def open_ui(cluster: Path, port: int, dashboard: int, say: Callable[[str], None]) -> None:
    """Tunnel MLflow and the dashboard of a cluster to localhost until interrupted.

    Raises ValueError if a port is taken or the head cannot be reached.
    """
    from posegrid.orchestration.launch.cluster import cluster_environment, mlflow_login
    from posegrid.orchestration.launch.tunnel import DASHBOARD, MLFLOW, free_port, head_of, private_address, tunnel

    for wanted, option in ((port, "--port"), (dashboard, "--dashboard-port")):
        if free_port(wanted) != wanted:
            raise ValueError(f"port {wanted} is taken. Choose another one with {option}.")
    with cluster_environment():
        head = head_of(cluster)
        inside = private_address(head)
        with tunnel(head, {port: (inside, MLFLOW), dashboard: ("127.0.0.1", DASHBOARD)}) as process:
            user, password = mlflow_login()
            say(f"MLflow: http://127.0.0.1:{port}   (user {user}, password {password})")
            say(f"Ray dashboard: http://127.0.0.1:{dashboard}   (it asks for the token in ~/.ray/auth_token)")
            say("Ctrl-C ends both.")
            with contextlib.suppress(KeyboardInterrupt):
                while process.poll() is None:
                    time.sleep(0.5)
                raise ConnectionError(f"the tunnel to {head.address} ended: the head is gone, or the network")


def _check(
    command: list[str] | None, cluster: Path | None, address: str | None, attach: str | None, stop: str | None
) -> None:
    if cluster is not None and address is not None:
        raise ValueError(f"--cluster {cluster} and --address {address} were both given. Allowed: one. Leave one out.")
    given = [name for name, value in (("a command", command), ("--attach", attach), ("--stop", stop)) if value]
    if len(given) != 1:
        raise ValueError(
            f"{' and '.join(given) or 'nothing'} was given to `posegrid submit`. Allowed: one of a command after --, "
            "--attach JOB and --stop JOB. For instance: posegrid submit -- grid demo --data s3://BUCKET/h36m"
        )
    if command and "--address" in command:
        raise ValueError(
            "--address was given in the command to submit, which runs on the cluster already. Leave it out there."
        )


@contextmanager
def _dashboard(cluster: Path | None, address: str | None) -> Iterator[tuple[str, str]]:
    """Address of the dashboard, and the options that lead there again."""
    from posegrid.orchestration.launch.tunnel import DASHBOARD, free_port, head_of, tunnel

    if address is not None:
        yield address, f"--address {address}"
        return
    file = cluster or DEFAULT_CLUSTER
    port = free_port()
    with tunnel(head_of(file), {port: ("127.0.0.1", DASHBOARD)}):
        yield f"http://127.0.0.1:{port}", f"--cluster {file}"


def _send(jobs: "Jobs", command: list[str], wheel: Path | None) -> str:
    """Pack and submit; returns the job's id."""
    from posegrid.orchestration.launch.wheel import build_wheel, pack, working_tree

    root = working_tree()
    if wheel is None and root is None:
        raise ValueError(
            "this posegrid was installed from a wheel, so there is no working tree to build another one from. Give the "
            "wheel to send with --wheel, or install posegrid with `make setup` in a clone."
        )
    with tempfile.TemporaryDirectory(prefix="posegrid-submit-") as scratch:
        if wheel is None:
            assert root is not None
            say(f"building the wheel of {root}")
            wheel = build_wheel(root, Path(scratch) / "wheel")
        named = [word for word in command if word.endswith(".toml") and Path(word).is_file()]
        folder = Path(scratch) / "job"
        placed = pack(wheel, named, folder)
        job = jobs.submit([placed.get(word, word) for word in command], folder)
    say(f"submitted {wheel.name} as job {job}")
    return job

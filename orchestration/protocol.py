"""How a model is scored, in a few words: numbers under unlike protocols are not comparable."""

from posegrid.orchestration.settings import Settings


def scoring_protocol(settings: Settings) -> str:
    """The protocol of [evaluation] and of `data.tail`, such as "centre frame, flip-averaged".

    Names whatever changes a score for the same predictions, and who sees which window; what is as usual is not said.
    The window's length and the number of hypotheses belong to the model and are left out.
    """
    chosen = settings.evaluation
    words = [{"window": "whole windows", "centre": "centre frame", "overlap": "overlapping windows"}[chosen.score]]
    if chosen.score == "overlap":
        words.append(f"{overlap_shift(settings)} of {settings.data.frames} frames apart")
    if chosen.lift_every > 1:
        words.append(f"1 frame of {chosen.lift_every} lifted")
    if settings.data.tail != "keep":
        words.append({"drop": "tails dropped", "overlap": "last window overlaps"}[settings.data.tail])
    if chosen.every > 1:
        words.append(f"1 window of {chosen.every} scored")
    if chosen.flip:
        words.append("flip-averaged")
    if chosen.zero_root:
        words.append("root at zero")
    if chosen.shoulder_parent != "Spine":
        words.append(f"shoulders on {chosen.shoulder_parent}")
    if chosen.ddof != 1:
        words.append(f"deviation over L - {chosen.ddof}" if chosen.ddof else "deviation over L")
    if chosen.aggregation.endswith(("_oracle", "_true_root")):
        words.append(f"{chosen.aggregation}, which reads the truth")
    if chosen.seed:
        words.append(f"masks of seed {chosen.seed}")
    return ", ".join(words)


def window_words(settings: Settings) -> str:
    """Frames of a window and how far apart they are: "27", or "41 x 2" where every second stored frame is one."""
    data = settings.data
    return f"{data.frames} x {data.stride}" if data.stride > 1 else f"{data.frames}"


def overlap_shift(settings: Settings) -> int:
    """Frames from one overlapping window to the next (`evaluation.shift`).

    Raises ValueError if windows would miss some.
    """
    shift, frames = settings.evaluation.shift, settings.data.frames
    if shift > frames:
        raise ValueError(
            f"evaluation.shift = {shift} (recipe {settings.name}), but windows have data.frames = {frames}: frames "
            f"between them would not be lifted. Allowed are 1 to {frames}, and 0 for half a window: lower it."
        )
    return shift or max(frames // 2, 1)

"""A search for the best settings on Ray Tune, which stops trials early that are worse than others were at their age.

Ray's own bookkeeping is not relied on: which trials there are follows from the configuration, the space and the seed,
and what became of each is in its run folder. So a search can be killed at any moment and gone on with.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nmt.cluster.results import write_results
from nmt.cluster.session import Share, import_ray, noticed_signals, ray_session, settle
from nmt.cluster.space import Space, read_space
from nmt.cluster.trials import FAILED, STOPPED, UNFINISHED, Trial, plan
from nmt.config.schema import Config
from nmt.config.yaml_lines import read_yaml, write_yaml
from nmt.errors import InterruptionError, UserError
from nmt.evaluation.metrics import check_languages
from nmt.files import atomic_write, discard, folder_lock

RETRIES = 2  # of a trial whose worker died; it goes on from its last checkpoint
REDUCTION = 3  # of the trials at each rung, one in so many goes on
LONGEST = 10**6  # validations; a trial ends by its own limits long before


def tune(
    config: Config,
    space_file: Path,
    *,
    folder: Path | None = None,
    trials: int = 20,
    grace: int = 2,
    workers: int | None = None,
    address: str | None = None,
    announce: Callable[[str], None] = print,
) -> Path | None:
    """Trains trials with settings drawn from a space, or goes on with a search, and writes what it has found.

    Args:
        config: what all trials have in common.
        space_file: what they differ in.
        folder: of the search, seen by all workers; None is the configuration's run_dir with "-tune" after it.
        trials: how many, those of an earlier start counted.
        grace: validations that every trial is given (Li et al. 2020, ASHA's smallest resource).
        workers: trials at a time; None is one for each GPU, or else one for every four cores.
        address: of a Ray cluster; None starts a Ray on this machine.
        announce: prints a line.

    Returns:
        The run folder of the best trial; None where none was validated.

    Raises:
        UserError: configuration, space or folder do not allow it.
        InterruptionError: a signal came; the table of what there is is written.
    """
    if config.run_dir is None:
        raise UserError("run_dir: nothing given, expected the folder of the run.")
    for warning in check_languages(config.data.source_language, config.data.target_language):
        announce(f"Warning: {warning}")
    folder = folder or config.run_dir.with_name(f"{config.run_dir.name}-tune")
    space = read_space(space_file)
    planned = plan(config, space, folder, name=str(space_file), trials=trials)
    if len(planned) < trials:
        announce(f"The space has no more than {len(planned)} different trials.")
    import_ray()  # a missing Ray is told before a folder is made
    with folder_lock(folder, doing="at work"):
        _keep_to(folder, config, space)
        missing = [trial for trial in planned if trial.ended()[0] == UNFINISHED]
        before = f", {len(planned) - len(missing)} of them ended before" if len(missing) < len(planned) else ""
        announce(f"{len(planned)} trials in {folder}{before}.")
        discard(folder / ".ray")
        with noticed_signals() as notice:
            try:
                if missing:
                    _search(planned, missing, folder, grace=grace, workers=workers, address=address, announce=announce)
            except (KeyboardInterrupt, SystemExit):
                write_results(folder, planned, config, announce)
                raise InterruptionError(
                    f"Interrupted; the table of what there is is {folder / 'trials.md'}. The same command goes on.",
                    notice.signal_number,
                ) from None
            finally:
                discard(folder / ".ray")
        best = write_results(folder, planned, config, announce)
    return best.folder if best else None


def _keep_to(folder: Path, config: Config, space: Space) -> None:
    """Writes down what is searched, so that no search is gone on with as another.

    Raises:
        UserError: the folder holds a search of another configuration or space.
    """
    record = folder / "search.yaml"
    searched = {"space": {key: str(one) for key, one in space.items()}, "configuration": config.model_dump(mode="json")}
    if record.is_file():
        before, _ = read_yaml(record.read_text(encoding="utf-8"), str(record))
        changed = [part for part in searched if before.get(part) != searched[part]]
        if changed:
            raise UserError(
                f"The search in {folder} was begun with another {' and '.join(changed)}, as {record} says. Go on with "
                "that, or choose another folder with --into."
            )
        return
    with atomic_write(record) as aside:
        aside.write_text(write_yaml(searched), encoding="utf-8")


def _search(
    planned: list[Trial],
    missing: list[Trial],
    folder: Path,
    *,
    grace: int,
    workers: int | None,
    address: str | None,
    announce: Callable[[str], None],
) -> None:
    with ray_session(address, workers=workers, announce=announce) as session:
        share = session.share(len(missing))
        session.announce(f"Training {len(missing)} with {share}.")
        tune = importlib.import_module("ray.tune")
        tune.Tuner(
            tune.with_resources(_trainable(missing, share), {"cpu": share.threads, "gpu": share.gpus}),
            param_space={"trial": tune.grid_search([trial.number for trial in missing])},
            tune_config=tune.TuneConfig(
                scheduler=_scheduler(tune, [trial for trial in planned if trial not in missing], grace),
                max_concurrent_trials=share.workers,
                reuse_actors=False,  # each trial has a fresh process, as `nmt train` has
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str((folder / ".ray").absolute()),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_watch(tune, {trial.number: trial for trial in missing}, _Here(session.announce))],
            ),
        ).fit()


def _trainable(trials: list[Trial], share: Share) -> Callable[[dict[str, Any]], None]:
    by_number = {trial.number: trial for trial in trials}
    here = str(Path.cwd())

    def train(drawn: dict[str, Any]) -> None:
        settle(here, share.threads, gpu=share.gpus > 0)
        from nmt.cluster.trial_run import run_trial  # not before: it brings Keras

        run_trial(by_number[drawn["trial"]], importlib.import_module("ray.tune").report)

    return train


def _scheduler(tune: Any, ended: list[Trial], grace: int) -> Any:
    """Asynchronous successive halving (Li et al. 2020), which is told of the trials that ended at an earlier start."""
    schedulers = importlib.import_module("ray.tune.schedulers")
    scheduler = schedulers.ASHAScheduler(
        time_attr="validations",
        metric="score",
        mode="max",
        grace_period=grace,
        reduction_factor=REDUCTION,
        max_t=max(LONGEST, grace),
    )
    for trial in ended:
        known: Any = SimpleNamespace(trial_id=trial.name)
        scheduler.on_trial_add(None, known)
        for number, validated in enumerate(trial.validations(), start=1):
            score = validated.score(trial.config.training.best_by)
            scheduler.on_trial_result(None, known, {"validations": number, "score": score})
    return scheduler


class _Here:
    """A function of this process: Ray pickles all that it is given, also what it only calls here."""

    def __init__(self, function: Callable[[str], None]):
        self.function = function

    def __call__(self, line: str) -> None:
        self.function(line)

    def __reduce__(self) -> tuple:
        return _Here, (print,)


def _watch(tune: Any, trials: dict[int, Trial], announce: Callable[[str], None]) -> Any:
    """Tells of validations and ends, and writes down the ends that the trials themselves cannot."""

    def of(ray_trial: Any) -> Trial:
        return trials[ray_trial.config["trial"]]

    class Watch(tune.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **_: Any) -> None:
            announce(
                f"{of(trial).name} · update {result['update']:,} · BLEU {result['bleu']:.2f} · "
                f"perplexity {result['perplexity']:.2f}"
            )

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
            # The scheduler's stop ends the process before it could say so.
            self._end(of(trial), STOPPED)

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
            self._end(of(trial), FAILED, "its worker ended, or met a defect; log.txt has its last words")

        def _end(self, trial: Trial, ended: str, why: str = "") -> None:
            if trial.ended()[0] == UNFINISHED:
                trial.end(ended, why)
            announce(f"{trial.name} · {': '.join(filter(None, trial.ended()))}")

    return Watch()

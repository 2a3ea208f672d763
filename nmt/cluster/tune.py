"""Searches for the best settings with Ray Tune, which stops trials early that are worse than others at the same age.

The search does not rely on Ray's own records. Its trials follow from the configuration, the space and the seed, and the
result of each is in its run folder. So a search can be killed at any moment and resumed.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nmt.cluster.results import write_results
from nmt.cluster.session import WorkerResources, import_ray, open_session, set_up_worker
from nmt.cluster.space import Space, read_space
from nmt.cluster.trials import FAILED, STOPPED, UNFINISHED, Trial, plan_trials
from nmt.config.schema import Config
from nmt.config.yaml_lines import read_yaml, write_yaml
from nmt.data.corpus import read_lines
from nmt.errors import InterruptionError, UserError
from nmt.evaluation.metrics import check_languages
from nmt.files import atomic_write, discard, folder_lock
from nmt.signals import record_signals

RECORD = "search.yaml"
RETRIES = 2  # restarts of a trial whose worker died; it resumes from its last checkpoint
REDUCTION = 3  # one trial in three continues beyond each rung
LONGEST = 10**6  # validations per trial; its own limits end it long before


def tune(
    config: Config,
    space_file: Path,
    *,
    folder: Path | None = None,
    trials: int = 20,
    grace: int = 2,
    workers: int | None = None,
    address: str | None = None,
    log: Callable[[str], None] = print,
) -> Path | None:
    """Trains trials with settings drawn from a space, or resumes a search, and writes the results.

    Args:
        config: the configuration that all trials share.
        space_file: YAML file of the values that trials choose from.
        folder: folder of the search, which all workers must see; None means run_dir with "-tune" added.
        trials: number of trials, including those of an earlier run of the search.
        grace: validations before a trial may be stopped (ASHA's minimum resource, Li et al. 2020).
        workers: number of trials at a time; None means one per GPU or, without GPUs, one per four cores.
        address: address of a Ray cluster; None starts Ray on this machine.
        log: prints a line.

    Returns:
        The run folder of the best trial; None if no trial was validated.

    Raises:
        UserError: the configuration, the space or the folder cannot be used.
        InterruptionError: a signal arrived; the table of results so far is written.
    """
    if config.run_dir is None:
        raise UserError("run_dir: expected the folder of the run, found nothing.")
    for target in config.target_languages:
        for warning in check_languages(config.data.source_language, target):
            log(f"Warning: {warning}")
    folder = folder or config.run_dir.with_name(f"{config.run_dir.name}-tune")
    space = read_space(space_file)
    planned = plan_trials(config, space, folder, name=str(space_file), trials=trials)
    if len(planned) < trials:
        log(f"The space has only {len(planned)} different trials.")
    import_ray()  # fails before a folder is made if Ray is missing
    with folder_lock(folder, doing="searching", provisional=[RECORD]):
        _check_record(folder, config, space)
        missing = [trial for trial in planned if trial.read_end()[0] == UNFINISHED]
        before = f", {len(planned) - len(missing)} of them already ended" if len(missing) < len(planned) else ""
        log(f"{len(planned)} trials in {folder}{before}.")
        discard(folder / ".ray")
        with record_signals() as flag:
            try:
                if missing:
                    _search(planned, missing, folder, grace=grace, workers=workers, address=address, log=log)
            except (KeyboardInterrupt, SystemExit):
                write_results(folder, planned, config, log)
                raise InterruptionError(
                    f"Interrupted. Results so far are in {folder / 'trials.md'}; run the same command to resume.",
                    flag.signal_number,
                ) from None
            finally:
                discard(folder / ".ray")
        best = write_results(folder, planned, config, log)
    return best.folder if best else None


def _check_record(folder: Path, config: Config, space: Space) -> None:
    """Checks, or records, what is searched, so that a search is only resumed as itself.

    A search that began no trial may be corrected.

    Raises:
        UserError: the folder holds a search with another configuration or space.
    """
    record = folder / RECORD
    searched = {"space": {key: str(one) for key, one in space.items()}, "configuration": config.model_dump(mode="json")}
    if record.is_file() and any(folder.glob("trial-*")):
        before, _ = read_yaml("\n".join(read_lines(record)), str(record))
        if not isinstance(before, dict):
            raise UserError(f"{record} is damaged: expected the space and the configuration of the search.")
        changed = [part for part in searched if before.get(part) != searched[part]]
        if changed:
            raise UserError(
                f"The search in {folder} was started with another {' and '.join(changed)}; see {record}. Resume it "
                "with the same, or choose another folder with --into."
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
    log: Callable[[str], None],
) -> None:
    with open_session(address, workers=workers, log=log) as session:
        resources = session.allocate(len(missing))
        session.log(f"Training {len(missing)} trials on {resources}.")
        tune = importlib.import_module("ray.tune")
        tune.Tuner(
            tune.with_resources(_make_trainable(missing, resources), {"cpu": resources.threads, "gpu": resources.gpus}),
            param_space={"trial": tune.grid_search([trial.number for trial in missing])},
            tune_config=tune.TuneConfig(
                scheduler=_make_scheduler(tune, [trial for trial in planned if trial not in missing], grace),
                max_concurrent_trials=resources.workers,
                reuse_actors=False,  # each trial gets a new process, like `nmt train`
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str((folder / ".ray").absolute()),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                callbacks=[
                    _make_callback(tune, {trial.number: trial for trial in missing}, _LocalFunction(session.log))
                ],
            ),
        ).fit()


def _make_trainable(trials: list[Trial], resources: WorkerResources) -> Callable[[dict[str, Any]], None]:
    by_number = {trial.number: trial for trial in trials}
    here = str(Path.cwd())

    def train(drawn: dict[str, Any]) -> None:
        set_up_worker(here, resources.threads, gpu=resources.gpus > 0)
        from nmt.cluster.trial_run import run_trial  # imports Keras, which must not happen before

        run_trial(by_number[drawn["trial"]], importlib.import_module("ray.tune").report)

    return train


def _make_scheduler(tune: Any, ended: list[Trial], grace: int) -> Any:
    """Returns asynchronous successive halving (Li et al. 2020) that knows the trials which ended in an earlier run."""
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
        for number, validated in enumerate(trial.read_validations(), start=1):
            score = validated.score(trial.config.training.best_by)
            scheduler.on_trial_result(None, known, {"validations": number, "score": score})
    return scheduler


class _LocalFunction:
    """A function that is called in this process only, although Ray pickles it with everything else."""

    def __init__(self, function: Callable[[str], None]):
        self.function = function

    def __call__(self, line: str) -> None:
        self.function(line)

    def __reduce__(self) -> tuple:
        return _LocalFunction, (print,)


def _make_callback(tune: Any, trials: dict[int, Trial], log: Callable[[str], None]) -> Any:
    """Returns a callback that logs validations and ends, and records the ends that trials cannot record themselves."""

    def find(ray_trial: Any) -> Trial:
        return trials[ray_trial.config["trial"]]

    class Callback(tune.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **_: Any) -> None:
            log(
                f"{find(trial).name} · update {result['update']:,} · BLEU {result['bleu']:.2f} · "
                f"perplexity {result['perplexity']:.2f}"
            )

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
            # The scheduler ends the process of a stopped trial before that could record it.
            self._record_end(find(trial), STOPPED)

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **_: Any) -> None:
            self._record_end(find(trial), FAILED, "its worker died or failed; see log.txt")

        def _record_end(self, trial: Trial, ended: str, why: str = "") -> None:
            if trial.read_end()[0] == UNFINISHED:
                trial.record_end(ended, why)
            log(f"{trial.name} · {': '.join(filter(None, trial.read_end()))}")

    return Callback()

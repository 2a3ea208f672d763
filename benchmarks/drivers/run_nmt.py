"""Trains and translates with nmt: python run_nmt.py JOB.json."""

import time
from pathlib import Path
from typing import Any

import yaml
from reporting import PassClock, UpdateClock, read_job, read_lines, write_lines, write_report


def train(job: dict) -> None:
    """Runs `nmt.train`, and times each update."""
    from nmt.config.file import load_config
    from nmt.training.run_log import RunLog
    from nmt.training.train import train as train_model

    clock = UpdateClock()
    log = RunLog.record_update

    def record_and_tick(
        self: RunLog, update: int, epoch: int, learning_rate: float, outcome: Any, *, num_tokens: int
    ) -> None:
        log(self, update, epoch, learning_rate, outcome, num_tokens=num_tokens)
        clock.tick(num_tokens)

    RunLog.record_update = record_and_tick  # type: ignore[method-assign]
    config = Path(job["model"]).with_suffix(".yaml")
    config.write_text(yaml.safe_dump(make_configuration(job)), encoding="utf-8")
    train_model(load_config(config, job["overrides"]))
    write_report(job, updates=clock.updates)


def translate(job: dict) -> None:
    """Runs `Translator` on plain lines."""
    translator = open_translator(job)
    clock = PassClock()
    write_lines(job["output"], clock.run(translator.translate, read_lines(job["source"]), job["passes"]))
    write_report(job, **clock.report())


def translate_one_by_one(job: dict) -> None:
    """Times each line by itself, after a first round over all lines that may compile."""
    translator = open_translator(job)
    lines = read_lines(job["source"])
    seconds = []
    for measured in (False, True):
        for line in lines:
            started = time.perf_counter()
            translator.translate([line])
            if measured:
                seconds.append(time.perf_counter() - started)
    write_report(job, seconds=seconds)


def measure_imports(job: dict) -> None:
    """Times the imports that a command needs before it can translate."""
    started = time.perf_counter()
    import nmt.backend

    framework = time.perf_counter() - started
    import nmt.translators.model  # noqa: F401

    write_report(job, framework=framework, toolkit=time.perf_counter() - started - framework)


def open_translator(job: dict) -> Any:
    """Opens the model or its export, with the beam size and the batch size of the job."""
    from nmt.decoding import grouping
    from nmt.translators.opening import find_kind
    from nmt.translators.opening import open_translator as open_any

    model = Path(job["model"])
    translator = open_any(model, beam_size=job["beam_size"])
    if not find_kind(model).fixed:
        if batch := job["training"]["batch_sentences"]:
            grouping.MAX_QUERIES = batch * job["beam_size"]
        translator = translator.with_settings(max_length=job["training"]["max_length"], **job.get("decoding", {}))
    return translator


def make_configuration(job: dict) -> dict:
    """Builds the configuration of nmt from the sizes and settings of the job. Other keys keep their defaults."""
    sizes, training = job["sizes"], job["training"]

    def name_side(prefix: str) -> dict:
        return {"source": f"{prefix}.{job['source_language']}", "target": f"{prefix}.{job['target_language']}"}

    return {
        "run_dir": job["model"],
        "seed": job["seed"],
        "data": {
            "source_language": job["source_language"],
            "target_language": job["target_language"],
            "train": [name_side(job["train"])],
            "dev": name_side(job["dev"]),
            "cache": job["cache"],
        },
        "tokenizer": {"source_model": job["tokenizer"], "target_model": job["tokenizer"]},
        "model": {
            "embedding_units": sizes["embedding_units"],
            "encoder_units": 2 * sizes["encoder_units"],
            "decoder_units": sizes["decoder_units"],
            "embedding_dropout": training["dropout"],
            "layer_dropout": training["dropout"],
            "output_dropout": training["dropout"],
        },
        "training": {
            "batch_by": "sentences",
            "batch_size": training["batch_sentences"],
            "learning_rate": training["learning_rate"],
            "label_smoothing": training["label_smoothing"],
            "clip_norm": training["clip_norm"],
            "max_updates": job["updates"],
            "validate_every": 1_000_000_000,
            "checkpoint_every": 1_000_000_000,
            "tensorboard": False,
        },
    }


if __name__ == "__main__":
    job = read_job()
    tasks = {"train": train, "translate": translate, "one_by_one": translate_one_by_one, "importing": measure_imports}
    tasks[job["task"]](job)

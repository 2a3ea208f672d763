"""Trains and translates with OpenNMT-py, inside its own environment: python run_opennmt_py.py JOB.json."""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from reporting import PassClock, UpdateClock, read_job, read_lines, write_lines, write_report

# Since version 2.6, PyTorch refuses pickled objects by default. These weight files are our own.
_load = torch.load
torch.load = lambda *args, **kwargs: _load(*args, **{"weights_only": False, **kwargs})


def train(job: dict) -> None:
    """Runs OpenNMT-py's own training, and times each update."""
    from onmt.trainer import Trainer

    clock = UpdateClock()
    learn = Trainer._gradient_accumulation

    def learn_and_tick(self: Trainer, batches: list, *args: object) -> None:
        learn(self, batches, *args)
        # The first position is BOS.
        padding = self.train_loss.padding_idx
        clock.tick(sum(batch["tgt"][:, 1:, 0].ne(padding).sum().item() for batch in batches))

    Trainer._gradient_accumulation = learn_and_tick
    run_training(job, make_configuration(job))
    write_report(job, updates=clock.updates)


def train_for(job: dict) -> None:
    """Trains with the job's options until its seconds have passed since the first update, and saves the last weights.

    It reports for each checkpoint [updates, seconds, path], and the number of pairs that were read.
    """
    from onmt.models.model_saver import ModelSaver
    from onmt.trainer import Trainer

    read_batches, save = Trainer._accum_batches, ModelSaver._save
    started, num_pairs, checkpoints = 0.0, 0, []

    def read_until_the_end(self: Trainer, batches: Iterator) -> Iterator:
        nonlocal started, num_pairs
        for found in read_batches(self, batches):
            started = started or time.monotonic()
            if time.monotonic() - started >= job["seconds"]:
                return
            num_pairs += sum(len(batch["srclen"]) for batch in found[0])
            yield found

    def save_and_note(self: ModelSaver, step: int, model: torch.nn.Module) -> tuple:
        paths = save(self, step, model)
        checkpoints.append((step, time.monotonic() - started, paths[0]))
        return paths

    Trainer._accum_batches, ModelSaver._save = read_until_the_end, save_and_note
    endless = {"train_steps": 1_000_000_000, "valid_steps": 1_000_000_000}
    run_training(job, {**name_files(job), **endless, **job["options"]})
    write_report(job, checkpoints=checkpoints, num_pairs=num_pairs)


def average(job: dict) -> None:
    """Averages checkpoints into model_step_0.pt."""
    from onmt.bin.average_models import average_models

    folder = Path(job["model"])
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(average_models(job["checkpoints"], fp32=True), folder / "model_step_0.pt")
    write_report(job)


def run_training(job: dict, values: dict) -> None:
    """Runs OpenNMT-py's own command with a configuration."""
    from onmt.bin.train import _get_parser
    from onmt.bin.train import train as train_model

    folder = Path(job["model"])
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    options, _ = _get_parser().parse_known_args(["-config", str(config)])
    train_model(options)


def translate(job: dict) -> None:
    """Runs OpenNMT-py's own inference engine on tokenized lines."""
    from onmt.bin.translate import _get_parser
    from onmt.inference_engine import InferenceEnginePY
    from onmt.utils.misc import set_random_seed
    from onmt.utils.parse import ArgumentParser

    (model,) = Path(job["model"]).glob("model_step_*.pt")
    training = job["training"]
    options = _get_parser().parse_args(
        ["-model", str(model), "-src", job["source"], "-output", f"{job['output']}.raw"]
        + ["-beam_size", str(job["beam_size"]), "-max_length", str(training["max_length"])]
        + ["-batch_size", str(training["batch_sentences"]), "-batch_type", "sents"]
        + (job.get("search", ["-length_penalty", "wu", "-alpha", "1.0"]) if job["beam_size"] > 1 else [])
        + (["-gpu", "0"] if job.get("gpu") else [])
    )
    # onmt.bin.translate does the same.
    ArgumentParser.validate_translate_opts(options)
    ArgumentParser._get_all_transform_translate(options)
    ArgumentParser._validate_transforms_opts(options)
    ArgumentParser.validate_translate_opts_dynamic(options)
    set_random_seed(options.seed, False)
    engine = InferenceEnginePY(options)
    clock = PassClock()
    found = clock.run(
        lambda lines: [best[0] for best in engine.infer_list(lines)[1]], read_lines(job["source"]), job["passes"]
    )
    write_lines(job["output"], found)
    write_report(job, **clock.report())


def make_configuration(job: dict) -> dict:
    """Builds OpenNMT-py's configuration from the sizes and settings of the job."""
    sizes, training = job["sizes"], job["training"]
    return {
        **name_files(job),
        "share_vocab": True,
        "encoder_type": "brnn",
        "rnn_type": "LSTM",
        "enc_layers": 1,
        "dec_layers": 1,
        "word_vec_size": sizes["embedding_units"],
        "enc_hid_size": 2 * sizes["encoder_units"],
        "dec_hid_size": sizes["decoder_units"],
        "global_attention": "general",
        "input_feed": 1,
        "dropout": [training["dropout"]],
        "label_smoothing": training["label_smoothing"],
        "optim": "adam",
        "learning_rate": training["learning_rate"],
        "start_decay_steps": 1_000_000_000,
        "max_grad_norm": training["clip_norm"],
        "normalization": "tokens",
        # About one epoch of Multi30k. By default OpenNMT-py reads the text nine times before the first update.
        "bucket_size": 32768,
        "batch_type": "sents",
        "batch_size": training["batch_sentences"],
        "train_steps": job["updates"],
        "valid_steps": 1_000_000_000,
        "save_checkpoint_steps": 1_000_000_000,
        "report_every": 100,
    }


def name_files(job: dict) -> dict:
    """Builds the part of a configuration that names files, the seed and the device."""

    def name_side(prefix: str) -> dict:
        return {
            "path_src": f"{prefix}.{job['source_language']}",
            "path_tgt": f"{prefix}.{job['target_language']}",
            "transforms": [],
        }

    return {
        "data": {"train": {**name_side(job["train"]), "weight": 1}, "valid": name_side(job["dev"])},
        "src_vocab": job["vocabulary"],
        "tgt_vocab": job["vocabulary"],
        "save_model": f"{job['model']}/model",
        "seed": job["seed"],
        **({"gpu_ranks": [0], "world_size": 1} if job.get("gpu") else {}),
    }


if __name__ == "__main__":
    job = read_job()
    torch.set_num_threads(job["threads"])
    {"train": train, "train_for": train_for, "average": average, "translate": translate}[job["task"]](job)

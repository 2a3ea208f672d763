"""Trains and translates with JoeyNMT, inside its own environment: python run_joeynmt.py JOB.json."""

import os
from pathlib import Path
from typing import Any

import torch
import yaml
from reporting import PassClock, UpdateClock, read_job, read_lines, write_lines, write_report


def train(job: dict) -> None:
    """Runs JoeyNMT's own training, and times each update."""
    from joeynmt.config import load_config
    from joeynmt.helpers import make_model_dir
    from joeynmt.training import TrainManager
    from joeynmt.training import train as train_model

    clock = UpdateClock()
    step = TrainManager._train_step

    def step_and_tick(self: TrainManager, batch: Any) -> tuple:
        found = step(self, batch)
        clock.tick(batch.ntokens)
        return found

    TrainManager._train_step = step_and_tick
    config = Path(job["model"]).with_suffix(".yaml")
    config.write_text(yaml.safe_dump(make_configuration(job)), encoding="utf-8")
    settings = load_config(config)
    make_model_dir(Path(job["model"]), overwrite=True)
    train_model(rank=0, world_size=None, cfg=settings, skip_test=True)
    write_report(job, updates=clock.updates)


def translate(job: dict) -> None:
    """Runs JoeyNMT's own prediction on tokenized lines."""
    from joeynmt.config import load_config, parse_global_args
    from joeynmt.prediction import predict, prepare

    config = Path(job["model"]).with_suffix(".yaml")
    settings = load_config(config)
    settings["use_cuda"] = job.get("gpu", False)
    settings["testing"]["beam_size"] = job["beam_size"]
    settings["testing"]["load_model"] = str(Path(job["model"]) / "latest.ckpt")
    args = parse_global_args(settings, rank=0, mode="translate")
    model, _, _, stream = prepare(args, rank=0, mode="translate")
    clock = PassClock()

    def run(lines: list[str]) -> list[str]:
        stream.reset_cache()
        for line in lines:
            stream.set_item(line)
        # `joeynmt translate` does the same.
        return predict(
            model=model,
            data=stream,
            compute_loss=False,
            device=args.device,
            n_gpu=args.n_gpu,
            normalization="none",
            args=args.test,
            autocast=args.autocast,
        )[2]

    found = clock.run(run, read_lines(job["source"]), job["passes"])
    write_lines(job["output"], found)
    write_report(job, **clock.report())


def make_configuration(job: dict) -> dict:
    """Builds JoeyNMT's configuration from the sizes and settings of the job."""
    sizes, training = job["sizes"], job["training"]

    def name_side(language: str) -> dict:
        return {"lang": language, "level": "word", "lowercase": False, "voc_file": job["vocabulary"]}

    embeddings = {"embedding_dim": sizes["embedding_units"], "dropout": training["dropout"]}
    return {
        "name": "benchmark",
        "joeynmt_version": "2.3.0",
        "model_dir": job["model"],
        "use_cuda": False,
        "random_seed": job["seed"],
        "data": {
            "train": job["train"],
            "dev": job["dev"],
            "dataset_type": "plain",
            "src": name_side(job["source_language"]),
            "trg": name_side(job["target_language"]),
        },
        "training": {
            "loss": "crossentropy",
            "label_smoothing": training["label_smoothing"],
            "normalization": "tokens",
            "optimizer": "adam",
            "learning_rate": training["learning_rate"],
            "learning_rate_min": 1e-9,
            # The plateau schedule passes an argument that PyTorch no longer accepts. This one keeps the rate constant.
            "scheduling": "exponential",
            "decrease_factor": 1.0,
            "clip_grad_norm": training["clip_norm"],
            "batch_size": training["batch_sentences"],
            "batch_type": "sentence",
            "epochs": 1_000_000,
            "updates": job["updates"],
            "logging_freq": 100,
            "validation_freq": 1_000_000_000,
            "shuffle": True,
            "print_valid_sents": [],
        },
        "testing": {
            "batch_size": training["batch_sentences"],
            "batch_type": "sentence",
            "max_output_length": training["max_length"],
            "beam_size": 1,
            "beam_alpha": 1.0,
            "eval_metrics": [],
        },
        "model": {
            "initializer": "xavier_uniform",
            "bias_initializer": "zeros",
            "embed_initializer": "normal",
            "embed_init_weight": 0.1,
            "tied_embeddings": False,
            "encoder": {
                "type": "recurrent",
                "rnn_type": "lstm",
                "bidirectional": True,
                "num_layers": 1,
                "hidden_size": sizes["encoder_units"],
                "dropout": training["dropout"],
                "embeddings": embeddings,
            },
            "decoder": {
                "type": "recurrent",
                "rnn_type": "lstm",
                "num_layers": 1,
                "hidden_size": sizes["decoder_units"],
                "dropout": training["dropout"],
                "hidden_dropout": training["dropout"],
                "attention": "luong",
                "init_hidden": "bridge",
                "input_feeding": True,
                "embeddings": embeddings,
            },
        },
    }


if __name__ == "__main__":
    job = read_job()
    torch.set_num_threads(job["threads"])
    os.chdir(Path(job["report"]).parent)
    {"train": train, "translate": translate}[job["task"]](job)

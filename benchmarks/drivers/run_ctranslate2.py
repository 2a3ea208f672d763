"""Converts a model of OpenNMT-py to CTranslate2 and translates with it: python run_ctranslate2.py JOB.json."""

from pathlib import Path

import ctranslate2
import torch
from ctranslate2.converters.opennmt_py import OpenNMTPyConverter
from reporting import PassClock, read_job, read_lines, write_lines, write_report


def convert(job: dict) -> None:
    """Writes a checkpoint of a Transformer as a model with int8 weights."""
    checkpoint = torch.load(job["checkpoint"], map_location="cpu", weights_only=False)
    # The converter knows this attention under its older name only. Both compute the same.
    checkpoint["opt"].self_attn_type = "scaled-dot"
    renamed = Path(job["model"]).with_suffix(".pt")
    torch.save(checkpoint, renamed)
    OpenNMTPyConverter(str(renamed), unsafe_deserialization=True).convert(job["model"], quantization="int8", force=True)
    write_report(job)


def translate(job: dict) -> None:
    """Translates tokenized lines, in as many batches at once as the job has workers."""
    translator = ctranslate2.Translator(
        job["model"],
        compute_type="int8",
        inter_threads=job["workers"],
        intra_threads=job["threads"] // job["workers"],
    )

    def run(lines: list[str]) -> list[str]:
        found = translator.translate_batch(
            [line.split(" ") for line in lines],
            beam_size=job["beam_size"],
            max_decoding_length=job["training"]["max_length"],
            max_batch_size=job["training"]["batch_sentences"],
        )
        return [" ".join(one.hypotheses[0]) for one in found]

    clock = PassClock()
    write_lines(job["output"], clock.run(run, read_lines(job["source"]), job["passes"]))
    write_report(job, **clock.report())


if __name__ == "__main__":
    job = read_job()
    {"convert": convert, "translate": translate}[job["task"]](job)

"""`nmt ensemble`, `nmt average`, `nmt export` and `nmt serve`: combines trained models, exports and serves them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nmt.cli.options import (
    BeamSize,
    Decoding,
    Device,
    LengthPenalty,
    Model,
    PruningThreshold,
    Rerank,
    RerankWeight,
    Threads,
    log_line,
    read_decoding,
    read_settings,
    require_packages,
    set_up_process,
)
from nmt.errors import UserError, suggest_name

FORMATS = ("savedmodel", "litert")


def ensemble(
    into: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the ensemble.")],
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL", help="Run folders or model folders with the same tokenizers.")
    ],
) -> None:
    """Combine models into an ensemble, which translates with the mean of their probabilities."""
    from nmt.model_folder import save_ensemble

    save_ensemble(into, models)
    log_line(f"Wrote an ensemble of {len(models)} models to {into}.")


def average(
    into: Annotated[Path, typer.Argument(metavar="OUT", help="New model folder.")],
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT", help="Checkpoints of a run (.h5), or model folders of the same architecture."
        ),
    ],
) -> None:
    """Average the weights of checkpoints of one training, and write them as a model folder."""
    set_up_process("cpu")
    from nmt.training.averaging import average_models

    average_models(into, checkpoints)
    log_line(f"Wrote the mean of {len(checkpoints)} checkpoints or models to {into}.")


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder, model folder or ensemble.")],
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder for versions 1, 2, … of the SavedModel, or for the LiteRT model."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys of decoding and export to override, such as export.nbest=1."),
    ] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Sentences on which model and export are compared; default: the dev text.")
    ] = None,
    promises: Annotated[
        Path | None, typer.Option(help="YAML file of promises that translations must keep; default: data.promises.")
    ] = None,
    server_version: Annotated[
        str | None, typer.Option(help="TensorFlow Serving version that will run it. Short for export.server_version=X.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="savedmodel (TensorFlow Serving) or litert (ids in, ids out; phones and C++).")
    ] = "savedmodel",
    quantize: Annotated[
        str | None, typer.Option(help="int8, or bfloat16 in a SavedModel: a smaller artefact; default: float32.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="bfloat16 stores weights and computes in bfloat16, for servers with AMX or AVX-512 BF16; default: "
            "float32."
        ),
    ] = None,
    max_bleu_loss: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="BLEU points that --quantize may cost; default: 0.5."),
    ] = None,
    max_differing: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of sentences that --quantize may change if there are no references; default: 0.1."
        ),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
) -> None:
    """Export a model for TensorFlow Serving (text in, text out) and compare the export with the model."""
    settings = read_settings(
        overrides,
        "decoding",
        "export",
        beam_size=beam_size,
        length_penalty=length_penalty,
        pruning_threshold=pruning_threshold,
    )
    if server_version is not None:
        if "server_version" in settings["export"]:
            raise UserError("--server-version sets the same key as export.server_version; give one of the two.")
        settings["export"]["server_version"] = server_version
    limits = {"max_bleu_loss": max_bleu_loss, "max_differing": max_differing}
    given = {name: value for name, value in limits.items() if value is not None}
    kind = quantize or ("bfloat16" if precision not in (None, "float32") else None)
    if given and kind is None:
        raise UserError("--max-bleu-loss and --max-differing need --quantize: they limit what it may cost.")
    if format not in FORMATS:
        raise UserError(f"--format: expected {' or '.join(FORMATS)}, found '{format}'.{suggest_name(format, FORMATS)}")
    set_up_process("cpu")
    from nmt.exporting.quantization import Quantization

    common: dict[str, Any] = {
        "sample": sample,
        "promises": promises,
        "quantize": Quantization(kind, **given, precision=precision or "float32") if kind else None,
        **settings,
        "log": log_line,
    }
    if format == "litert":
        from nmt.exporting.litert import export_litert

        log_line(f"Exported to {export_litert(model, directory, **common)}.")
        return
    from nmt.exporting.savedmodel import export as export_model

    version = export_model(model, directory, **common)
    log_line(f"Exported to {version}. How to serve it: {version.parent / 'README.md'}")


def serve(
    model: Model,
    overrides: Decoding = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 accepts connections from other machines.")
    ] = "127.0.0.1",
    name: Annotated[str | None, typer.Option(help="Model name in URLs; default: the folder's name.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the key that requests must send; or set NMT_API_KEY.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Site whose pages may use the server, such as https://example.com; or *."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Further host name by which clients may call the server.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=256, help="Texts translated together.")] = 32,
    max_wait: Annotated[float, typer.Option(min=0, max=1000, help="Milliseconds a text waits for others.")] = 5,
    max_queue: Annotated[
        int, typer.Option(min=1, help="Texts of one client that may wait before its requests are refused.")
    ] = 1024,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections open at a time.")] = 1000,
    max_body: Annotated[int, typer.Option(min=1, help="Bytes per request.")] = 1 << 20,
    max_bodies: Annotated[
        int | None, typer.Option(min=1, help="Bytes of all requests together; default: 64 times --max-body.")
    ] = None,
    max_texts: Annotated[int, typer.Option(min=1, help="Texts per request.")] = 128,
    max_characters: Annotated[int, typer.Option(min=1, help="Characters per text.")] = 10_000,
    max_work: Annotated[
        int,
        typer.Option(min=1, help="Source tokens and tokens that translations may have, times beam size, per request."),
    ] = 2_000_000,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to answer a request.")] = 30,
    rerank: Rerank = None,
    rerank_weight: RerankWeight = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    pruning_threshold: PruningThreshold = None,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Serve translations over HTTP: TensorFlow Serving's API, /translate and a web page."""
    decoding = read_decoding(overrides, beam_size, length_penalty, pruning_threshold)
    require_packages("nmt serve", "serve", "fastapi", "uvicorn", "prometheus_client")
    if max_bodies is not None and max_bodies < max_body:
        raise UserError(f"--max-bodies {max_bodies} is less than one request may have, --max-body {max_body}.")
    set_up_process(device, threads)
    from nmt.server.access import make_access
    from nmt.server.limits import Limits
    from nmt.server.run import serve as serve_model

    limits = Limits(
        max_body=max_body,
        max_bodies=max_bodies or 64 * max_body,
        max_texts=max_texts,
        max_characters=max_characters,
        max_work=max_work,
        max_connections=max_connections,
        max_queue=max_queue,
        max_batch=max_batch,
        max_wait=max_wait / 1000,
        timeout=timeout,
    )
    serve_model(
        model,
        host=host,
        port=port,
        name=name,
        limits=limits,
        key_file=api_key_file,
        access=make_access(host, allow_origin or (), allow_host or ()),
        decoding=decoding,
        rerank=rerank,
        rerank_weight=rerank_weight,
        log=log_line,
    )

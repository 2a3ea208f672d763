"""Trains and translates with OpenNMT-tf, inside its own environment: python run_opennmt_tf.py JOB.json."""

from collections.abc import Iterator
from pathlib import Path

import opennmt
import tensorflow as tf
import tensorflow_addons as tfa
from opennmt.utils import checkpoint as checkpoints
from opennmt.utils import misc
from reporting import PassClock, UpdateClock, read_job, read_lines, write_lines, write_report


def train(job: dict) -> None:
    """Runs OpenNMT-tf's own training, and times each update."""
    clock = UpdateClock()
    steps, group = opennmt.training.Trainer._steps, opennmt.training._group_batches
    num_tokens = []

    def group_and_count(dataset: tf.data.Dataset, size: int) -> Iterator[list]:
        for batches in group(dataset, size):
            # The length includes EOS.
            num_tokens.append(sum(int(tf.reduce_sum(target["length"])) for _, target in batches))
            yield batches

    def step_and_tick(self: opennmt.training.Trainer, *args: object, **kwargs: object) -> Iterator[float]:
        for loss in steps(self, *args, **kwargs):
            clock.tick(num_tokens[-1])
            yield loss

    opennmt.training.Trainer._steps, opennmt.training._group_batches = step_and_tick, group_and_count
    make_runner(job).train()
    write_report(job, updates=clock.updates)


def translate(job: dict) -> None:
    """Runs OpenNMT-tf's own search on tokenized lines, in a graph that is traced once."""
    using = make_runner(job)
    settings = using._finalize_config()
    model = using._init_model(settings)
    checkpoints.Checkpoint.from_config(settings, model).restore(weights_only=True)
    features = Path(f"{job['output']}.raw")
    search = None

    def run(lines: list[str]) -> list[str]:
        # opennmt.inference.predict_dataset does the same, but traces the graph again for every file.
        nonlocal search
        write_lines(str(features), lines)
        dataset = model.examples_inputter.make_inference_dataset(
            str(features), job["training"]["batch_sentences"], batch_type="examples", length_bucket_width=2
        )
        search = search or tf.function(model.infer, input_signature=(dataset.element_spec,))
        found = {}
        for batch in dataset:
            answers = tf.nest.map_structure(lambda tensor: tensor.numpy(), search(batch))
            for answer in misc.extract_batches(answers):
                tokens = answer["tokens"][0][: answer["length"][0]]
                found[int(answer["index"])] = " ".join(token.decode("utf-8") for token in tokens)
        return [found[n] for n in range(len(lines))]

    clock = PassClock()
    write_lines(job["output"], clock.run(run, read_lines(job["source"]), job["passes"]))
    write_report(job, **clock.report())


def make_runner(job: dict) -> opennmt.Runner:
    """Builds OpenNMT-tf with a model of the sizes in the job."""
    sizes, training = job["sizes"], job["training"]
    recurrent = {"cell_class": tf.keras.layers.LSTMCell, "dropout": training["dropout"], "residual_connections": False}
    model = opennmt.models.SequenceToSequence(
        source_inputter=opennmt.inputters.WordEmbedder(embedding_size=sizes["embedding_units"]),
        target_inputter=opennmt.inputters.WordEmbedder(embedding_size=sizes["embedding_units"]),
        encoder=opennmt.encoders.RNNEncoder(
            num_layers=1,
            num_units=sizes["encoder_units"],
            bidirectional=True,
            reducer=opennmt.layers.ConcatReducer(),
            **recurrent,
        ),
        decoder=opennmt.decoders.AttentionalRNNDecoder(
            num_layers=1,
            num_units=sizes["decoder_units"],
            bridge_class=opennmt.layers.CopyBridge,
            attention_mechanism_class=tfa.seq2seq.LuongAttention,
            **recurrent,
        ),
    )
    return opennmt.Runner(model, make_configuration(job), seed=job.get("seed"))


def make_configuration(job: dict) -> dict:
    """Builds OpenNMT-tf's configuration from the settings of the job."""
    training = job["training"]
    Path(job["model"]).mkdir(parents=True, exist_ok=True)
    vocabulary = Path(job["model"]) / "vocabulary.txt"
    write_lines(str(vocabulary), ["<blank>", "<s>", "</s>", *read_lines(job["vocabulary"])])
    return {
        "model_dir": job["model"],
        "data": {
            "source_vocabulary": str(vocabulary),
            "target_vocabulary": str(vocabulary),
            "train_features_file": f"{job.get('train')}.{job['source_language']}",
            "train_labels_file": f"{job.get('train')}.{job['target_language']}",
        },
        "params": {
            "optimizer": "Adam",
            "optimizer_params": {"global_clipnorm": training["clip_norm"]},
            "learning_rate": training["learning_rate"],
            "label_smoothing": training["label_smoothing"],
            "average_loss_in_time": True,
            "beam_width": job.get("beam_size", 1),
            "length_penalty": 1.0 if job.get("beam_size", 1) > 1 else 0.0,
            "maximum_decoding_length": training["max_length"],
        },
        "train": {
            "batch_type": "examples",
            "batch_size": training["batch_sentences"],
            "max_step": job.get("updates"),
            "save_checkpoints_steps": None,
            "save_summary_steps": 100,
        },
    }


if __name__ == "__main__":
    job = read_job()
    {"train": train, "translate": translate}[job["task"]](job)

"""All checks of `nmt doctor`, ordered so that what would fail first is reported first."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nmt.config.schema import Config
from nmt.data.corpus import ParallelCorpus, read_parallel
from nmt.data.preparation import read_dev
from nmt.doctor.findings import Finding
from nmt.doctor.machine import examine_disk, examine_machine, examine_memory
from nmt.doctor.text import (
    examine_alignment,
    examine_corpora,
    examine_files,
    examine_held_out,
    examine_language_codes,
    examine_languages,
    examine_overlap,
    examine_pairs,
    examine_promises,
    open_texts,
)
from nmt.doctor.tokens import (
    estimate_token_cache,
    examine_dev,
    examine_lengths,
    examine_placeholders,
    examine_start,
    examine_tags,
    find_longest_pair,
    measure_lengths,
    try_tokenizers,
)
from nmt.errors import UserError


def read_tests(sources: Sequence[Path], references: Sequence[Path]) -> dict[str, tuple[list[str], list[str]]]:
    """Reads test sets: sources and references by the path of the source, and of the reference if there are several.

    Raises:
        UserError: a file is missing, or a source and its reference have different numbers of lines.
    """
    return {
        f"{source} with {reference}" if sources.count(source) > 1 else str(source): read_parallel(source, reference)
        for source, reference in zip(sources, references, strict=True)
    }


def examine(config: Config, *, tests: dict[str, tuple[list[str], list[str]]]) -> Iterator[Finding]:
    """Yields each finding as soon as it is known.

    Args:
        config: the configuration of a training run. The run is not started, but its cache folder is filled.
        tests: additional held-out sets, sources and references by name.
    """
    for target in config.target_languages:
        yield from examine_language_codes(config.data.source_language, target)
    if config.data.promises:
        yield examine_promises(config.data.promises)
    run_dir = Path(config.run_dir or "runs")
    cache = config.data.cache or run_dir / "cache"
    try:
        dev = read_dev(config)
        texts = open_texts(config.data, cache)
        corpus = ParallelCorpus.open([(files.source, files.target) for files in config.data.train], cache)
    except UserError as error:
        yield Finding("text", "error", str(error))
        yield from examine_machine()
        return
    num_dev = sum(len(one.sources) for one in dev)
    held_out = {one.name if len(dev) > 1 else "dev": (one.bare_sources, one.targets) for one in dev}
    held_out |= {f"./{name}" if name in held_out else name: sides for name, sides in tests.items()}
    yield Finding("text", "ok", f"{len(corpus):,} pairs in {len(texts):,} files, {num_dev:,} in dev, all UTF-8")
    yield from examine_corpora(config, corpus, cache)
    yield from examine_files(texts)
    yield from examine_alignment(list(zip(texts[::2], texts[1::2], strict=True)))
    yield from examine_pairs(corpus)
    yield from examine_held_out(held_out)
    yield from examine_overlap(corpus, held_out)
    yield from examine_languages(corpus, config.data)
    start = None
    if config.training.start_from is not None:
        config, start, finding = examine_start(config, run_dir)
        yield finding
    tokenizers, finding = try_tokenizers(config, corpus, run_dir, start=start)
    yield finding
    if tokenizers is not None:
        sample = measure_lengths(corpus, tokenizers)
        yield from examine_lengths(config, corpus, sample)
        yield from examine_tags(config.data, tokenizers)
        yield from examine_placeholders(config.data, corpus, tokenizers)
        yield from examine_dev(config, dev, tokenizers)
        sizes = tokenizers[0].vocabulary_size, tokenizers[1].vocabulary_size
        longest = find_longest_pair(config, corpus, tokenizers, sample)
        use, findings = examine_memory(config, vocabulary_sizes=sizes, lengths=longest)
        yield from findings
        if use is not None:
            ids = estimate_token_cache(corpus, tokenizers, sample, cache)
            yield from examine_disk(config, weights=use.weights, run_dir=run_dir, cache=cache, token_bytes=ids)
    yield from examine_machine()

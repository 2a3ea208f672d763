"""Which commands of the pages no test runs, and why: below their blocks, the site shows the note made here.

Tests run the other blocks: Python with a small model, requests to a server on this machine, and commands on text files.
`tests/test_documentation.py` checks that each block is run or has a note.
"""

import re
from typing import Any

# What the note says, and the beginnings of commands.
REASONS = {
    "installs packages": ["python scripts/install.py", "pip install"],
    "needs the network": ["nmt download"],
    "trains a model": ["make demo", "nmt train", "nmt tune"],
    "needs the training text": ["nmt doctor"],
    "needs a trained model": [
        *("nmt translate", "nmt translate-corpus", "nmt evaluate", "nmt score", "nmt align", "nmt check"),
        *("nmt calibrate", "nmt clean", "nmt inspect", "nmt index", "nmt report", "nmt distill", "nmt back-translate"),
        *("nmt export", "nmt serve", "nmt ensemble", "nmt average", "nmt info"),
    ],
    "needs translations of two systems": ["nmt compare"],
    "takes minutes or hours": ["make bench", "make soak", "python -m benchmarks", "python tests/training/soak.py"],
    "depends on the machine": ["export JAX_COMPILATION_CACHE_DIR"],
    "needs several machines": ["ray start", "srun", "export TF_CONFIG"],
    "needs Docker": ["docker"],
    "needs a Kubernetes cluster": ["kubectl"],
    "needs a server": ["python translate_rest.py", "python translate_grpc.py", "curl -s HOST", "curl -s demo"],
    "needs TensorFlow Serving": [
        'curl -s localhost:8501/v1/models/demo:predict -d \'{"signature_name": "token_log_probs"'
    ],
    "runs until it is stopped": ["tensorboard"],
}
PYTHON_REASONS = {"training and export, which take minutes": ["nmt.train(", "nmt.export("]}
GENERATED = {"reference/commands"}  # shows how commands are called


def make_note(code: str, language: str) -> str:
    """Returns what the site shows below a block: the reasons why the tests do not run it, or nothing."""
    if language == "python":
        reasons = [reason for reason, calls in PYTHON_REASONS.items() if any(call in code for call in calls)]
    else:
        code = code.replace("\\\n", " ")
        # At the beginning of a line, or after a prompt, a variable, a pipe or another command.
        starts = {reason: "|".join(re.escape(command) for command in commands) for reason, commands in REASONS.items()}
        reasons = [
            reason
            for reason, start in starts.items()
            if re.search(rf"(?:^\s*|[|;&$] |\b[A-Z_]+=\S* )(?:{start})(?![\w-])", code, re.MULTILINE)
        ]
        if "trains a model" in reasons and "needs a trained model" in reasons:
            reasons.remove("needs a trained model")  # which this one is
    return f"Not run by the tests: {', '.join(reasons)}." if reasons else ""


def add_notes(app: Any, doctree: Any) -> None:
    """Adds the notes to a page that Sphinx has read."""
    from docutils import nodes

    if app.env.docname in GENERATED:
        return
    for block in list(doctree.findall(nodes.literal_block)):
        if note := make_note(block.astext(), block.get("language", "")):
            block.parent.insert(block.parent.index(block) + 1, nodes.paragraph("", note, classes=["untested"]))

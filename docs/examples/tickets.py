"""A worked example: vectors, what an instruction does to them, a history that is searched, and the proof.

Run it from anywhere: python docs/examples/tickets.py. It needs pip install 'refract[edge,minilm]', and neither
Kafka, Ray nor a network.
"""

# %% The data: 640 support tickets, labelled by issue and by urgency.
import json
import tempfile
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np

from pipeline import Session
from pipeline.usecases.backfill import BackfillRequest
from pipeline.usecases.compared_sources import CompareRequest

lines = (files("pipeline.demo") / "tickets.jsonl").read_text(encoding="utf-8").splitlines()
newest = {row["id"]: row for row in map(json.loads, lines) if row.get("status") == "open"}
tickets = list(newest.values())[:100]
texts = [f"{ticket['title']}\n\n{ticket['body']}" for ticket in tickets]
print(len(texts), "tickets:", Counter(ticket["urgency"] for ticket in tickets).most_common())

folder = Path(tempfile.mkdtemp(prefix="refract-example-"))
history = folder / "tickets.jsonl"
history.write_text("".join(json.dumps(ticket) + "\n" for ticket in tickets), encoding="utf-8")

# %% The configuration, as a mapping. A file does the same: Session.open("configs/laptop.yaml").
configuration = {
    "pipeline": "example",
    "source": {
        "bootstrap_servers": ["localhost:9092"],  # never contacted here
        "group_id": "example",
        "dead_letter_topic": "tickets.dead-letters",
        "topics": {
            "tickets": {
                "key": "id",
                "text": "{title}\n\n{body}",
                "version": "updated_at",
                "version_type": "time",
                "payload": ["title", "issue", "urgency", "language"],
                "tasks": ["urgency", "technical_issue", "plain"],
            }
        },
    },
    "models": {
        "minilm": {
            "model": "packaged:all-MiniLM-L6-v2",
            "overrides": {
                "instruction_style": "free_form",
                "query_template": "{instruction}: {text}",
                "query_template_plain": "{text}",
                "document_template": "{instruction}: {text}",
                "document_template_plain": "{text}",
            },
        },
    },
    "tasks": {
        "urgency": {"model": "minilm", "instruction": "How urgent is this support ticket"},
        "technical_issue": {"model": "minilm", "instruction": "What is the technical issue in this support ticket"},
        "plain": {"model": "minilm"},
    },
    "store": {"type": "edge", "path": str(folder / "store")},
}

refract = Session.of(configuration)

# %% One vector per ticket and task.
rows = {task: refract.embed(task, texts) for task in refract.tasks}
query = refract.embed("urgency", ["everything is down, please help right now"], input_type="query")[0]

for task, vectors in rows.items():
    print(f"{task:16} {vectors.shape} {vectors.dtype}")

# %% The nearest tickets of a query: a dot product, since rows have length 1.
for index in np.argsort(-(rows["urgency"] @ query))[:5]:
    print(f"{rows['urgency'][index] @ query:.2f}  {tickets[index]['urgency']:8} {tickets[index]['title']}")


# %% Does an instruction do its job? Leave one out, and see whether the nearest ticket has the same label.
def share_alike(vectors: np.ndarray, label: str) -> float:
    """Returns how often a ticket's nearest neighbour has the same label."""
    labels = np.array([ticket[label] for ticket in tickets])
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -1)
    return float((labels[likeness.argmax(axis=1)] == labels).mean())


print(f"\n{'':16} {'urgency':>8} {'issue':>8}")
for task, vectors in rows.items():
    print(f"{task:16} {share_alike(vectors, 'urgency'):8.2f} {share_alike(vectors, 'issue'):8.2f}")

# The rows are almost equal: this model was not trained on instructions. Put one that was in its place
# ("model": "Qwen/Qwen3-Embedding-0.6B", without `overrides`) and the diagonal should stand out.

# %% A history, embedded into a store. Run again it finds nothing to do: versions and a ledger see to that.
request = BackfillRequest([str(history)], tasks=["urgency"])
report = refract.backfill(request, executor="local")
print(f"\n{report.rows} rows, {report.written} points, {report.rejected} rejected, {report.seconds:.0f} s")
assert report.ok
assert refract.backfill(request, executor="local").rows == 0

# %% Searched: by a text, by a stored ticket, and with a filter on the payload.
for hit in refract.search("urgency", "everything is down, please help right now", limit=3, language="en"):
    print(f"{hit.score:.2f}  {hit.key}  {hit.payload}")
print([hit.key for hit in refract.search("urgency", key=tickets[0]["id"], limit=5)])

# %% Proven: the store holds what the file says, key by key, and a sample of the vectors is computed again.
found = refract.verify(CompareRequest(history, sample=10))
urgency = found.tasks["urgency"]
print(f"{urgency.keys} keys: {urgency.missing} missing, {urgency.stale} stale, {urgency.wrong_vector} wrong vectors")
assert (urgency.missing, urgency.stale, urgency.wrong_vector) == (0, 0, 0)

refract.close()

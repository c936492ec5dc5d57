"""export: a finished encoder as two files that need no AdaInf, weights and the card with what was measured."""

from __future__ import annotations

from adainf.errors import BadInput
from adainf.evaluation.find_encoder import find_pretrained
from adainf.evaluation.scores import ArmScores
from adainf.models.card import Card
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import evaluated, pretrained
from adainf.pipeline.progress import Reporter
from adainf.storage import open_store


def export(reporter: Reporter, run: str, arm: str, output: str, seed: int | None = None) -> None:
    """Write ``encoder.safetensors`` and ``encoder.json`` to the folder `output` (or ``s3://bucket/prefix``).

    Raises `BadInput` where the run has no such encoder, or was evaluated with another one.
    """
    there = Run(run)
    found, manifest = find_pretrained(there, arm, seed)
    weights = there.read(manifest.output("encoder.safetensors"))
    described = manifest.output("encoder.json")
    card = there.parse(Card, described.key, there.read(described))
    judged = there.find(evaluated(arm))
    results = []
    if judged is not None:
        if judged.request.inputs.get(pretrained(arm, found)) != manifest.digest:
            key = there.manifest_key(evaluated(arm))
            raise BadInput(f"{there.locate(key)} is about another encoder; delete it and run `adainf evaluate` again")
        scores = judged.content_as(ArmScores).seeds.get(str(found))
        results = scores.measures if scores else []
    complete = card.model_copy(update={"results": [one.model_dump(mode="json") for one in results]})
    store = open_store(output)
    store.put("encoder.safetensors", weights)
    store.put("encoder.json", complete.to_json())
    measured = f"{len(results)} results" if results else "no results, as it is not evaluated yet"
    reporter.info(f"export: arm {arm}, seed {found}, with {measured}, in {output}")

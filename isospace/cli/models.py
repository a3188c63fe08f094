"""The commands that train and compare models: finetune, distill, compare-models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isospace.cli.common import (
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    engine_of,
    print_table,
)
from isospace.cli.plan import ConfigArgument, OverrideOption
from isospace.cli.run import loading, one_line_errors
from isospace.cli.terminal import print_json, say

if TYPE_CHECKING:
    from isospace.finetuning.distillation.distill import Distilled


def finetune(config: ConfigArgument, overrides: OverrideOption = None, as_json: JsonOption = False) -> None:
    """Fine-tune an encoder on a collection, and measure whether that improves search."""
    from isospace.cli.display import display

    with display(f"isospace finetune {config}") as reporter, one_line_errors():
        with loading(reporter):
            from isospace.finetuning.config import load_finetune
            from isospace.finetuning.finetune import finetune_encoder, outcome
            from isospace.pipeline.local_executor import LocalExecutor

            loaded = load_finetune(config, overrides or [])
        report = finetune_encoder(loaded, LocalExecutor(reporter))
    if as_json:
        print_json(report.as_dict())
        return
    say(outcome(report))


def distill(
    store: StoreArgument,
    collection: CollectionArgument,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the result, in its lineage.")] = "static",
    fit: Annotated[
        Literal["corpus", "vocabulary"],
        typer.Option(
            help="corpus: fit token vectors to the collection's vectors. vocabulary: take the encoder's vectors of "
            "single tokens, weighted by frequency, as model2vec does."
        ),
    ] = "corpus",
    texts: Annotated[
        int, typer.Option(metavar="COUNT", min=100, help="Maximum number of texts to fit and to measure.")
    ] = 50_000,
    queries: Annotated[
        int,
        typer.Option(metavar="COUNT", min=0, help="Maximum number of sentences to encode as queries and to fit, too."),
    ] = 10_000,
    ridge: Annotated[
        float, typer.Option(metavar="NUMBER", help="How strongly token vectors are held to those of vocabulary.")
    ] = 3e-3,
    dimension: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            min=1,
            help="Keep so many dimensions (PCA). Default: all, which a query encoder beside the documents of its "
            "teacher needs.",
        ),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option("--evaluation", metavar="SET", help="Judged evaluation set. Default: `default`, if there is one."),
    ] = None,
    fit_evaluated: Annotated[
        bool,
        typer.Option(
            "--fit-evaluated",
            help="Fit the documents that answer the set's queries, too; nDCG@10 then says nothing of new documents.",
        ),
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write the model to this folder, for other libraries.")
    ] = None,
    snapshot: SnapshotOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make a static model of a collection's encoder, which NumPy runs without a network, and say what it keeps."""
    from isospace.cli.display import display

    engine = engine_of(backend, device)
    with display(f"isospace distill {store} {collection}") as reporter, one_line_errors():
        with loading(reporter):
            from isospace.finetuning.distillation.distill import distill_encoder
            from isospace.finetuning.distillation.settings import DistillSettings
            from isospace.storage.store import open_store

            settings = DistillSettings(
                name=name,
                fit=fit,
                texts=texts,
                queries=queries,
                ridge=ridge,
                dimension=dimension,
                evaluation=evaluation,
                fit_evaluated=fit_evaluated,
            )
        distilled = distill_encoder(
            open_store(store), collection, settings, reporter, snapshot=snapshot, folder=folder, engine=engine
        )
    if as_json:
        print_json(distilled.as_dict())
        return
    _print_distilled(distilled)


def _print_distilled(distilled: Distilled) -> None:
    kept, lineage = distilled.kept, distilled.lineage
    rows = [("same 10 nearest texts", "", f"{kept.overlap:.1%}", _share(kept.overlap_as_query))]
    if found := kept.retrieval:
        as_query = f"{found.as_query.after:.4f}" if found.as_query else ""
        rows.append((f"nDCG@10 ({found.name})", f"{found.alone.before:.4f}", f"{found.alone.after:.4f}", as_query))
    title = "what it keeps, on texts that were held out"
    print_table(("", "teacher", "static", "static queries, teacher's documents"), rows, title=title)
    if kept.retrieval:
        say(f"  nDCG@10    on {kept.retrieval.described}")
    if kept.cosine is not None:
        say(f"  cosine     {kept.cosine:.4f} with the teacher's vectors, on average")
    say(f"  speed      {kept.speed:,.0f} times the teacher's; {kept.tokens_per_second:,.0f} tokens/s")
    say(f"  size       {distilled.megabytes[1]:,.1f} MB instead of {distilled.megabytes[0]:,.1f} MB")
    say(f"  encoder    {lineage.encoder_id} ({lineage.name}), {distilled.dimension} dimensions")
    if distilled.folder:
        say(f"  folder     {distilled.folder}")
    say(f"  to use it  --set recipe.encoder.model=encoder:{lineage.encoder_id[:16]}")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def compare_models(config: ConfigArgument, overrides: OverrideOption = None, as_json: JsonOption = False) -> None:
    """Compare encoders and transforms on your corpus and queries; a later run measures only new combinations."""
    from isospace.cli.display import display

    with display(f"isospace compare-models {config}") as reporter, one_line_errors():
        with loading(reporter):
            from isospace.operations.compare_models import run
            from isospace.operations.compare_models.compare import load_comparison
            from isospace.operations.compare_models.page import comparison_markdown
            from isospace.pipeline.local_executor import LocalExecutor

            loaded = load_comparison(config, overrides or [])
        comparison = run.compare_models(loaded, LocalExecutor(reporter))
    if as_json:
        print_json(comparison.as_dict())
        return
    say(comparison_markdown(comparison))

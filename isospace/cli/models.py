"""The commands that train and compare models: finetune, compare-models."""

from __future__ import annotations

from isospace.cli.common import JsonOption
from isospace.cli.plan import ConfigArgument, OverrideOption
from isospace.cli.run import loading, one_line_errors
from isospace.cli.terminal import print_json, say


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
